"""One layer's write and the next layer's coefficients and read on a CPU."""

from __future__ import annotations

from torch import Tensor

from mhc_lab.ops.loops import as_wide, wide
from mhc_lab.ops.token_passes import Found, Projection, Write, run_backward, run_forward


def forward(
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
    """[T, n, C] -> written, hidden [T, C], values [T, m], projected [T, m], inverse_rms [T]; see `ops.write_read`."""
    layer = _layer(streams, output, weights, post_at, res_at, h_res)
    projection = Projection(phi, alpha, bias, streams.shape[1], post, t_max, convention, read_eps)
    if layer.streams.dtype == streams.dtype:
        written, found, hidden = run_forward(layer, None, projection, h_pre=None, reads=True)
    else:  # the next layer sees the streams as rounded to their dtype
        written = run_forward(layer, None, None, h_pre=None, reads=False)[0].to(streams.dtype)
        _, found, hidden = run_forward(None, wide(written), projection, h_pre=None, reads=True)
    return written, hidden.to(streams.dtype), *found


def backward(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """Gradients by streams, output, weights, h_res, phi, alpha and bias."""
    found = run_backward(
        _layer(streams, output, weights, post_at, res_at, h_res),
        wide(written),
        wide(grad_written),
        Projection(phi, alpha, bias, streams.shape[1], post, t_max, convention),
        Found(values, projected, inverse_rms),
        h_pre=values,
        grad_hidden=wide(grad_hidden),
        grad=grad_values.clone(),
    )
    by_res = None if h_res is None else found.res.view_as(h_res)
    by_parameters = found.phi, found.alpha, found.bias
    return found.streams.to(streams.dtype), found.output.to(output.dtype), found.weights, by_res, *by_parameters


def _layer(streams: Tensor, output: Tensor, weights: Tensor, post_at: int, res_at: int, h_res: Tensor | None) -> Write:
    x = wide(streams)
    y = as_wide(output, x)
    if h_res is not None:
        return Write(x, y, weights, post_at, h_res.flatten(1), 0)
    return Write(x, y, weights, post_at, weights if res_at >= 0 else None, res_at)
