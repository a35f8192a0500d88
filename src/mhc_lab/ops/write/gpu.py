"""Triton kernels of the write: one pass forward, one pass backward.

Up to 8 streams a program works on one token with its weights as scalars, and adds up the n^2 + n gradients of the
weights in one register a thread each, over all channels: deterministic. Above, the weights no longer fit in
registers and the mixing is a small matrix product (gpu_tiles.py).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: disable-error-code="assignment, operator, var-annotated"
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhc_lab.ops.ahead_of_time import KernelVariant
from mhc_lab.ops.read.gpu import POINTERS, Rows, blocks_of, channels_of, check, choose_rows
from mhc_lab.ops.write import gpu_tiles

SCALAR_STREAMS = 8


def backward_rows(n: int, dim: int, dtype: torch.dtype) -> Rows:
    """Half the vector at 5 streams and more: two sets of streams and n^2 sums must fit in 255 registers."""
    return choose_rows(dim, dtype, None if n <= 4 else max(1, 8 // dtype.itemsize))


def forward(
    streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None, config: Rows | None = None
) -> Tensor:
    """[T, n, C], [T, C], [T, n], [T, n, n] | None (identity) -> [T, n, C] in the dtype of the streams.

    Moves (2n + 1) C elements a token.
    """
    check(streams, output, h_post, *(() if h_res is None else (h_res,)))
    tokens, n, dim = streams.shape
    if n > SCALAR_STREAMS and h_res is not None:
        return gpu_tiles.forward(streams, output, h_post, h_res)
    written = torch.empty_like(streams)
    rows = config or choose_rows(dim, streams.dtype)
    if written.numel():
        weights = (h_post, h_post if h_res is None else h_res)
        with torch.cuda.device_of(streams):
            _forward[rows.programs(tokens, dim)](
                *(streams, output, *weights, written, dim),
                *(n, h_res is not None, rows.lanes, rows.vector, rows.steps),
                num_warps=rows.num_warps,
            )
    return written


def backward(
    grad: Tensor, streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None, config: Rows | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """[T, n, C] grad -> grad_streams, grad_output, grad_h_post, grad_h_res (None for the identity).

    Moves (3n + 2) C elements a token; with the identity (2n + 2) C, the streams are not read.
    """
    check(streams, grad, output, h_post, *(() if h_res is None else (h_res,)))
    tokens, n, dim = streams.shape
    if n > SCALAR_STREAMS and h_res is not None:
        return gpu_tiles.backward(grad, streams, output, h_post, h_res)
    grad_streams, grad_output, grad_h_post = (torch.empty_like(x) for x in (streams, output, h_post))
    grad_h_res = None if h_res is None else torch.empty_like(h_res)
    rows = config or backward_rows(n if h_res is not None else 1, dim, streams.dtype)
    if tokens:
        weights = (h_post, h_post if h_res is None else h_res)
        outputs = (grad_streams, grad_output, grad_h_post, grad_h_post if grad_h_res is None else grad_h_res)
        with torch.cuda.device_of(streams):
            _backward[(tokens,)](
                *(grad, streams, output, *weights, *outputs, dim),
                *(n, h_res is not None, rows.lanes, rows.vector),
                num_warps=rows.num_warps,
            )
    return grad_streams, grad_output, grad_h_post, grad_h_res


@triton.jit
def _forward(
    streams,
    output,
    h_post,
    h_res,
    written,
    dim,
    n: tl.constexpr,
    MIXED: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
    STEPS: tl.constexpr,
):
    token, first, last = blocks_of(dim, LANES, VECTOR, STEPS)
    for block in range(first, last):
        channel = channels_of(block, LANES, VECTOR)
        mask = channel < dim
        y = tl.load(output + token * dim + channel, mask=mask, other=0.0).to(tl.float32)
        x, rows = (), ()  # all loads before the first store, which no load may overtake
        for j in tl.static_range(n):
            x += (tl.load(streams + (token * n + j) * dim + channel, mask=mask, other=0.0),)
        for i in tl.static_range(n):
            total = tl.load(h_post + token * n + i).to(tl.float32) * y
            if MIXED:
                for j in tl.static_range(n):
                    total += tl.load(h_res + (token * n + i) * n + j).to(tl.float32) * x[j].to(tl.float32)
            else:
                total += x[i].to(tl.float32)
            rows += (total.to(written.dtype.element_ty),)
        for i in tl.static_range(n):
            tl.store(written + (token * n + i) * dim + channel, rows[i], mask=mask)


@triton.jit
def _backward(
    grad,
    streams,
    output,
    h_post,
    h_res,
    grad_streams,
    grad_output,
    grad_h_post,
    grad_h_res,
    dim,
    n: tl.constexpr,
    MIXED: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    post_sums, res_sums = (), ()
    for _ in tl.static_range(n):
        post_sums += (tl.zeros([LANES], tl.float32),)
    for _ in tl.static_range(n * n if MIXED else 0):
        res_sums += (tl.zeros([LANES], tl.float32),)

    for block in range(tl.cdiv(dim, LANES * VECTOR)):
        channel = channels_of(block, LANES, VECTOR)
        mask = channel < dim
        y = tl.load(output + token * dim + channel, mask=mask, other=0.0).to(tl.float32)
        g, x = (), ()
        for i in tl.static_range(n):
            g += (tl.load(grad + (token * n + i) * dim + channel, mask=mask, other=0.0),)
        if MIXED:
            for j in tl.static_range(n):
                x += (tl.load(streams + (token * n + j) * dim + channel, mask=mask, other=0.0),)

        added = ()
        grad_y = tl.zeros([LANES, VECTOR], tl.float32)
        for i in tl.static_range(n):
            added += (post_sums[i] + tl.sum(g[i].to(tl.float32) * y, 1),)
            grad_y += tl.load(h_post + token * n + i).to(tl.float32) * g[i].to(tl.float32)
        post_sums = added

        rows = ()
        if MIXED:
            added = ()
            for i in tl.static_range(n):
                for j in tl.static_range(n):
                    product = g[i].to(tl.float32) * x[j].to(tl.float32)
                    added += (res_sums[i * n + j] + tl.sum(product, 1),)
            res_sums = added
            for j in tl.static_range(n):
                total = tl.zeros([LANES, VECTOR], tl.float32)
                for i in tl.static_range(n):
                    total += tl.load(h_res + (token * n + i) * n + j).to(tl.float32) * g[i].to(tl.float32)
                rows += (total.to(grad_streams.dtype.element_ty),)
        else:
            for j in tl.static_range(n):
                rows += (g[j].to(grad_streams.dtype.element_ty),)
        tl.store(grad_output + token * dim + channel, grad_y.to(grad_output.dtype.element_ty), mask=mask)
        for j in tl.static_range(n):
            tl.store(grad_streams + (token * n + j) * dim + channel, rows[j], mask=mask)

    for i in tl.static_range(n):
        tl.store(grad_h_post + token * n + i, tl.sum(post_sums[i], 0).to(grad_h_post.dtype.element_ty))
    for k in tl.static_range(n * n if MIXED else 0):
        tl.store(grad_h_res + token * n * n + k, tl.sum(res_sums[k], 0).to(grad_h_res.dtype.element_ty))


def variants() -> list[KernelVariant]:
    """Every kernel as a launch makes it, at a width that is a multiple of 16."""
    found = gpu_tiles.variants()
    for dtype in (torch.bfloat16, torch.float32):
        stream = POINTERS[dtype]
        inputs = {"streams": stream, "output": stream, "h_post": "*fp32", "h_res": "*fp32"}
        forward_types = inputs | {"written": stream, "dim": "i32"}
        grads = {"grad_streams": stream, "grad_output": stream, "grad_h_post": "*fp32", "grad_h_res": "*fp32"}
        backward_types = {"grad": stream} | inputs | grads | {"dim": "i32"}
        for n, mixed, dim in (
            *((n, True, 4096) for n in (1, 2, 4, 8)),
            *((n, True, 1280) for n in (4, 8)),
            *((n, False, 4096) for n in (4, 16)),
        ):
            rows = choose_rows(dim, dtype)
            label = f"{stream[1:]} n={n} {rows.lanes} lanes" + ("" if mixed else " identity")
            constants = {"n": n, "MIXED": mixed, "LANES": rows.lanes, "VECTOR": rows.vector}
            forward_constants = constants | {"STEPS": rows.steps}
            found.append(_variant(f"write forward {label}", _forward, forward_types, forward_constants, rows))
            rows = backward_rows(n if mixed else 1, dim, dtype)
            constants = {"n": n, "MIXED": mixed, "LANES": rows.lanes, "VECTOR": rows.vector}
            found.append(_variant(f"write backward {label}", _backward, backward_types, constants, rows))
    return found


def _variant(name: str, kernel: Any, types: dict[str, str], constants: dict[str, Any], rows: Rows) -> KernelVariant:
    return KernelVariant(name, kernel, types, constants, tuple(types), rows.num_warps)
