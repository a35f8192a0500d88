"""Triton functions on tiles in registers, shared by the kernels: Sinkhorn, activations, wide dot products.

A Sinkhorn tile is [BT, N, N]: BT matrices, N a power of two not below n, axis 1 the row (output) and axis 2 the
column. What lies outside n x n is ignored on the way in and 0 on the way out.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# Triton reads the annotations of a device function: there can be none but tl.constexpr.
from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

from mhc_lab.ops.sinkhorn.reference import V4_EPS

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"

_INTERPRETED = tl.constexpr(INTERPRETED)
_V4_EPS = tl.constexpr(V4_EPS)
# Entries of the iterates reach exp(-2 * spread) / n; below this spread they are normal fp32 numbers.
_FP32_SPREAD = tl.constexpr(40.0)


# A launch option: as many registers as the kernel takes. Left alone, ptxas spills some bytes where that lets one more
# block fit on a multiprocessor.
ALL_REGISTERS = {"maxnreg": 255}


def launchable(options: dict[str, int]) -> dict[str, int]:
    """The launch options that the GPU's compiler knows: AMD's refuses ALL_REGISTERS."""
    return {} if torch.version.hip else options


def precision_for(dtype: torch.dtype) -> str:
    """How `dot_wide` multiplies streams of `dtype`: at least as tf32 (mHC Eq. 10), for fp32 streams as fp32."""
    return {torch.bfloat16: "split", torch.float16: "tf32", torch.float32: "bf16x6"}[dtype]


@triton.jit
def sinkhorn_tile(logits, n: tl.constexpr, N: tl.constexpr, t_max, V4: tl.constexpr):
    """t_max Sinkhorn iterations on a tile (mHC Eq. 9, or V4's shipped form).

    Args:
        logits: [BT, N, N] fp32 or fp64, finite; within n x n any value up to +-100 is exact to rounding.
        n: side of the matrices. N: side of the tile, a power of two.
        t_max: iterations, at least 1, a run-time value.
        V4: V4's convention instead of Eq. 9.

    Returns:
        [BT, N, N] in the dtype of the logits.
    """
    if V4 or logits.dtype == tl.float64:
        out = _iterate(_start(logits, n, N, V4), t_max, V4)
    else:
        # Only a program that holds a wide matrix pays for fp64.
        if _spread(logits, n, N) > _FP32_SPREAD:
            out = _iterate(_start(logits.to(tl.float64), n, N, V4), t_max, V4).to(tl.float32)
        else:
            out = _iterate(_start(logits, n, N, V4), t_max, V4)
    if n != N:
        out = tl.where(inside(n, N), out, 0.0)
    return out


@triton.jit
def sinkhorn_tile_backward(
    logits, grad, n: tl.constexpr, N: tl.constexpr, t_max, V4: tl.constexpr, CHUNK: tl.constexpr = 4
):
    """The gradient of `sinkhorn_tile` at `logits`, exact for the truncated iteration.

    Nothing is stored: the iterations are cut into chunks, last one first; each chunk is entered by iterating from
    the start and keeps its 2 CHUNK sums in registers. About (t_max / CHUNK - 1) / 2 + 2 forward passes in all.

    Args:
        grad: [BT, N, N], the cotangent; its entries outside n x n are ignored.
        CHUNK: iterations a chunk; each costs two rows of a matrix in registers.

    Returns:
        [BT, N, N] in the dtype of the logits.
    """
    if V4 or logits.dtype == tl.float64:
        out = _walk_back(logits, grad.to(logits.dtype), n, N, t_max, V4, CHUNK)
    else:
        if _spread(logits, n, N) > _FP32_SPREAD:
            # Rare: a short chunk, so that the registers of the whole kernel are not set by this branch.
            wide = _walk_back(logits.to(tl.float64), grad.to(tl.float64), n, N, t_max, V4, 1)
            out = wide.to(tl.float32)
        else:
            out = _walk_back(logits, grad.to(tl.float32), n, N, t_max, V4, CHUNK)
    return out


@triton.jit
def inside(n: tl.constexpr, N: tl.constexpr):
    """[1, N, N]: which entries of a tile belong to the n x n matrix."""
    index = tl.arange(0, N)
    return (index[:, None] < n)[None, :, :] & (index[None, :] < n)[None, :, :]


@triton.jit
def load_matrices(matrices, stride, token, tokens, n: tl.constexpr, N: tl.constexpr):
    """[BT, N, N]: row-major n x n matrices, `stride` numbers from one token's to the next; zeros past the last token.

    Rows are loaded one by one and joined: in the layout that comes of it a thread holds whole columns, and all of
    a 4 x 4 matrix, so that the sums need no (or few) exchanges between threads.
    """
    column = tl.arange(0, N)
    mask = (token < tokens)[:, None] & (column < n)[None, :]
    pointer = matrices + token[:, None].to(tl.int64) * stride + column[None, :]  # [BT, N]
    # Joining appends an axis of 2, so rows are joined last bit of their index last: [BT, N] -> [BT, N, 2, 2, ..].
    if N == 1:
        tile = tl.expand_dims(_row(pointer, mask, 0, n), 2)
    elif N == 2:
        tile = tl.join(_row(pointer, mask, 0, n), _row(pointer, mask, 1, n))
    elif N == 4:
        even = tl.join(_row(pointer, mask, 0, n), _row(pointer, mask, 2, n))
        tile = tl.join(even, tl.join(_row(pointer, mask, 1, n), _row(pointer, mask, 3, n)))
    elif N == 8:
        low = tl.join(_row(pointer, mask, 0, n), _row(pointer, mask, 4, n))
        even = tl.join(low, tl.join(_row(pointer, mask, 2, n), _row(pointer, mask, 6, n)))
        low = tl.join(_row(pointer, mask, 1, n), _row(pointer, mask, 5, n))
        odd = tl.join(low, tl.join(_row(pointer, mask, 3, n), _row(pointer, mask, 7, n)))
        tile = tl.join(even, odd)
    else:
        row = tl.arange(0, N)
        inner = mask[:, None, :] & (row < n)[None, :, None]
        tile = tl.load(pointer[:, None, :] + row[None, :, None] * n, mask=inner, other=0.0)
    if N <= 8:
        tile = tl.permute(tl.reshape(tile, (token.shape[0], N, N)), (0, 2, 1))  # [BT, column, row] -> [BT, row, column]
    return tile


@triton.jit
def _row(pointer, mask, row: tl.constexpr, n: tl.constexpr):
    return tl.load(pointer + row * n, mask=mask & (row < n), other=0.0)


@triton.jit
def activate(raw, column, pre, post, read_eps):
    """Values of packed columns [pre | post | rest] from their logits (mHC Eq. 8, 17, 18); the rest is left alone."""
    gate = tl.sigmoid(raw)
    return tl.where(column < pre, gate + read_eps, tl.where(column < pre + post, 2.0 * gate, raw))


@triton.jit
def activate_slope(raw, column, pre, post):
    """Derivative of `activate` by its logits."""
    gate = tl.sigmoid(raw)
    slope = gate * (1.0 - gate)
    return tl.where(column < pre, slope, tl.where(column < pre + post, 2.0 * slope, 1.0))


@triton.jit
def dot_wide(tile, weight, acc, PRECISION: tl.constexpr):
    """acc + tile @ weight with a tile in the streams' dtype and a weight in fp32, summed in fp32.

    PRECISION: see `precision_for`. "split" is for bf16 tiles: the weight goes in as the sum of two bf16 numbers, so
    that 16 bits of it count, at the tensor-core cost of one tf32 product. Else it is the `input_precision` of
    `tl.dot` on fp32 operands.
    """
    if PRECISION == "split":
        high = weight.to(tl.bfloat16)
        low = (weight - high.to(tl.float32)).to(tl.bfloat16)
        if _INTERPRETED:  # the interpreter multiplies the bit patterns of bf16
            tile = tile.to(tl.float32)
            acc = tl.dot(tile, high.to(tl.float32), acc, input_precision="ieee")
            acc = tl.dot(tile, low.to(tl.float32), acc, input_precision="ieee")
        else:
            acc = tl.dot(tile, high, acc)
            acc = tl.dot(tile, low, acc)
    elif _INTERPRETED:
        acc = tl.dot(tile.to(tl.float32), weight, acc, input_precision="ieee")
    else:
        acc = tl.dot(tile.to(tl.float32), weight, acc, input_precision=PRECISION)
    return acc


@triton.jit
def _spread(logits, n: tl.constexpr, N: tl.constexpr):
    """Largest max - min of a matrix of the tile: a scalar."""
    mask = inside(n, N)
    high = tl.max(tl.max(tl.where(mask, logits, -float("inf")), 2), 1)
    low = tl.min(tl.min(tl.where(mask, logits, float("inf")), 2), 1)
    return tl.max(high - low, 0)


@triton.jit
def _start(logits, n: tl.constexpr, N: tl.constexpr, V4: tl.constexpr):
    """What the iteration starts from: V4 the softmax over rows + eps; Eq. 9 exp, each column up to a factor.

    Under Eq. 9 the first step divides each column by its sum: subtracting its maximum changes nothing.
    Outside n x n stands the identity: its sums are 1, so that the iterations need no mask.
    """
    mask = inside(n, N)
    if n != N:
        logits = tl.where(mask, logits, tl.where(_diagonal(N), 0.0, -float("inf")))
    start = tl.exp(logits - tl.max(logits, 1, keep_dims=True))
    if V4:
        start = start * (1.0 / tl.sum(start, 1, keep_dims=True))
        start = tl.where(mask, start + _V4_EPS, start)
    return start


@triton.jit
def _diagonal(N: tl.constexpr):
    """[1, N, N]"""
    index = tl.arange(0, N)
    return (index[:, None] == index[None, :])[None, :, :]


@triton.jit
def _iterate(matrix, t_max, V4: tl.constexpr):
    """Columns, then rows, t_max times; V4's first iteration has no column step."""
    eps: tl.constexpr = _V4_EPS if V4 else 0.0
    for t in range(t_max):
        columns = tl.sum(matrix, 1, keep_dims=True) + eps
        if V4:
            columns = tl.where(t > 0, columns, 1.0)
        matrix = matrix * (1.0 / columns)
        matrix = matrix * (1.0 / (tl.sum(matrix, 2, keep_dims=True) + eps))
    return matrix


@triton.jit
def _walk_back(logits, grad, n: tl.constexpr, N: tl.constexpr, t_max, V4: tl.constexpr, CHUNK: tl.constexpr):
    """For y = x / s, s = sum(x) + eps, write a = x dL/dx and b = y dL/dy: then a = b - y sum(b), and x = y s.

    In this form nothing is divided by a small sum on the way back, and Eq. 9's last factor exp is already in.
    """
    eps: tl.constexpr = _V4_EPS if V4 else 0.0
    start = _start(logits, n, N, V4)
    # The cotangent of the whole iteration meets its value at the end of the first chunk walked, the last in time.
    pulled = tl.where(inside(n, N), grad, 0.0)
    chunks = tl.cdiv(t_max, CHUNK)
    for c in range(chunks):
        first = (chunks - 1 - c) * CHUNK
        matrix = _iterate(start, first, V4)
        sums = ()
        for k in tl.static_range(CHUNK):
            t = first + k
            columns = tl.sum(matrix, 1, keep_dims=True) + eps
            columns = tl.where((t > 0) & (t < t_max), columns, 1.0) if V4 else tl.where(t < t_max, columns, 1.0)
            matrix = matrix * (1.0 / columns)
            rows = tl.where(t < t_max, tl.sum(matrix, 2, keep_dims=True) + eps, 1.0)
            matrix = matrix * (1.0 / rows)
            sums = sums + (columns, rows)  # type: ignore[assignment]  # noqa: RUF005
        pulled = tl.where(c == 0, pulled * matrix, pulled)
        for k in tl.static_range(CHUNK):
            t = first + CHUNK - 1 - k
            live = tl.where(t < t_max, 1.0, 0.0)
            pulled = pulled - matrix * (live * tl.sum(pulled, 2, keep_dims=True))
            matrix = matrix * sums[2 * (CHUNK - 1 - k) + 1]
            if V4:
                live = tl.where(t > 0, live, 0.0)
            pulled = pulled - matrix * (live * tl.sum(pulled, 1, keep_dims=True))
            matrix = matrix * sums[2 * (CHUNK - 1 - k)]
    if V4:
        # start = p + eps with p the softmax: p dL/dp = (x dL/dx) p / (p + eps), then the softmax's own backward.
        soft = tl.where(inside(n, N), start - _V4_EPS, 0.0)
        pulled = pulled * soft / tl.where(inside(n, N), start, 1.0)
        pulled = pulled - soft * tl.sum(pulled, 1, keep_dims=True)
    return pulled
