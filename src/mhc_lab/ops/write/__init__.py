"""Write: mix the streams and add the layer's output to each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mhc_lab.ops import backends, check
from mhc_lab.ops.operation import operation
from mhc_lab.ops.write.reference import write_reference

__all__ = ["write", "write_reference"]


def write(streams: Tensor, output: Tensor, h_post: Tensor | None, h_res: Tensor | None) -> Tensor:
    """H_res x + H_post^T F (mHC Eq. 3), computed in fp32.

    Args:
        streams: [..., n, C].
        output: [..., C], the layer's F.
        h_post: [..., n], or [n] for all tokens alike; None is the fixed mapping, all ones.
        h_res: [..., n, n], or [n, n] for all tokens alike; rows are outputs. None is I.

    Returns:
        [..., n, C] in the dtype of the streams.
    """
    tokens, n, dim = check.streams_of(streams)
    check.shape("output", output, [*tokens, dim], streams)
    if h_post is None and h_res is None:
        return streams + output.unsqueeze(-2).to(streams.dtype)
    if h_post is not None:
        check.expandable("h_post", h_post, 1, [*tokens, n], streams)
    if h_res is not None:
        check.expandable("h_res", h_res, 2, [*tokens, n, n], streams)
    dtype = torch.promote_types(streams.dtype, torch.float32)
    if h_post is None:
        h_post = torch.ones(n, dtype=dtype, device=streams.device)
    out: Tensor = _write(
        streams.reshape(-1, n, dim),
        output.reshape(-1, dim),
        h_post.expand(*tokens, n).reshape(-1, n).to(dtype),
        None if h_res is None else h_res.expand(*tokens, n, n).reshape(-1, n, n).to(dtype),
    )
    return out.reshape(streams.shape)


@operation(check.write)
def _write(streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None) -> Tensor:
    out: Tensor = backends.run("write", "forward", streams, streams, output, h_post, h_res)
    return out


@operation(check.write_backward)
def _write_backward(
    grad: Tensor, streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *found, grad_res = backends.run("write", "backward", streams, grad, streams, output, h_post, h_res)
    return (*found, h_post.new_empty(0) if grad_res is None else grad_res)


@_write.register_fake
def _(streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None) -> Tensor:
    return streams.new_empty(streams.shape)


@_write_backward.register_fake
def _(
    grad: Tensor, streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = (streams, output, h_post)
    by_streams, by_output, by_post = (tensor.new_empty(tensor.shape) for tensor in inputs)
    return by_streams, by_output, by_post, h_post.new_empty(0 if h_res is None else h_res.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, h_res = ctx.saved_tensors  # once: activation checkpointing hands them out once
    *found, grad_res = _write_backward(grad, *inputs, h_res)
    return (*found, None if h_res is None else grad_res)


_write.register_autograd(_gradients, setup_context=_save)
