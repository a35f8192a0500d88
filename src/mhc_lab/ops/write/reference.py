"""The write in plain torch; and the same with a backward by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab.ops.read.reference import weighted_sum


def write_reference(streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor) -> Tensor:
    """[..., n, C], [..., C], [..., n], [..., n, n] -> [..., n, C]: H_res x + H_post^T F (mHC Eq. 3)."""
    return h_res @ streams + h_post.unsqueeze(-1) * output.unsqueeze(-2)


def forward(streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None) -> Tensor:
    """[T, n, C], [T, C], [T, n], [T, n, n] or None (I) -> [T, n, C]; contract of `ops.write`."""
    written = h_post.unsqueeze(-1) * output.to(h_post.dtype).unsqueeze(1)
    if h_res is None:
        return written.add_(streams).to(streams.dtype)
    return torch.baddbmm(written, h_res, streams.to(h_res.dtype)).to(streams.dtype)


def backward(
    grad: Tensor, streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """[T, n, C] -> gradients by streams, output, H_post and H_res."""
    wide = grad.to(h_post.dtype)
    grad_output = weighted_sum(h_post, wide).to(output.dtype)
    grad_h_post = torch.bmm(wide, output.to(wide.dtype).unsqueeze(-1)).squeeze(-1)
    if h_res is None:
        return grad.clone(), grad_output, grad_h_post, None
    grad_streams = torch.bmm(h_res.transpose(1, 2), wide).to(streams.dtype)
    return grad_streams, grad_output, grad_h_post, torch.bmm(wide, streams.to(wide.dtype).transpose(1, 2))
