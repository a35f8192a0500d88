"""The write for more than 8 streams: a program holds all streams of one token as a [16, channels] tile.

The mixing and the gradient of H_res are matrix products with 16 rows, so that no thread has to hold n^2 weights or
n^2 sums; fp32 operands are multiplied as six bf16 products, which has the accuracy of fp32 on every target.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: disable-error-code="assignment, operator, var-annotated"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhc_lab.ops.ahead_of_time import KernelVariant
from mhc_lab.ops.read.gpu import POINTERS
from mhc_lab.ops.tiles import INTERPRETED

_CHANNELS = {"forward": 64, "backward": 32}
_WARPS, _STAGES = 4, 2
_INTERPRETED = tl.constexpr(INTERPRETED)  # the interpreter multiplies the bit patterns of bf16
_EXACT = tl.constexpr("ieee" if INTERPRETED else "bf16x6")  # six bf16 products: fp32 accuracy on every target


def forward(streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor) -> Tensor:
    """As `write.gpu.forward`, n <= 16."""
    tokens, n, dim = streams.shape
    written = torch.empty_like(streams)
    if written.numel():
        grid = (tokens * triton.cdiv(dim, _CHANNELS["forward"]),)
        inputs = (streams, output, h_post, h_res)
        with torch.cuda.device_of(streams):
            _forward[grid](*(*inputs, written, dim, n, 16, _CHANNELS["forward"]), num_warps=_WARPS, num_stages=_STAGES)
    return written


def backward(
    grad: Tensor, streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `write.gpu.backward`, n <= 16."""
    tokens, n, dim = streams.shape
    grads = tuple(torch.empty_like(x) for x in (streams, output, h_post, h_res))
    if tokens:
        inputs = (grad, streams, output, h_post, h_res)
        with torch.cuda.device_of(streams):
            _backward[(tokens,)](
                *(*inputs, *grads, dim, n, 16, _CHANNELS["backward"]), num_warps=_WARPS, num_stages=_STAGES
            )
    grad_streams, grad_output, grad_h_post, grad_h_res = grads
    return grad_streams, grad_output, grad_h_post, grad_h_res


@triton.jit
def _forward(streams, output, h_post, h_res, written, dim, n: tl.constexpr, N: tl.constexpr, CHANNELS: tl.constexpr):
    blocks = tl.cdiv(dim, CHANNELS)
    token = (tl.program_id(0) // blocks).to(tl.int64)
    channel = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    row, column = tl.arange(0, N), tl.arange(0, N)
    weights = tl.load(  # [N, N], rows are outputs
        h_res + (token * n + row[:, None]) * n + column[None, :],
        mask=(row[:, None] < n) & (column[None, :] < n),
        other=0.0,
    ).to(tl.float32)
    post = tl.load(h_post + token * n + row, mask=row < n, other=0.0).to(tl.float32)
    y = tl.load(output + token * dim + channel, mask=channel < dim, other=0.0).to(tl.float32)
    offset = (token * n + row[:, None]) * dim + channel[None, :]
    mask = (row[:, None] < n) & (channel[None, :] < dim)
    x = tl.load(streams + offset, mask=mask, other=0.0).to(tl.float32)
    total = tl.dot(weights, x, post[:, None] * y[None, :], input_precision=_EXACT)
    tl.store(written + offset, total.to(written.dtype.element_ty), mask=mask)


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
    N: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    row, column = tl.arange(0, N), tl.arange(0, N)
    square = (row[:, None] < n) & (column[None, :] < n)
    transposed = tl.load(  # [N, N], rows are inputs
        h_res + (token * n + column[None, :]) * n + row[:, None], mask=square, other=0.0
    ).to(tl.float32)
    post = tl.load(h_post + token * n + row, mask=row < n, other=0.0).to(tl.float32)
    post_sums = tl.zeros([N], tl.float32)
    res_sums = tl.zeros([N, N], tl.float32)
    for block in range(tl.cdiv(dim, CHANNELS)):
        channel = block * CHANNELS + tl.arange(0, CHANNELS)
        offset = (token * n + row[:, None]) * dim + channel[None, :]
        mask = (row[:, None] < n) & (channel[None, :] < dim)
        y = tl.load(output + token * dim + channel, mask=channel < dim, other=0.0).to(tl.float32)
        narrow_g = tl.load(grad + offset, mask=mask, other=0.0)
        x = tl.load(streams + offset, mask=mask, other=0.0)
        g = narrow_g.to(tl.float32)
        grad_x = tl.dot(transposed, g, input_precision=_EXACT)
        tl.store(grad_streams + offset, grad_x.to(grad_streams.dtype.element_ty), mask=mask)
        grad_y = tl.sum(post[:, None] * g, 0)
        tl.store(grad_output + token * dim + channel, grad_y.to(grad_output.dtype.element_ty), mask=channel < dim)
        post_sums += tl.sum(g * y[None, :], 1)
        if x.dtype == tl.float32 or x.dtype == tl.float64 or _INTERPRETED:
            res_sums = tl.dot(g, tl.trans(x.to(tl.float32)), res_sums, input_precision=_EXACT)
        else:  # products of 16-bit numbers are exact
            res_sums = tl.dot(narrow_g, tl.trans(x), res_sums)
    tl.store(grad_h_post + token * n + row, post_sums.to(grad_h_post.dtype.element_ty), mask=row < n)
    square_offset = (token * n + row[:, None]) * n + column[None, :]
    tl.store(grad_h_res + square_offset, res_sums.to(grad_h_res.dtype.element_ty), mask=square)


def variants() -> list[KernelVariant]:
    found = []
    for stream in (POINTERS[torch.bfloat16], POINTERS[torch.float32]):
        inputs = {"streams": stream, "output": stream, "h_post": "*fp32", "h_res": "*fp32"}
        grads = {"grad_streams": stream, "grad_output": stream, "grad_h_post": "*fp32", "grad_h_res": "*fp32"}
        forward_types = inputs | {"written": stream, "dim": "i32"}
        backward_types = {"grad": stream} | inputs | grads | {"dim": "i32"}
        for name, kernel, types in (("forward", _forward, forward_types), ("backward", _backward, backward_types)):
            label, constants = f"write {name} {stream[1:]} n=16", {"n": 16, "N": 16, "CHANNELS": _CHANNELS[name]}
            found.append(KernelVariant(label, kernel, types, constants, tuple(types), _WARPS, _STAGES))
    return found
