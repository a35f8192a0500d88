"""What the two directions of write_read share: the fused range, and Triton functions on [tokens, channels] tiles."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: disable-error-code="assignment, operator, var-annotated"
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Beyond, a block of tokens that fits in registers is too small to pay for reading phi once a block.
FUSED_STREAMS = 4
FUSED_COLUMNS = 32


@dataclass(frozen=True)
class Block:
    """What a program holds at once: `tokens` x `channels` of each stream."""

    tokens: int
    channels: int
    num_warps: int = 4
    num_stages: int = 2


def fused(streams: Tensor, phi: Tensor) -> bool:
    """Whether the fused kernels take these tensors; else the kernels of the parts run one after the other."""
    return streams.shape[1] <= FUSED_STREAMS and phi.shape[1] <= FUSED_COLUMNS


def places(n: int, m: int, width: int, post_at: int, res_at: int, separate: bool) -> dict[str, Any]:
    """Compile-time constants of both directions: sizes, and where H_post and H_res lie.

    Args:
        m: columns of phi. width: columns of the packed weights. separate: H_res is a tensor of its own.
    """
    tile = triton.next_power_of_2(n)
    columns = max(16, triton.next_power_of_2(m))
    found = {"n": n, "N": tile, "m": m, "M": columns, "STRIDE": width, "POST_AT": post_at}
    return found | ({"RES_STRIDE": n * n, "RES_AT": 0} if separate else {"RES_STRIDE": width, "RES_AT": res_at})


def check(streams: Tensor, *others: Tensor) -> None:
    if streams.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise TypeError(f"the GPU kernels take bf16, fp16 and fp32 streams, not {streams.dtype}")
    if any(x.dtype != torch.float32 for x in others):
        raise TypeError("the GPU kernels take fp32 coefficients")
    assert all(x.is_contiguous() for x in (streams, *others))


@triton.jit
def weight_columns(weights, token, mask, stride, first, COUNT: tl.constexpr, WIDTH: tl.constexpr):
    """COUNT columns of packed per-token weights from `first` on, as a tuple of [tokens] in fp32.

    They are sums over a tile rather than loads on purpose: the compiler carries the layout of a matrix product's
    operand back to the loads that it comes from, which would put the whole mixing into that layout, where every warp
    repeats it; it does not carry it across a sum.
    """
    column = tl.arange(0, WIDTH)
    tile = tl.load(
        weights + token[:, None] * stride + first + column[None, :],
        mask=mask[:, None] & (column < COUNT)[None, :],
        other=0.0,
    )
    found = ()
    for k in tl.static_range(COUNT):
        found += (tl.sum(tl.where(column[None, :] == k, tile, 0.0), 1),)
    return found


@triton.jit
def mixed_row(x, y, post, res, i: tl.constexpr, n: tl.constexpr, MIXED: tl.constexpr):
    """[tokens, channels] fp32: row i of H_res x + H_post^T y, from tuples of streams and weights."""
    total = post[i][:, None] * y
    if MIXED:
        for j in tl.static_range(n):
            total += res[i * n + j][:, None] * x[j].to(tl.float32)
    else:
        total += x[i].to(tl.float32)
    return total


@triton.jit
def settled(tile):
    """The same [tokens, channels] tile; a matrix product's layout stops here, see `weight_columns`."""
    return tl.sum(tile[:, :, None], 2)
