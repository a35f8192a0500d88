"""The read in plain torch."""

from __future__ import annotations

from torch import Tensor


def read_reference(streams: Tensor, h_pre: Tensor) -> Tensor:
    """[..., n, C] streams, [..., n] H_pre -> [..., C]: H_pre x (mHC Eq. 3)."""
    return (h_pre.unsqueeze(-1) * streams).sum(-2)
