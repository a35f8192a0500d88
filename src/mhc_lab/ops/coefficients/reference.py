"""The projection that dynamic mappings start from, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

NORM_EPS = 1e-20  # mHC Table 5


def coefficients_reference(streams: Tensor, phi: Tensor) -> Tensor:
    """[..., n, C] streams, [n C, m] phi -> [..., m]: RMSNorm(vec(x)) phi, one statistic over n C (mHC Eq. 7)."""
    flat = streams.flatten(-2)
    normed = flat * torch.rsqrt(flat.square().mean(-1, keepdim=True) + NORM_EPS)
    return normed @ phi
