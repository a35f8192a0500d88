"""Read: the layer's input as a weighted sum of the streams."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhc_lab.ops.read.reference import read_reference

__all__ = ["read", "read_reference", "weighted_sum"]


def read(streams: Tensor, h_pre: Tensor | None) -> Tensor:
    """H_pre x (mHC Eq. 3), summed in fp32.

    Args:
        streams: [..., n, C].
        h_pre: [..., n], or [n] for all tokens alike; None is the fixed mapping 1/n (Table 1's "off").

    Returns:
        [..., C] in the dtype of the streams.
    """
    if h_pre is None:
        return streams.mean(-2)
    *tokens, n, dim = streams.shape
    with torch.autocast(streams.device.type, enabled=False):
        out: Tensor = _Read.apply(streams.reshape(-1, n, dim), h_pre.expand(*tokens, n).reshape(-1, n))  # type: ignore[no-untyped-call]
    return out.reshape(*tokens, dim)


def weighted_sum(weights: Tensor, rows: Tensor) -> Tensor:
    """[tokens, n], [tokens, n, C] -> [tokens, C]; n fused passes, where a batch of 1 x n matmuls is 7x slower."""
    out = rows[:, 0] * weights[:, :1]
    for i in range(1, rows.shape[1]):
        out.addcmul_(rows[:, i], weights[:, i : i + 1])
    return out


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, streams: Tensor, h_pre: Tensor) -> Tensor:
        ctx.save_for_backward(streams, h_pre)
        return weighted_sum(h_pre, streams).to(streams.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        streams, h_pre = ctx.saved_tensors
        grad = grad.to(h_pre.dtype)
        grad_streams = (h_pre.unsqueeze(-1) * grad.unsqueeze(1)).to(streams.dtype)
        grad_h_pre = torch.bmm(streams.to(h_pre.dtype), grad.unsqueeze(-1)).squeeze(-1)
        return grad_streams, grad_h_pre
