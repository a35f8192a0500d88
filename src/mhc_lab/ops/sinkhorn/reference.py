"""Sinkhorn-Knopp as written in the papers, in plain torch (fp32 or fp64)."""

from __future__ import annotations

import torch
from torch import Tensor

V4_EPS = 1e-6  # DeepSeek-V4's shipped constant, added to the softmax and to every sum


def sinkhorn_reference(logits: Tensor, t_max: int = 20, convention: str = "eq9") -> Tensor:
    """[..., n, n] logits -> [..., n, n] approximately doubly stochastic, rows exact to rounding.

    eq9: mHC Eq. 9. M_0 = exp(logits); M_t = T_r(T_c(M_{t-1})), columns first, then rows.
    v4: DeepSeek-V4's shipped form, restated for H_res (its code works on the transpose): softmax over
        columns + eps, rows, then (columns, rows) t_max - 1 times, eps added to every sum.

    In fp64 exact for logits within +-100; in fp32 only while exp(2 * spread of logits) is representable.
    """
    if convention == "v4":
        matrix = torch.softmax(logits, dim=-2) + V4_EPS
        matrix = matrix / (matrix.sum(-1, keepdim=True) + V4_EPS)
        for _ in range(t_max - 1):
            matrix = matrix / (matrix.sum(-2, keepdim=True) + V4_EPS)
            matrix = matrix / (matrix.sum(-1, keepdim=True) + V4_EPS)
        return matrix
    # The first step divides each column by its sum, so a factor a column cancels: no overflow, same result.
    matrix = torch.exp(logits - logits.amax(dim=-2, keepdim=True).detach())
    for _ in range(t_max):
        matrix = matrix / matrix.sum(-2, keepdim=True)
        matrix = matrix / matrix.sum(-1, keepdim=True)
    return matrix
