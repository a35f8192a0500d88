"""The write on a CPU."""

from __future__ import annotations

from torch import Tensor

from mhc_lab.ops.loops import as_wide, wide
from mhc_lab.ops.token_passes import Write, run_backward, run_forward


def forward(streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None) -> Tensor:
    """[T, n, C], [T, C], [T, n], [T, n, n] or None (I) -> [T, n, C]; contract of `ops.write`."""
    return run_forward(_layer(streams, output, h_post, h_res), None, None, h_pre=None, reads=False)[0].to(streams.dtype)


def backward(
    grad: Tensor, streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """[T, n, C] -> gradients by streams, output, H_post and H_res."""
    layer = _layer(streams, output, h_post, h_res)
    # The written streams themselves are not needed: their place is taken by what has their shape.
    found = run_backward(layer, layer.streams, wide(grad), None, None, h_pre=None, grad_hidden=None)
    by_res = None if h_res is None else found.res.view_as(h_res)
    return found.streams.to(streams.dtype), found.output.to(output.dtype), found.weights, by_res


def _layer(streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None) -> Write:
    x = wide(streams)
    return Write(x, as_wide(output, x), h_post, 0, None if h_res is None else h_res.flatten(1), 0)
