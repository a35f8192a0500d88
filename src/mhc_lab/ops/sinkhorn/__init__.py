"""Sinkhorn-Knopp with an exact backward for the truncated iteration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhc_lab.ops.sinkhorn.reference import V4_EPS, sinkhorn_reference

__all__ = ["V4_EPS", "sinkhorn", "sinkhorn_reference"]

# Entries of the iterates reach exp(-2 * spread) / n; below this spread they are normal fp32 numbers.
_FP32_SPREAD = 40.0
_COLUMNS, _ROWS = 0, 1  # the axis that a half-step sums over, with the matrix axes in front


def sinkhorn(logits: Tensor, t_max: int = 20, convention: str = "eq9") -> Tensor:
    """Project logits onto the doubly stochastic matrices by t_max Sinkhorn-Knopp iterations (mHC Eq. 9).

    Args:
        logits: [..., n, n], any float dtype; finite for logits within +-100.
        t_max: iterations, at least 1.
        convention: "eq9" (the paper) or "v4" (DeepSeek's shipped form), see `reference.py`.

    Returns:
        [..., n, n], fp32 (fp64 for fp64 logits). Rows sum to 1; columns to the error of t_max.
        The gradient is that of the truncated iteration, not of its limit.
    """
    assert t_max >= 1, t_max
    assert convention in ("eq9", "v4"), convention
    values = logits if logits.dtype == torch.float64 else logits.float()
    with torch.autocast(logits.device.type, enabled=False):
        # Tokens last: the sums over n run across long contiguous rows, 6x faster than batched n x n.
        matrix = values.movedim((-2, -1), (0, 1)).reshape(*values.shape[-2:], -1).contiguous()
        half_steps, first_axis, eps = 2 * t_max, _COLUMNS, 0.0
        if convention == "v4":
            start = torch.softmax(matrix, dim=0) + V4_EPS
            half_steps, first_axis, eps = 2 * t_max - 1, _ROWS, V4_EPS
        else:
            # Each column may be scaled freely before its first division: subtract its maximum.
            shifted = matrix - matrix.amax(dim=0, keepdim=True).detach()
            start = (shifted.double() if _needs_fp64(matrix) else shifted).exp()
        out = _Iterate.apply(start, half_steps, first_axis, eps).to(values.dtype)  # type: ignore[no-untyped-call]
    result: Tensor = out.reshape(*values.shape[-2:], *values.shape[:-2]).movedim((0, 1), (-2, -1))
    return result


def _needs_fp64(matrix: Tensor) -> bool:
    """Whether fp32 could underflow. Off the CPU the answer would cost a synchronisation: take fp64 there."""
    if matrix.numel() == 0:
        return False
    if matrix.device.type != "cpu":
        return True
    low, high = torch.aminmax(matrix)
    return bool(high - low > _FP32_SPREAD)


class _Iterate(torch.autograd.Function):
    """`half_steps` divisions by sums (+ eps), columns and rows in turn, on [n, n, tokens]."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, half_steps: int, first_axis: int, eps: float) -> Tensor:
        out = matrix.clone()
        sums = []
        for step in range(half_steps):
            total = out.sum((first_axis + step) % 2, keepdim=True)
            if eps:
                total += eps
            out /= total
            sums.append(total)
        ctx.save_for_backward(out, *sums)
        ctx.first_axis = first_axis
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Walk back: for y = x / s, s = sum(x) + eps, the gradient is (g - sum(g y)) / s, and x = y s."""
        out, *sums = ctx.saved_tensors
        # The gradient comes in the caller's layout; the sums want its tokens last here too.
        value, grad = out.clone(), grad.clone(memory_format=torch.contiguous_format)
        for step in reversed(range(len(sums))):
            grad -= (grad * value).sum((ctx.first_axis + step) % 2, keepdim=True)
            grad /= sums[step]
            value *= sums[step]
        return grad, None, None, None
