"""write_read: one layer's write, the next layer's coefficients and its read, as one operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mhc_lab.ops import backends, check
from mhc_lab.ops.operation import operation
from mhc_lab.ops.write_read.reference import write_read_reference

__all__ = ["write_read", "write_read_reference"]

Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def write_read(
    streams: Tensor,
    output: Tensor,
    weights: Tensor,
    h_res: Tensor | None,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    *,
    post_at: int = 0,
    res_at: int | None = None,
    post: int = 0,
    read_eps: float = 0.0,
    t_max: int = 0,
    convention: str = "eq9",
) -> tuple[Tensor, Tensor, Tensor]:
    """x' = H_res x + H_post^T F, then the next layer's coefficients of x' and its H_pre x', in fp32.

    The streams are read once and written once: (2n + 2) C elements a token on a GPU, where the parts need (4n + 2) C.

    Args:
        streams: [..., n, C].
        output: [..., C], the layer's F.
        weights: [..., k], the layer's packed coefficients: H_post in the n columns from `post_at` on, and, unless
            `res_at` is None, H_res row-major in the n^2 columns from there on.
        h_res: [..., n, n] where it does not lie in `weights`. With neither, H_res is I.
        phi [n C, m], alpha [m], bias [m], post, read_eps, t_max, convention: of the next layer, as in
            `ops.coefficients`; its first n columns are H_pre.

    Returns:
        x' [..., n, C] and H_pre x' [..., C] in the dtype of the streams, and the next layer's coefficients [..., m],
        packed [H_pre | H_post | H_res, or its logits where t_max is 0], fp32 (fp64 for fp64 streams).
    """
    tokens, n, dim = check.streams_of(streams)
    check.shape("output", output, [*tokens, dim], streams)
    check.layer_weights(streams, tokens, n, weights, h_res, post_at, -1 if res_at is None else res_at)
    check.projection(streams, n, dim, phi, alpha, bias, n, post, t_max, convention)
    width = phi.shape[1]
    dtype = torch.promote_types(streams.dtype, torch.float32)
    written, hidden, values, _, _ = _write_read(
        streams.reshape(-1, n, dim),
        output.reshape(-1, dim),
        weights.reshape(-1, weights.shape[-1]).to(dtype),
        post_at,
        -1 if res_at is None else res_at,
        None if h_res is None else h_res.reshape(-1, n, n).to(dtype),
        phi.to(dtype),
        alpha.to(dtype),
        bias.to(dtype),
        post,
        read_eps,
        t_max,
        convention,
    )
    return written.reshape(streams.shape), hidden.reshape(*tokens, dim), values.reshape(*tokens, width)


@operation(check.write_read)
def _write_read(
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
    layer = (streams, output, weights, post_at, res_at, h_res)
    following = (phi, alpha, bias, post, read_eps, t_max, convention)
    found: Outputs = backends.run("write_read", "forward", streams, *layer, *following)
    return found


@operation(check.write_read_backward)
def _write_read_backward(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grads = (grad_written, grad_hidden, grad_values)
    layer = (streams, output, weights, post_at, res_at, h_res)
    following = (phi, alpha, bias, written, values, projected, inverse_rms, post, t_max, convention)
    *first, grad_res, by_phi, by_alpha, by_bias = backends.run(
        "write_read", "backward", streams, *grads, *layer, *following
    )
    return (*first, phi.new_empty(0) if grad_res is None else grad_res, by_phi, by_alpha, by_bias)


@_write_read.register_fake
def _(
    streams: Tensor,
    output: Tensor,
    weights: Tensor,
    post_at: int,
    res_at: int,
    h_res: Tensor | None,
    phi: Tensor,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tokens, n, dim = streams.shape
    width = phi.shape[1]
    return (
        streams.new_empty(tokens, n, dim),
        streams.new_empty(tokens, dim),
        phi.new_empty(tokens, width),
        phi.new_empty(tokens, width),
        phi.new_empty(tokens),
    )


@_write_read_backward.register_fake
def _(
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
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    by_streams, by_output, by_weights = (x.new_empty(x.shape) for x in (streams, output, weights))
    by_res = phi.new_empty(0 if h_res is None else h_res.shape)
    by_phi, by_alpha, by_bias = (x.new_empty(x.shape) for x in (phi, alpha, bias))
    return by_streams, by_output, by_weights, by_res, by_phi, by_alpha, by_bias


def _save(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    ctx.set_materialize_grads(False)  # two outputs are there to be saved, and get none
    *layer, phi, alpha, bias, post, _, t_max, convention = inputs
    streams, f, weights, post_at, res_at, h_res = layer
    written, _, values, projected, inverse_rms = output
    ctx.save_for_backward(streams, f, weights, h_res, phi, alpha, bias, written, values, projected, inverse_rms)
    ctx.places = (post_at, res_at)
    ctx.rest = (post, t_max, convention)


def _gradients(
    ctx: Any, grad_written: Tensor | None, grad_hidden: Tensor | None, grad_values: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    streams, f, weights, h_res, *following = ctx.saved_tensors
    grad_written = torch.zeros_like(streams) if grad_written is None else grad_written
    grad_hidden = torch.zeros_like(f) if grad_hidden is None else grad_hidden
    grad_values = torch.zeros_like(following[4]) if grad_values is None else grad_values
    by_streams, by_output, by_weights, by_res, by_phi, by_alpha, by_bias = _write_read_backward(
        grad_written, grad_hidden, grad_values, streams, f, weights, *ctx.places, h_res, *following, *ctx.rest
    )
    by_layer = (by_streams, by_output, by_weights, None, None, None if h_res is None else by_res)
    return (*by_layer, by_phi, by_alpha, by_bias, None, None, None, None)


_write_read.register_autograd(_gradients, setup_context=_save)
