"""Coefficients on a CPU."""

from __future__ import annotations

from torch import Tensor

from mhc_lab.ops.loops import wide
from mhc_lab.ops.token_passes import Found, Projection, run_backward, run_forward


def forward(
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    pre: int,
    post: int,
    read_eps: float,
    t_max: int,
    convention: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """[T, n, C] -> values [T, m], projected [T, m], inverse_rms [T]; contract of `ops.coefficients`."""
    projection = Projection(phi, alpha, bias, pre, post, t_max, convention, read_eps)
    return run_forward(None, wide(streams), projection, h_pre=None, reads=False)[1]


def backward(
    grad: Tensor,
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    projected: Tensor,
    inverse_rms: Tensor,
    pre: int,
    post: int,
    t_max: int,
    convention: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[T, m] -> gradients by streams [T, n, C], phi [n C, m], alpha and bias [m]."""
    x = wide(streams)
    projection, saved = (
        Projection(phi, alpha, bias, pre, post, t_max, convention),
        Found(projected, projected, inverse_rms),
    )
    found = run_backward(None, x, None, projection, saved, h_pre=None, grad_hidden=None, grad=grad.clone())
    return found.streams.to(streams.dtype), found.phi, found.alpha, found.bias
