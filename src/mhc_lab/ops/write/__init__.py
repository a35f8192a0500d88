"""Write: mix the streams and add the layer's output to each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhc_lab.ops.read import weighted_sum
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
    *tokens, n, dim = streams.shape
    with torch.autocast(streams.device.type, enabled=False):
        if h_post is None and h_res is None:
            return streams + output.unsqueeze(-2).to(streams.dtype)
        dtype = torch.promote_types(streams.dtype, torch.float32)
        if h_post is None:
            h_post = torch.ones(n, dtype=dtype, device=streams.device)
        out: Tensor = _Write.apply(  # type: ignore[no-untyped-call]
            streams.reshape(-1, n, dim),
            output.reshape(-1, dim),
            h_post.expand(*tokens, n).reshape(-1, n),
            # bmm falls back to one matmul a token on other layouts, and Sinkhorn's has the tokens last.
            None if h_res is None else h_res.expand(*tokens, n, n).reshape(-1, n, n).contiguous(),
        )
    return out.reshape(streams.shape)


class _Write(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None) -> Tensor:
        ctx.save_for_backward(streams, output, h_post, h_res)
        written = h_post.unsqueeze(-1) * output.to(h_post.dtype).unsqueeze(1)
        if h_res is None:
            return written.add_(streams).to(streams.dtype)
        return torch.baddbmm(written, h_res, streams.to(h_res.dtype)).to(streams.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        streams, output, h_post, h_res = ctx.saved_tensors
        wide = grad.to(h_post.dtype)
        grad_output = weighted_sum(h_post, wide).to(output.dtype)
        grad_h_post = torch.bmm(wide, output.to(wide.dtype).unsqueeze(-1)).squeeze(-1)
        if h_res is None:
            return grad, grad_output, grad_h_post, None
        grad_streams = torch.bmm(h_res.transpose(1, 2), wide).to(streams.dtype)
        grad_h_res = torch.bmm(wide, streams.to(wide.dtype).transpose(1, 2))
        return grad_streams, grad_output, grad_h_post, grad_h_res
