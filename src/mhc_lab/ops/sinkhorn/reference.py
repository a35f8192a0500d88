"""Sinkhorn-Knopp as written in the papers, in plain torch (fp32 or fp64); and the same with a backward by hand."""

from __future__ import annotations

import torch
from torch import Tensor

V4_EPS = 1e-6  # DeepSeek-V4's shipped constant, added to the softmax and to every sum


def sinkhorn_reference(logits: Tensor, t_max: int = 20, convention: str = "eq9", hc_eps: float = V4_EPS) -> Tensor:
    """[..., n, n] logits -> [..., n, n] approximately doubly stochastic, rows exact to rounding.

    eq9: mHC Eq. 9. M_0 = exp(logits); M_t = T_r(T_c(M_{t-1})), columns first, then rows.
    v4: DeepSeek-V4's shipped form, restated for H_res (its code works on the transpose): softmax over
        columns + hc_eps, rows, then (columns, rows) t_max - 1 times, hc_eps added to every sum.

    In fp64 exact for logits within +-100; in fp32 only while exp(2 * spread of logits) is representable.
    """
    if convention == "v4":
        matrix = torch.softmax(logits, dim=-2) + hc_eps
        matrix = matrix / (matrix.sum(-1, keepdim=True) + hc_eps)
        for _ in range(t_max - 1):
            matrix = matrix / (matrix.sum(-2, keepdim=True) + hc_eps)
            matrix = matrix / (matrix.sum(-1, keepdim=True) + hc_eps)
        return matrix
    # The first step divides each column by its sum, so a factor a column cancels: no overflow, same result.
    matrix = torch.exp(logits - logits.amax(dim=-2, keepdim=True).detach())
    for _ in range(t_max):
        matrix = matrix / matrix.sum(-2, keepdim=True)
        matrix = matrix / matrix.sum(-1, keepdim=True)
    return matrix


def forward(logits: Tensor, t_max: int, convention: str) -> Tensor:
    """[T, n, n] -> [T, n, n]; contract of `ops.sinkhorn`. In fp64, which is safe for any spread of logits."""
    return _iterate(logits, t_max, convention)[0].permute(2, 0, 1).to(logits.dtype, copy=True).contiguous()


def backward(grad: Tensor, logits: Tensor, t_max: int, convention: str) -> Tensor:
    """[T, n, n]: the gradient of the truncated iteration."""
    value, start, sums = _iterate(logits, t_max, convention)
    pull = grad.permute(1, 2, 0).double().contiguous()
    for axis, total in reversed(sums):
        # For y = x / s, s = sum(x) + eps, the gradient is (g - sum(g y)) / s; and x = y s.
        pull = (pull - (pull * value).sum(axis, keepdim=True)) / total
        value = value * total
    # eq9's start is exp(logits - maximum), v4's a softmax + eps.
    out = pull * start
    if convention == "v4":
        out = out - start * out.sum(0, keepdim=True)
    return out.permute(2, 0, 1).to(logits.dtype).contiguous()


def _iterate(logits: Tensor, t_max: int, convention: str) -> tuple[Tensor, Tensor, list[tuple[int, Tensor]]]:
    """[T, n, n] -> H_res and its start without eps, both fp64 [n, n, T], and (axis, sum) of each division.

    Tokens last: the sums over n run across long contiguous rows, 6x faster than on batches of n x n.
    """
    matrix = logits.permute(1, 2, 0).double().contiguous()
    axes, eps = [0, 1] * t_max, 0.0
    if convention == "v4":
        start = torch.softmax(matrix, dim=0)
        axes, eps = axes[1:], V4_EPS
    else:
        start = (matrix - matrix.amax(dim=0, keepdim=True)).exp()
    value, sums = start + eps, []
    for axis in axes:
        sums.append((axis, value.sum(axis, keepdim=True) + eps))
        value = value / sums[-1][1]
    return value, start, sums
