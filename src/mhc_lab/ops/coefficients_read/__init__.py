"""coefficients_read: a layer's coefficients and its read, where no write comes before it: a stack's first layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mhc_lab.ops import backends, check
from mhc_lab.ops.operation import operation

__all__ = ["coefficients_read"]

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


def coefficients_read(
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    *,
    post: int = 0,
    read_eps: float = 0.0,
    t_max: int = 0,
    convention: str = "eq9",
) -> tuple[Tensor, Tensor]:
    """`ops.coefficients` with H_pre first, and H_pre x; on a CPU the streams are looked at once, and so backward.

    Args:
        streams: [..., n, C].
        phi [n C, m], alpha [m], bias [m], post, read_eps, t_max, convention: as in `ops.coefficients`.

    Returns:
        H_pre x [..., C] in the dtype of the streams, and the coefficients [..., m], fp32 (fp64 for fp64 streams).
    """
    tokens, n, dim = check.streams_of(streams)
    check.projection(streams, n, dim, phi, alpha, bias, n, post, t_max, convention)
    width = phi.shape[1]
    dtype = torch.promote_types(streams.dtype, torch.float32)
    following = (phi.to(dtype), alpha.to(dtype), bias.to(dtype), post, read_eps, t_max, convention)
    hidden, values, *_ = _coefficients_read(streams.reshape(-1, n, dim), *following)
    return hidden.reshape(*tokens, dim), values.reshape(*tokens, width)


@operation(check.coefficients_read)
def _coefficients_read(
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    post: int,
    read_eps: float,
    t_max: int,
    convention: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arguments = (streams, phi, alpha, bias, post, read_eps, t_max, convention)
    found: Outputs = backends.run("coefficients_read", "forward", streams, *arguments)
    return found


@operation(check.coefficients_read_backward)
def _coefficients_read_backward(
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
    saved = (streams, phi, alpha, bias, values, projected, inverse_rms)
    arguments = (grad_hidden, grad_values, *saved, post, t_max, convention)
    found: Gradients = backends.run("coefficients_read", "backward", streams, *arguments)
    return found


@_coefficients_read.register_fake
def _(streams: Tensor, phi: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tokens, width = streams.shape[0], phi.shape[1]
    hidden = streams.new_empty(tokens, streams.shape[2])
    return hidden, phi.new_empty(tokens, width), phi.new_empty(tokens, width), phi.new_empty(tokens)


@_coefficients_read_backward.register_fake
def _(
    grad_hidden: Tensor, grad_values: Tensor, streams: Tensor, phi: Tensor, alpha: Tensor, bias: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    by_streams, by_phi, by_alpha, by_bias = (x.new_empty(x.shape) for x in (streams, phi, alpha, bias))
    return by_streams, by_phi, by_alpha, by_bias


def _save(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    ctx.set_materialize_grads(False)  # two outputs are there to be saved, and get none
    streams, phi, alpha, bias, post, _, t_max, convention = inputs
    ctx.save_for_backward(streams, phi, alpha, bias, *output[1:])
    ctx.rest = (post, t_max, convention)


def _gradients(ctx: Any, grad_hidden: Tensor | None, grad_values: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    streams, phi, alpha, bias, values, *saved = ctx.saved_tensors
    grad_hidden = streams.new_zeros(len(streams), streams.shape[2]) if grad_hidden is None else grad_hidden
    grad_values = torch.zeros_like(values) if grad_values is None else grad_values
    found = _coefficients_read_backward(grad_hidden, grad_values, streams, phi, alpha, bias, values, *saved, *ctx.rest)
    return (*found, None, None, None, None)


_coefficients_read.register_autograd(_gradients, setup_context=_save)
