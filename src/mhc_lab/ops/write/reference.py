"""The write in plain torch."""

from __future__ import annotations

from torch import Tensor


def write_reference(streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor) -> Tensor:
    """[..., n, C], [..., C], [..., n], [..., n, n] -> [..., n, C]: H_res x + H_post^T F (mHC Eq. 3)."""
    return h_res @ streams + h_post.unsqueeze(-1) * output.unsqueeze(-2)
