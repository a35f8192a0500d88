"""Read: the layer's input as a weighted sum of the streams."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mhc_lab.ops import backends, check
from mhc_lab.ops.operation import operation
from mhc_lab.ops.read.reference import read_reference

__all__ = ["read", "read_reference"]


def read(streams: Tensor, h_pre: Tensor | None) -> Tensor:
    """H_pre x (mHC Eq. 3), summed in fp32.

    Args:
        streams: [..., n, C].
        h_pre: [..., n], or [n] for all tokens alike; None is the fixed mapping 1/n (Table 1's "off").

    Returns:
        [..., C] in the dtype of the streams.
    """
    tokens, n, dim = check.streams_of(streams)
    if h_pre is None:
        return streams.mean(-2)
    check.expandable("h_pre", h_pre, 1, [*tokens, n], streams)
    weights = h_pre.expand(*tokens, n).reshape(-1, n).to(torch.promote_types(streams.dtype, torch.float32))
    out: Tensor = _read(streams.reshape(-1, n, dim), weights)
    return out.reshape(*tokens, dim)


@operation(check.read)
def _read(streams: Tensor, h_pre: Tensor) -> Tensor:
    out: Tensor = backends.run("read", "forward", streams, streams, h_pre)
    return out


@operation(check.read_backward)
def _read_backward(grad: Tensor, streams: Tensor, h_pre: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = backends.run("read", "backward", streams, grad, streams, h_pre)
    return found


@_read.register_fake
def _(streams: Tensor, h_pre: Tensor) -> Tensor:
    return streams.new_empty(streams.shape[0], streams.shape[2])


@_read_backward.register_fake
def _(grad: Tensor, streams: Tensor, h_pre: Tensor) -> tuple[Tensor, Tensor]:
    return streams.new_empty(streams.shape), h_pre.new_empty(h_pre.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = _read_backward(grad, *ctx.saved_tensors)
    return found


_read.register_autograd(_gradients, setup_context=_save)
