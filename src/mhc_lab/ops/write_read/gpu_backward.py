"""The launches of write_read's backward: (5n + 4) C elements a token, in three passes (`gpu_gradients.py`).

Partial sums over the tokens are added up afterwards in a fixed order: no atomics, two runs are bit-equal.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from mhc_lab.ops.ahead_of_time import KernelVariant
from mhc_lab.ops.coefficients import gpu as coefficients
from mhc_lab.ops.read import gpu as read
from mhc_lab.ops.tiles import ALL_REGISTERS, INTERPRETED, launchable, precision_for
from mhc_lab.ops.write import gpu as write
from mhc_lab.ops.write_read.gpu_gradients import back_to_phi, back_to_projection, back_to_streams
from mhc_lab.ops.write_read.gpu_tiles import Block, check, fused, places
from mhc_lab.ops.write_read.reference import mappings

Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor]

_PROJECTION = Block(16, 128)
_PROGRAMS = 528  # of `back_to_phi`, about: two rounds of two on each of 132 processors
_TOKENS = 256  # a program of `back_to_phi` walks along at least so many, which bounds the workspace


def choose_block(dtype: torch.dtype, m: int) -> Block:
    """Of `back_to_streams`."""
    return Block(16, 64) if dtype.itemsize == 2 and m % 4 == 0 else Block(16, 32)


def choose_phi_block(dtype: torch.dtype) -> Block:
    """Of `back_to_phi`: tokens at a step, and rows of phi."""
    return {torch.bfloat16: Block(64, 128), torch.float16: Block(32, 64)}.get(dtype, Block(32, 64, num_stages=1))


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
    config: Block | None = None,
) -> Gradients:
    """Gradients by streams, output, weights, h_res, phi, alpha and bias; contiguous tensors as in the forward."""
    packed: tuple[Tensor, ...] = (grad_values, weights, phi, alpha, bias, values, projected, inverse_rms)
    packed += () if h_res is None else (h_res,)
    check(streams, *packed)
    assert all(x.is_contiguous() for x in (grad_written, grad_hidden, output, written))
    tokens, n, dim = streams.shape
    width = phi.shape[1]
    if tokens == 0:
        zeros = (torch.zeros_like(x) for x in (streams, output, weights))
        by_res = None if h_res is None else torch.zeros_like(h_res)
        return (*zeros, by_res, torch.zeros_like(phi), torch.zeros_like(alpha), torch.zeros_like(bias))  # type: ignore[return-value]
    if not fused(streams, phi):
        grads = (grad_written, grad_hidden, grad_values, streams, output, weights)
        following = (phi, alpha, bias, written, values, projected, inverse_rms)
        return _in_parts(*grads, post_at, res_at, h_res, *following, post, t_max, convention)
    block, phi_block = config or choose_block(streams.dtype, width), choose_phi_block(streams.dtype)
    columns = triton.cdiv(n * dim, phi_block.channels)
    span = max(_TOKENS, triton.cdiv(tokens * columns, _PROGRAMS))
    span = triton.cdiv(span, phi_block.tokens) * phi_block.tokens
    parts = triton.cdiv(tokens, span)
    raw, by_product, pull = torch.empty_like(projected), torch.empty_like(projected), torch.empty_like(inverse_rms)
    sums = phi.new_empty(triton.cdiv(tokens, _PROJECTION.tokens), 2, width)
    phi_parts = phi.new_empty(parts, *phi.shape)
    grad_streams, grad_output = torch.empty_like(streams), torch.empty_like(output)
    grad_weights = torch.zeros_like(weights)
    grad_h_res = None if h_res is None else torch.empty_like(h_res)
    fixed = places(n, width, weights.shape[1], post_at, res_at, h_res is not None)
    sizes = {name: fixed[name] for name in ("n", "N", "m", "M")}
    with torch.cuda.device_of(streams):
        back_to_projection[(len(sums),)](
            *(grad_hidden, grad_values, written, alpha, bias, projected, inverse_rms),
            *(raw, by_product, pull, sums),
            *(tokens, dim, t_max),
            **sizes,
            POST=post,
            SINKHORN=t_max > 0,
            V4=convention == "v4",
            BT=_PROJECTION.tokens,
            CHANNELS=_PROJECTION.channels,
            num_warps=_PROJECTION.num_warps,
            num_stages=_PROJECTION.num_stages,
            **launchable(ALL_REGISTERS),
        )
        back_to_streams[(triton.cdiv(tokens, block.tokens),)](
            *(grad_written, grad_hidden, streams, output, weights, weights if h_res is None else h_res),
            *(values, phi, by_product, pull),
            *(grad_streams, grad_output, grad_weights, grad_weights if grad_h_res is None else grad_h_res),
            *(tokens, dim),
            **fixed,
            PRECISION=_precision(streams.dtype),
            BT=block.tokens,
            CHANNELS=block.channels,
            num_warps=block.num_warps,
            num_stages=block.num_stages,
        )
        back_to_phi[(columns, parts)](
            *(written, by_product, phi_parts, tokens, span, n * dim),
            m=width,
            M=fixed["M"],
            PRECISION=precision_for(streams.dtype),
            BT=phi_block.tokens,
            ROWS=phi_block.channels,
            num_warps=phi_block.num_warps,
            num_stages=phi_block.num_stages,
        )
    by_coefficients = (phi_parts.sum(0), sums[:, 0].sum(0), sums[:, 1].sum(0))
    return grad_streams, grad_output, grad_weights, grad_h_res, *by_coefficients


def _in_parts(
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
) -> Gradients:
    """The same from the kernels of read, coefficients and write, with sums in between."""
    n = streams.shape[1]
    by_read, by_pre = read.backward(grad_hidden, written, values[:, :n].contiguous())
    grad_values = grad_values.clone()
    grad_values[:, :n] += by_pre
    by_norm, by_phi, by_alpha, by_bias = coefficients.backward(
        grad_values, written, phi, alpha, bias, projected, inverse_rms, n, post, t_max, convention
    )
    h_post, mixing = mappings(weights, post_at, res_at, h_res, n)
    mixing = None if mixing is None else mixing.contiguous()
    by_streams, by_output, by_post, by_res = write.backward(
        grad_written + by_read + by_norm, streams, output, h_post.contiguous(), mixing
    )
    by_weights = torch.zeros_like(weights)
    by_weights[:, post_at : post_at + n] = by_post
    if h_res is None and by_res is not None:
        by_weights[:, res_at : res_at + n * n] = by_res.flatten(1)
    return by_streams, by_output, by_weights, None if h_res is None else by_res, by_phi, by_alpha, by_bias


def _precision(dtype: torch.dtype) -> str:
    """Of the product with phi transposed, whose result is rounded to the streams' dtype."""
    return "ieee" if INTERPRETED else "bf16x6" if dtype == torch.float32 else "tf32"


def layouts() -> list[tuple[str, dict[str, Any]]]:
    """The constants of both directions for mHC, for logits of another constraint, and for H_res = I."""
    found = []
    for n in (1, 2, 4):
        packed = places(n, n * n + 2 * n, n * n + 2 * n, n, 2 * n, separate=False)
        found.append((f"n={n}", packed | {"POST": n, "SINKHORN": True, "V4": False}))
    packed = places(4, 24, 24, 4, 8, separate=False)
    found.append(("n=4 v4", packed | {"POST": 4, "SINKHORN": True, "V4": True}))
    found.append(("n=4 logits", places(4, 14, 14, 4, -1, separate=True) | {"POST": 4, "SINKHORN": False, "V4": False}))
    found.append(("n=4 identity", places(4, 8, 8, 4, -1, separate=False) | {"POST": 4, "SINKHORN": False, "V4": False}))
    return found


def variants() -> list[KernelVariant]:
    found = []
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        stream, phi_block = read.POINTERS[dtype], choose_phi_block(dtype)

        def types(streams: str, floats: str, numbers: str, stream: str = stream) -> dict[str, str]:
            found = dict.fromkeys(streams.split(), stream) | dict.fromkeys(floats.split(), "*fp32")
            return found | dict.fromkeys(numbers.split(), "i32")

        for label, constants in layouts():
            label = f"{stream[1:]} {label}"
            block = choose_block(dtype, constants["m"])
            sizes = {name: constants[name] for name in ("n", "N", "m", "M")}
            flags = {name: constants[name] for name in ("POST", "SINKHORN", "V4")}
            spots = {name: constants[name] for name in ("STRIDE", "POST_AT", "RES_STRIDE", "RES_AT")}
            for name, kernel, signature, fixed, shape in (
                (
                    "projection",
                    back_to_projection,
                    types(
                        "grad_hidden written",
                        "grad_values alpha bias projected inverse_rms grad_raw grad_projected pull sums",
                        "tokens dim t_max",
                    ),
                    sizes | flags | {"BT": _PROJECTION.tokens, "CHANNELS": _PROJECTION.channels},
                    _PROJECTION,
                ),
                (
                    "streams",
                    back_to_streams,
                    types(
                        "grad_written grad_hidden streams output grad_streams grad_output",
                        "weights h_res values phi grad_projected pull grad_weights grad_h_res",
                        "tokens dim",
                    ),
                    sizes | spots | {"PRECISION": _precision(dtype), "BT": block.tokens, "CHANNELS": block.channels},
                    block,
                ),
                (
                    "phi",
                    back_to_phi,
                    types("written", "grad_projected parts", "tokens span size"),
                    {"m": sizes["m"], "M": sizes["M"], "PRECISION": precision_for(dtype)}
                    | {"BT": phi_block.tokens, "ROWS": phi_block.channels},
                    phi_block,
                ),
            ):
                aligned = tuple(x for x in signature if x not in ("tokens", "span", "t_max"))
                found.append(
                    KernelVariant(
                        f"write_read backward {name} {label}",
                        kernel,
                        signature,
                        fixed,
                        aligned,
                        shape.num_warps,
                        shape.num_stages,
                        options=ALL_REGISTERS if name == "projection" else {},
                    )
                )
    return found
