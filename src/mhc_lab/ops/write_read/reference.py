"""One layer's write, then the next layer's coefficients and read, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab.ops.coefficients import reference as coefficients
from mhc_lab.ops.coefficients.reference import coefficients_reference
from mhc_lab.ops.read import reference as read
from mhc_lab.ops.read.reference import read_reference
from mhc_lab.ops.write import reference as write
from mhc_lab.ops.write.reference import write_reference


def write_read_reference(
    streams: Tensor,
    output: Tensor,
    h_post: Tensor,
    h_res: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    post: int = 0,
    read_eps: float = 0.0,
    t_max: int = 0,
    convention: str = "eq9",
) -> tuple[Tensor, Tensor, Tensor]:
    """[..., n, C] streams, [..., C] output -> written [..., n, C], hidden [..., C], the next layer's [..., m]."""
    written = write_reference(streams, output, h_post, h_res)
    n = streams.shape[-2]
    values = coefficients_reference(written, phi, alpha, bias, n, post, read_eps, t_max, convention)
    return written, read_reference(written, values[..., :n]), values


def mappings(weights: Tensor, post_at: int, res_at: int, h_res: Tensor | None, n: int) -> tuple[Tensor, Tensor | None]:
    """H_post [T, n] and H_res [T, n, n] (None: I) out of packed weights [T, k]; a given H_res goes first."""
    if h_res is None and res_at >= 0:
        h_res = weights[:, res_at : res_at + n * n].unflatten(1, (n, n))
    return weights[:, post_at : post_at + n], h_res


def forward(
    streams: Tensor,
    output: Tensor,
    weights: Tensor,
    post_at: int,
    res_at: int,
    h_res: Tensor | None,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    post: int,
    read_eps: float,
    t_max: int,
    convention: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """[T, n, C] -> written, hidden [T, C], values [T, m], projected [T, m], inverse_rms [T]; see `ops.write_read`."""
    n = streams.shape[1]
    written = write.forward(streams, output, *mappings(weights, post_at, res_at, h_res, n))
    found = coefficients.forward(written, phi, alpha, bias, n, post, read_eps, t_max, convention)
    return written, read.forward(written, found[0][:, :n]), *found


def backward(
    grad_written: Tensor,
    grad_hidden: Tensor,
    grad_values: Tensor,
    streams: Tensor,
    output: Tensor,
    weights: Tensor,
    post_at: int,
    res_at: int,
    h_res: Tensor | None,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    written: Tensor,
    values: Tensor,
    projected: Tensor,
    inverse_rms: Tensor,
    post: int,
    t_max: int,
    convention: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """Gradients by streams, output, weights, h_res, phi, alpha and bias."""
    n = streams.shape[1]
    by_read, grad_pre = read.backward(grad_hidden, written, values[:, :n])
    grad_values = grad_values.clone()
    grad_values[:, :n] += grad_pre
    by_norm, by_phi, by_alpha, by_bias = coefficients.backward(
        grad_values, written, phi, alpha, bias, projected, inverse_rms, n, post, t_max, convention
    )
    h_post, mixing = mappings(weights, post_at, res_at, h_res, n)
    grad_streams, grad_output, grad_post, grad_res = write.backward(
        grad_written + by_read + by_norm, streams, output, h_post, mixing
    )
    grad_weights = torch.zeros_like(weights)
    grad_weights[:, post_at : post_at + n] = grad_post
    if h_res is None and grad_res is not None:
        grad_weights[:, res_at : res_at + n * n] = grad_res.flatten(1)
    by_res = None if h_res is None else grad_res
    return grad_streams, grad_output, grad_weights, by_res, by_phi, by_alpha, by_bias
