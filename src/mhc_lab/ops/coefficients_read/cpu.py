"""Coefficients and read on a CPU, in one pass."""

from __future__ import annotations

from torch import Tensor

from mhc_lab.ops.loops import wide
from mhc_lab.ops.token_passes import Found, Projection, run_backward, run_forward


def forward(
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    post: int,
    read_eps: float,
    t_max: int,
    convention: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[T, n, C] -> hidden [T, C], values [T, m], projected [T, m], inverse_rms [T]."""
    projection = Projection(phi, alpha, bias, streams.shape[1], post, t_max, convention, read_eps)
    _, found, hidden = run_forward(None, wide(streams), projection, h_pre=None, reads=True)
    return hidden.to(streams.dtype), *found


def backward(
    grad_hidden: Tensor,
    grad_values: Tensor,
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    values: Tensor,
    projected: Tensor,
    inverse_rms: Tensor,
    post: int,
    t_max: int,
    convention: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by streams, phi, alpha and bias."""
    found = run_backward(
        None,
        wide(streams),
        None,
        Projection(phi, alpha, bias, streams.shape[1], post, t_max, convention),
        Found(values, projected, inverse_rms),
        h_pre=values,
        grad_hidden=wide(grad_hidden),
        grad=grad_values.clone(),
    )
    return found.streams.to(streams.dtype), found.phi, found.alpha, found.bias
