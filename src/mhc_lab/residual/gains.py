"""What the paper measures of H_res: Amax gains, single and composite; and how far the streams spread."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def amax_gains(matrix: Tensor) -> tuple[float, float]:
    """[..., n, n] -> forward and backward Amax gain magnitude (mHC section 5, Figs. 3 and 7).

    Forward: max over rows of |row sum|; backward: max over columns of |column sum|; per token, then the mean.
    """
    forward = matrix.sum(-1).abs().amax(-1).mean()
    backward = matrix.sum(-2).abs().amax(-1).mean()
    return float(forward), float(backward)


def composites(matrices: Sequence[Tensor]) -> list[Tensor]:
    """H_res of each layer, [..., n, n] -> prod_{i=l}^{L-1} H_i for each start layer l, deepest on the left (Eq. 4)."""
    products: list[Tensor] = []
    for matrix in reversed(matrices):
        # fp64: an unconstrained product passes 1e4 within a few layers.
        products.append(products[-1] @ matrix.double() if products else matrix.double())
    return products[::-1]


def doubly_stochastic_error(matrix: Tensor) -> float:
    """[..., n, n] -> the largest |row or column sum - 1| of a token, then the mean over tokens."""
    rows = (matrix.sum(-1) - 1).abs().amax(-1)
    columns = (matrix.sum(-2) - 1).abs().amax(-1)
    return float(torch.maximum(rows, columns).mean())


def stream_spread(streams: Tensor) -> float:
    """[..., n, C] -> |x - mean of the streams| / |x| (Frobenius) per token, then the mean over tokens; 0: all equal."""
    values = streams.float()
    deviation = (values - values.mean(-2, keepdim=True)).flatten(-2).norm(dim=-1)
    return float((deviation / values.flatten(-2).norm(dim=-1).clamp_min(1e-30)).mean())
