"""Sinkhorn-Knopp with an exact backward for the truncated iteration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mhc_lab.ops import backends, check
from mhc_lab.ops.operation import operation
from mhc_lab.ops.sinkhorn.implicit import implicit_backward
from mhc_lab.ops.sinkhorn.reference import V4_EPS, sinkhorn_reference

__all__ = ["V4_EPS", "sinkhorn", "sinkhorn_reference"]


def sinkhorn(
    logits: Tensor,
    t_max: int = 20,
    convention: str = "eq9",
    gradient: str = "exact",
    *,
    hc_eps: float = V4_EPS,
) -> Tensor:
    """Project logits onto the doubly stochastic matrices by t_max Sinkhorn-Knopp iterations (mHC Eq. 9).

    Args:
        logits: [..., n, n], any float dtype; finite for logits within +-100.
        t_max: iterations, at least 1.
        convention: "eq9" (the paper) or "v4" (DeepSeek's shipped form), see `reference.py`.
        gradient: "exact", that of the truncated iteration, or "implicit", that of the limit: cheaper from a few
            hundred iterations on, and right only where these have converged.
        hc_eps: of v4, what is added to the softmax and to every sum. Another one than the shipped 1e-6 runs in plain
            torch (fp64), with the exact gradient.

    Returns:
        [..., n, n], fp32 (fp64 for fp64 logits). Rows sum to 1; columns to the error of t_max.
    """
    check.floating("logits", logits)
    n = logits.shape[-1] if logits.dim() else 0
    if logits.dim() < 2 or n < 1 or logits.shape[-2] != n:
        raise ValueError(f"logits: shape {list(logits.shape)}, wanted [..., n, n]")
    check.count("t_max", t_max, least=1)
    check.convention(convention)
    if gradient not in ("exact", "implicit"):
        raise ValueError(f"gradient: {gradient!r}, wanted exact or implicit")
    values = logits if logits.dtype == torch.float64 else logits.float()
    if convention == "v4" and hc_eps != V4_EPS:
        check.at_least_zero("hc_eps", hc_eps)
        return sinkhorn_reference(values.double(), t_max, convention, hc_eps).to(values.dtype)
    out: Tensor = _sinkhorn(values.reshape(-1, n, n), t_max, convention, gradient == "implicit")
    return out.reshape(logits.shape)


@operation(check.sinkhorn)
def _sinkhorn(logits: Tensor, t_max: int, convention: str, implicit: bool) -> Tensor:
    out: Tensor = backends.run("sinkhorn", "forward", logits, logits, t_max, convention)
    return out


@operation(check.sinkhorn_backward)
def _sinkhorn_backward(grad: Tensor, saved: Tensor, t_max: int, convention: str, implicit: bool) -> Tensor:
    if implicit:
        return implicit_backward(grad, saved)
    out: Tensor = backends.run("sinkhorn", "backward", saved, grad, saved, t_max, convention)
    return out


@_sinkhorn.register_fake
def _(logits: Tensor, t_max: int, convention: str, implicit: bool) -> Tensor:
    return logits.new_empty(logits.shape)


@_sinkhorn_backward.register_fake
def _(grad: Tensor, saved: Tensor, t_max: int, convention: str, implicit: bool) -> Tensor:
    return saved.new_empty(saved.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, ctx.t_max, ctx.convention, ctx.implicit = inputs
    ctx.save_for_backward(output if ctx.implicit else logits)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _sinkhorn_backward(grad, *ctx.saved_tensors, ctx.t_max, ctx.convention, ctx.implicit), None, None, None


_sinkhorn.register_autograd(_gradients, setup_context=_save)
