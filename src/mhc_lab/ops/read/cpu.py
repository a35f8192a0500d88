"""The read on a CPU."""

from __future__ import annotations

from torch import Tensor

from mhc_lab.ops.loops import wide
from mhc_lab.ops.token_passes import run_backward, run_forward


def forward(streams: Tensor, h_pre: Tensor) -> Tensor:
    """[T, n, C], [T, n] -> [T, C]; contract of `ops.read`."""
    return run_forward(None, wide(streams), None, h_pre=h_pre, reads=True)[2].to(streams.dtype)


def backward(grad: Tensor, streams: Tensor, h_pre: Tensor) -> tuple[Tensor, Tensor]:
    """[T, C] -> gradients by the streams [T, n, C] and by H_pre [T, n]."""
    x = wide(streams)
    found = run_backward(None, x, None, None, None, h_pre=h_pre, grad_hidden=wide(grad))
    return found.streams.to(streams.dtype), found.values
