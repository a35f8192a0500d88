"""What an operation is given, checked in words before a kernel sees an address: also under `python -O`.

The first part is for the public functions, whose tensors have any number of token dimensions; the second for the
custom ops themselves ([T, n, C]), which anybody may call as `torch.ops.mhc_lab.*`. Only shapes, dtypes and devices are
looked at, never values: nothing waits for a device, and `torch.compile` sees conditions on shapes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
CONVENTIONS = ("eq9", "v4")


def streams_of(streams: Any) -> tuple[list[int], int, int]:
    """The token dimensions, n and C of [..., n, C]. Raises TypeError or ValueError for what are no streams."""
    floating("streams", streams)
    if streams.dim() < 2 or streams.shape[-1] < 1 or streams.shape[-2] < 1:
        raise ValueError(f"streams: shape {_shape(streams)}, wanted [..., n, C] with n and C at least 1")
    *tokens, n, dim = streams.shape
    return tokens, n, dim


def floating(name: str, value: Any, like: Tensor | None = None) -> None:
    """TypeError unless `value` is a tensor of floating point numbers; ValueError unless it lies where `like` does."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: {type(value).__name__}, wanted a tensor")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name}: {value.dtype}, wanted float16, bfloat16, float32 or float64")
    if like is not None and value.device != like.device:
        raise ValueError(f"{name}: on {value.device}, but the streams are on {like.device}")


def shape(name: str, value: Any, wanted: Sequence[int], like: Tensor | None = None) -> None:
    """ValueError unless a tensor has exactly the wanted shape."""
    floating(name, value, like)
    if list(value.shape) != list(wanted):
        raise ValueError(f"{name}: shape {_shape(value)}, wanted {_shape(wanted)}")


def expandable(name: str, value: Any, own: int, wanted: Sequence[int], like: Tensor) -> None:
    """ValueError unless the last `own` dimensions are as wanted, and those before missing, 1 or as wanted."""
    floating(name, value, like)
    given = list(value.shape)
    last, before = given[-own:], given[: max(0, len(given) - own)]
    tokens = list(wanted)[: len(wanted) - own]
    fits = len(given) >= own and last == list(wanted)[-own:] and len(before) <= len(tokens)
    if not fits or any(a not in (1, b) for a, b in zip(reversed(before), reversed(tokens), strict=False)):
        alike = _shape(list(wanted)[-own:])
        raise ValueError(f"{name}: shape {_shape(value)}, wanted {alike} for all tokens alike, or {_shape(wanted)}")


def count(name: str, value: Any, least: int = 0) -> None:
    """TypeError unless a number is whole, ValueError unless it is at least so large."""
    if isinstance(value, bool) or not isinstance(value, int | torch.SymInt):
        raise TypeError(f"{name}: {value!r}, wanted a whole number")
    if value < least:
        raise ValueError(f"{name}: {value}, wanted at least {least}")


def at_least_zero(name: str, value: Any) -> None:
    """ValueError unless an eps is a number that can be added to a sum."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{name}: {value!r}, wanted a number, at least 0")


def convention(value: Any) -> None:
    if value not in CONVENTIONS:
        raise ValueError(f"convention: {value!r}, wanted one of {', '.join(CONVENTIONS)}")


def projection(
    like: Tensor, n: int, dim: int, phi: Any, alpha: Any, bias: Any, pre: Any, post: Any, t_max: Any, form: Any
) -> None:
    """What makes m coefficients of a token's streams: phi [n C, m], alpha and bias [m] or None, and the columns."""
    floating("phi", phi, like)
    if phi.dim() != 2 or phi.shape[0] != n * dim or phi.shape[1] < 1:
        raise ValueError(f"phi: shape {_shape(phi)}, wanted [n C, m] with n C = {n * dim} (n = {n}, C = {dim})")
    width = phi.shape[1]
    for name, value in (("alpha", alpha), ("bias", bias)):
        if value is not None:
            shape(name, value, [width], like)
    for name, columns in (("pre", pre), ("post", post)):
        count(name, columns)
        if columns not in (0, n):
            raise ValueError(f"{name}: {columns} columns, wanted 0 or n = {n}")
    count("t_max", t_max)
    convention(form)
    rest = width - pre - post
    if rest < 0 or (t_max > 0 and rest != n * n):
        wanted = f"{pre} + {post} + n^2 = {pre + post + n * n}" if t_max > 0 else f"at least {pre + post}"
        raise ValueError(f"phi: {width} columns, wanted {wanted}")


def layer_weights(
    like: Tensor, tokens: Sequence[int], n: int, weights: Any, h_res: Any, post_at: Any, res_at: Any
) -> None:
    """Packed coefficients [..., k] with H_post from `post_at` on and H_res from `res_at` on (below 0: not there)."""
    floating("weights", weights, like)
    if weights.dim() < 1 or list(weights.shape[:-1]) != list(tokens):
        raise ValueError(f"weights: shape {_shape(weights)}, wanted {_shape([*tokens, 'k'])}")
    width = weights.shape[-1]
    count("post_at", post_at)
    if post_at + n > width:
        raise ValueError(f"post_at: {post_at}, but H_post takes {n} of the {width} columns of weights")
    count("res_at", res_at, least=-1)
    if res_at + n * n > width and res_at >= 0:
        raise ValueError(f"res_at: {res_at}, but H_res takes {n * n} of the {width} columns of weights")
    if h_res is not None:
        if res_at >= 0:
            raise ValueError("h_res: given twice, as a tensor and by res_at in the weights")
        shape("h_res", h_res, [*tokens, n, n], like)


# --- the custom ops ---------------------------------------------------------------------------------------------------


def flat_streams(streams: Any) -> tuple[int, int, int]:
    """T, n and C of [T, n, C]."""
    tokens, n, dim = streams_of(streams)
    if len(tokens) != 1:
        raise ValueError(f"streams: shape {_shape(streams)}, wanted [T, n, C]")
    return tokens[0], n, dim


def wide(like: Tensor, **values: Tensor | None) -> None:
    """TypeError unless what is computed in fp32 (fp64 for fp64 streams) is in that."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    for name, value in values.items():
        if value is not None and value.dtype != dtype:
            raise TypeError(f"{name}: {value.dtype}, wanted {dtype} beside streams of {like.dtype}")


def sinkhorn(logits: Any, t_max: Any, form: Any, *_: Any) -> None:
    floating("logits", logits)
    if logits.dim() != 3 or logits.shape[1] != logits.shape[2] or logits.shape[1] < 1:
        raise ValueError(f"logits: shape {_shape(logits)}, wanted [T, n, n]")
    wide(logits, logits=logits)
    count("t_max", t_max, least=1)
    convention(form)


def sinkhorn_backward(grad: Any, saved: Any, t_max: Any, form: Any, *_: Any) -> None:
    sinkhorn(saved, t_max, form)
    shape("grad", grad, saved.shape, saved)
    wide(saved, grad=grad)


def warm_shift(bias: Any) -> None:
    floating("bias", bias)
    if bias.dim() < 2 or bias.shape[-1] != bias.shape[-2]:
        raise ValueError(f"bias: shape {_shape(bias)}, wanted [n, n]")


def read(streams: Any, h_pre: Any) -> None:
    tokens, n, _ = flat_streams(streams)
    shape("h_pre", h_pre, [tokens, n], streams)
    wide(streams, h_pre=h_pre)


def read_backward(grad: Any, streams: Any, h_pre: Any) -> None:
    read(streams, h_pre)
    shape("grad", grad, [streams.shape[0], streams.shape[2]], streams)


def write(streams: Any, output: Any, h_post: Any, h_res: Any) -> None:
    tokens, n, dim = flat_streams(streams)
    shape("output", output, [tokens, dim], streams)
    shape("h_post", h_post, [tokens, n], streams)
    if h_res is not None:
        shape("h_res", h_res, [tokens, n, n], streams)
    wide(streams, h_post=h_post, h_res=h_res)


def write_backward(grad: Any, streams: Any, output: Any, h_post: Any, h_res: Any) -> None:
    write(streams, output, h_post, h_res)
    shape("grad", grad, streams.shape, streams)


def coefficients(
    streams: Any, phi: Any, alpha: Any, bias: Any, pre: Any, post: Any, _read_eps: Any, t_max: Any, form: Any
) -> None:
    _, n, dim = flat_streams(streams)
    projection(streams, n, dim, phi, alpha, bias, pre, post, t_max, form)
    wide(streams, phi=phi, alpha=alpha, bias=bias)


def _saved(streams: Any, width: int, **values: Any) -> None:
    """Coefficients [T, m] and statistics [T] (`inverse_rms`) that a forward made."""
    for name, value in values.items():
        tokens = streams.shape[0]
        shape(name, value, [tokens] if name == "inverse_rms" else [tokens, width], streams)
    wide(streams, **values)


def coefficients_backward(
    grad: Any, streams: Any, phi: Any, alpha: Any, bias: Any, projected: Any, inverse_rms: Any, *rest: Any
) -> None:
    pre, post, t_max, form = rest
    coefficients(streams, phi, alpha, bias, pre, post, 0.0, t_max, form)
    _saved(streams, phi.shape[1], grad=grad, projected=projected, inverse_rms=inverse_rms)


def coefficients_read(
    streams: Any, phi: Any, alpha: Any, bias: Any, post: Any, read_eps: Any, t_max: Any, form: Any
) -> None:
    _, n, _ = flat_streams(streams)
    coefficients(streams, phi, alpha, bias, n, post, read_eps, t_max, form)


def coefficients_read_backward(
    grad_hidden: Any, grad_values: Any, streams: Any, phi: Any, alpha: Any, bias: Any, *rest: Any
) -> None:
    values, projected, inverse_rms, post, t_max, form = rest
    coefficients_read(streams, phi, alpha, bias, post, 0.0, t_max, form)
    shape("grad_hidden", grad_hidden, [streams.shape[0], streams.shape[2]], streams)
    saved = {"values": values, "projected": projected, "inverse_rms": inverse_rms}
    _saved(streams, phi.shape[1], grad_values=grad_values, **saved)


def write_read(
    streams: Any, output: Any, weights: Any, post_at: Any, res_at: Any, h_res: Any, phi: Any, *rest: Any
) -> None:
    alpha, bias, post, read_eps, t_max, form = rest
    tokens, n, dim = flat_streams(streams)
    shape("output", output, [tokens, dim], streams)
    layer_weights(streams, [tokens], n, weights, h_res, post_at, res_at)
    wide(streams, weights=weights, h_res=h_res)
    coefficients(streams, phi, alpha, bias, n, post, read_eps, t_max, form)


def write_read_backward(grad_written: Any, grad_hidden: Any, grad_values: Any, streams: Any, *rest: Any) -> None:
    output, weights, post_at, res_at, h_res, phi, alpha, bias, *saved = rest
    written, values, projected, inverse_rms, post, t_max, form = saved
    write_read(streams, output, weights, post_at, res_at, h_res, phi, alpha, bias, post, 0.0, t_max, form)
    shape("grad_written", grad_written, streams.shape, streams)
    shape("written", written, streams.shape, streams)
    shape("grad_hidden", grad_hidden, [streams.shape[0], streams.shape[2]], streams)
    made = {"values": values, "projected": projected, "inverse_rms": inverse_rms}
    _saved(streams, phi.shape[1], grad_values=grad_values, **made)


def _shape(value: Any) -> str:
    return f"[{', '.join(map(str, value.shape if isinstance(value, Tensor) else value))}]"
