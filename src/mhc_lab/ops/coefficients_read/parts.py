"""Coefficients and read one after the other, with the modules of any backend."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def forward(
    coefficients: Any,
    read: Any,
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
    n = streams.shape[1]
    found = coefficients.forward(streams, phi, alpha, bias, n, post, read_eps, t_max, convention)
    values, projected, inverse_rms = found
    return read.forward(streams, values[:, :n].contiguous()), values, projected, inverse_rms


def backward(
    coefficients: Any,
    read: Any,
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
    n = streams.shape[1]
    by_read, by_pre = read.backward(grad_hidden, streams, values[:, :n].contiguous())
    grad = grad_values.clone()
    grad[:, :n] += by_pre
    saved = (streams, phi, alpha, bias, projected, inverse_rms)
    by_streams, *by_parameters = coefficients.backward(grad, *saved, n, post, t_max, convention)
    by_phi, by_alpha, by_bias = by_parameters
    return by_streams + by_read, by_phi, by_alpha, by_bias
