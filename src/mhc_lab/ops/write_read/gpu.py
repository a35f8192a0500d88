"""Triton kernels of write_read: one layer's write, the next layer's coefficients and read, in one pass over x.

A program owns a block of tokens. It walks along the channels twice: first it writes x' and, while the tile is in
registers, multiplies it with phi and adds up its squares; with the coefficients known it reads x' again, which it has
just stored (an L2 hit while the blocks in flight fit there), and sums the layer's input. (2n + 2) C elements a token,
nC more where x' has left L2. With more than 4 streams or 32 columns the kernels of the parts run one by one.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: disable-error-code="assignment, operator, var-annotated"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhc_lab.ops.ahead_of_time import KernelVariant
from mhc_lab.ops.coefficients import gpu as coefficients
from mhc_lab.ops.coefficients.reference import NORM_EPS
from mhc_lab.ops.read import gpu as read
from mhc_lab.ops.tiles import ALL_REGISTERS, activate, dot_wide, launchable, precision_for, sinkhorn_tile
from mhc_lab.ops.write import gpu as write
from mhc_lab.ops.write_read import gpu_backward
from mhc_lab.ops.write_read.gpu_backward import backward
from mhc_lab.ops.write_read.gpu_tiles import Block, check, fused, mixed_row, places, weight_columns
from mhc_lab.ops.write_read.reference import mappings

__all__ = ["backward", "choose_block", "forward", "variants"]

_NORM_EPS = tl.constexpr(NORM_EPS)


def choose_block(dtype: torch.dtype, m: int) -> Block:
    """16 tokens fill the matrix units' rows; more would read phi less often, but spill.

    Rows of phi that are no multiple of 16 bytes take more registers to load.
    """
    if dtype.itemsize == 2:
        return Block(16, 64 if m % 4 == 0 else 32)
    return Block(16, 32, num_warps=8)


def launch_options(n: int, m: int) -> dict[str, int]:
    """All registers for the small tiles, of which ptxas would spill a few bytes to fit one more block, and for rows of
    phi that are no multiple of 16 bytes. Not for the others: given all, ptxas loads so far ahead that they spill."""
    return ALL_REGISTERS if n < 4 or m % 4 else {}


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
    config: Block | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """[T, n, C] -> written, hidden [T, C], values [T, m], projected [T, m], inverse_rms [T]; see `ops.write_read`.

    All tensors contiguous; weights, h_res, phi, alpha and bias fp32. Raises TypeError for other dtypes.
    """
    check(streams, weights, phi, alpha, bias, *(() if h_res is None else (h_res,)))
    tokens, n, dim = streams.shape
    if not fused(streams, phi):
        h_post, mixing = mappings(weights, post_at, res_at, h_res, n)
        mixing = None if mixing is None else mixing.contiguous()
        written = write.forward(streams, output, h_post.contiguous(), mixing)
        found = coefficients.forward(written, phi, alpha, bias, n, post, read_eps, t_max, convention)
        return written, read.forward(written, found[0][:, :n].contiguous()), *found
    written, hidden = torch.empty_like(streams), streams.new_empty(tokens, dim)
    values, projected = (phi.new_empty(tokens, phi.shape[1]) for _ in range(2))
    inverse_rms = phi.new_empty(tokens)
    block = config or choose_block(streams.dtype, phi.shape[1])
    if tokens:
        with torch.cuda.device_of(streams):
            _forward[(triton.cdiv(tokens, block.tokens),)](
                *(streams, output, weights, weights if h_res is None else h_res, phi, alpha, bias),
                *(written, hidden, values, projected, inverse_rms),
                *(tokens, dim, read_eps, t_max),
                **places(n, phi.shape[1], weights.shape[1], post_at, res_at, h_res is not None),
                POST=post,
                SINKHORN=t_max > 0,
                V4=convention == "v4",
                PRECISION=precision_for(streams.dtype),
                BT=block.tokens,
                CHANNELS=block.channels,
                num_warps=block.num_warps,
                num_stages=block.num_stages,
                **launchable(launch_options(n, phi.shape[1])),
            )
    return written, hidden, values, projected, inverse_rms


@triton.jit(do_not_specialize=["tokens", "t_max"])
def _forward(
    streams,
    output,
    weights,
    h_res,
    phi,
    alpha,
    bias,
    written,
    hidden,
    values,
    projected,
    inverse_rms,
    tokens,
    dim,
    read_eps,
    t_max,
    n: tl.constexpr,
    N: tl.constexpr,
    m: tl.constexpr,
    M: tl.constexpr,
    POST: tl.constexpr,
    STRIDE: tl.constexpr,
    POST_AT: tl.constexpr,
    RES_STRIDE: tl.constexpr,
    RES_AT: tl.constexpr,
    SINKHORN: tl.constexpr,
    V4: tl.constexpr,
    PRECISION: tl.constexpr,
    BT: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    live = token < tokens
    MIXED: tl.constexpr = RES_AT >= 0
    post = weight_columns(weights, token, live, STRIDE, POST_AT, n, N)
    res = weight_columns(h_res, token, live, RES_STRIDE, RES_AT, n * n if MIXED else 0, N * N)
    column = tl.arange(0, M)

    product = tl.zeros([BT, M], tl.float32)
    squares = tl.zeros([BT], tl.float32)
    for block in range(tl.cdiv(dim, CHANNELS)):
        channel = block * CHANNELS + tl.arange(0, CHANNELS)
        mask = live[:, None] & (channel < dim)[None, :]
        y = tl.load(output + token[:, None] * dim + channel[None, :], mask=mask, other=0.0).to(tl.float32)
        row = token[:, None] * (n * dim) + channel[None, :]
        x, rows = (), ()  # stored last: no load may overtake a store
        for j in tl.static_range(n):
            x += (tl.load(streams + row + j * dim, mask=mask, other=0.0),)
        square = tl.zeros([BT, CHANNELS], tl.float32)
        for i in tl.static_range(n):
            tile = mixed_row(x, y, post, res, i, n, MIXED).to(written.dtype.element_ty)
            rows += (tile,)
            seen = tile.to(tl.float32)
            square += seen * seen
            weight = tl.load(
                phi + (i * dim + channel)[:, None] * m + column[None, :],
                mask=(channel < dim)[:, None] & (column < m)[None, :],
                other=0.0,
            )
            product = dot_wide(tile, weight, product, PRECISION)
        squares += tl.sum(square, 1)
        for i in tl.static_range(n):
            tl.store(written + row + i * dim, rows[i], mask=mask)

    inverse = tl.rsqrt(squares / (n * dim) + _NORM_EPS)
    tl.store(inverse_rms + token, inverse, mask=live)
    product *= inverse[:, None]
    packed = token[:, None] * m + column[None, :]
    in_pack = live[:, None] & (column < m)[None, :]
    tl.store(projected + packed, product, mask=in_pack)
    scale = tl.load(alpha + column, mask=column < m, other=0.0)
    shift = tl.load(bias + column, mask=column < m, other=0.0)
    raw = product * scale[None, :] + shift[None, :]
    own = in_pack & (column < n + POST)[None, :] if SINKHORN else in_pack
    tl.store(values + packed, activate(raw, column[None, :], n, POST, read_eps), mask=own)
    tl.debug_barrier()  # below, threads read what other threads of this program have stored

    if SINKHORN:
        index = tl.arange(0, N)
        entry = n + POST + index[:, None] * n + index[None, :]
        inside = (index[:, None] < n) & (index[None, :] < n)
        scale = tl.load(alpha + entry, mask=inside, other=0.0)
        shift = tl.load(bias + entry, mask=inside, other=0.0)
        packed = token[:, None, None] * m + entry[None, :, :]
        in_pack = live[:, None, None] & inside[None, :, :]
        logits = tl.load(projected + packed, mask=in_pack, other=0.0) * scale[None, :, :] + shift[None, :, :]
        tl.store(values + packed, sinkhorn_tile(logits, n, N, t_max, V4), mask=in_pack)

    pre = weight_columns(values, token, live, m, 0, n, N)
    for block in range(tl.cdiv(dim, CHANNELS)):
        channel = block * CHANNELS + tl.arange(0, CHANNELS)
        mask = live[:, None] & (channel < dim)[None, :]
        row = written + token[:, None] * (n * dim) + channel[None, :]
        total = tl.zeros([BT, CHANNELS], tl.float32)
        for i in tl.static_range(n):
            total += pre[i][:, None] * tl.load(row + i * dim, mask=mask, other=0.0).to(tl.float32)
        tl.store(hidden + token[:, None] * dim + channel[None, :], total.to(hidden.dtype.element_ty), mask=mask)


def variants() -> list[KernelVariant]:
    """Every fused kernel as a launch makes it, at a width that is a multiple of 16."""
    found = []
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        stream = read.POINTERS[dtype]
        types = dict.fromkeys(("streams", "output", "written", "hidden"), stream)
        types |= dict.fromkeys(("weights", "h_res", "phi", "alpha", "bias"), "*fp32")
        types |= dict.fromkeys(("values", "projected", "inverse_rms"), "*fp32")
        types |= {"tokens": "i32", "dim": "i32", "read_eps": "fp32", "t_max": "i32"}
        aligned = tuple(name for name in types if name not in ("tokens", "read_eps", "t_max"))
        for label, constants in gpu_backward.layouts():
            block = choose_block(dtype, constants["m"])
            constants |= {"PRECISION": precision_for(dtype), "BT": block.tokens, "CHANNELS": block.channels}
            name = f"write_read forward {stream[1:]} {label}"
            shape = (block.num_warps, block.num_stages, launch_options(constants["n"], constants["m"]))
            found.append(KernelVariant(name, _forward, types, constants, aligned, *shape))
    return found + gpu_backward.variants()
