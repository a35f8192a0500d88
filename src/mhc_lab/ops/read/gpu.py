"""Triton kernels of the read: one pass forward, one pass backward.

A program works on one token, so that its weights are scalars and need no layout; a thread moves 16 bytes of each
stream at a time. Sums are fp32, over the channels too: one program owns a token's sums, so they are deterministic.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: disable-error-code="assignment, operator, var-annotated"
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhc_lab.ops.ahead_of_time import KernelVariant

MAX_STREAMS = 16
POINTERS = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}


@dataclass(frozen=True)
class Rows:
    """How a program cuts a row of C channels: `lanes` threads take `vector` neighbouring channels each at a step.

    A program that needs no sum over the channels takes `steps` steps, one that does takes the whole row.
    """

    lanes: int
    vector: int
    steps: int = 1

    @property
    def block(self) -> int:
        return self.lanes * self.vector

    @property
    def num_warps(self) -> int:
        return max(1, self.lanes // (64 if torch.version.hip else 32))

    def programs(self, tokens: int, dim: int) -> tuple[int]:
        """The grid of a kernel without sums over the channels."""
        return (tokens * triton.cdiv(dim, self.block * self.steps),)


def choose_rows(dim: int, dtype: torch.dtype, vector: int | None = None) -> Rows:
    """16 bytes a thread; the most lanes up to 128 of which at least 7/8 have channels to move.

    Fewer lanes take more steps: programs of one warp and one step would be limited by how fast they can be started.
    """
    vector = vector or 16 // dtype.itemsize
    lanes = 128
    while lanes > 32 and dim / (triton.cdiv(dim, lanes * vector) * lanes * vector) < 0.875:
        lanes //= 2
    return Rows(lanes, vector, 128 // lanes)


def check(streams: Tensor, *others: Tensor) -> None:
    """Raises ValueError or TypeError for what the kernels of read and write do not compute: fp64 would lose digits."""
    if not 1 <= streams.shape[1] <= MAX_STREAMS:
        raise ValueError(f"the GPU kernels take 1 to {MAX_STREAMS} streams, not {streams.shape[1]}")
    if any(x.dtype not in POINTERS for x in (streams, *others)):
        raise TypeError(
            "the GPU kernels take bf16, fp16 and fp32, not " + ", ".join(str(x.dtype) for x in (streams, *others))
        )
    assert all(x.is_contiguous() for x in (streams, *others))


def forward(streams: Tensor, h_pre: Tensor, config: Rows | None = None) -> Tensor:
    """[T, n, C] streams, [T, n] H_pre -> [T, C] in the dtype of the streams; moves (n + 1) C elements a token."""
    check(streams, h_pre)
    tokens, n, dim = streams.shape
    out = torch.empty((tokens, dim), dtype=streams.dtype, device=streams.device)
    rows = config or choose_rows(dim, streams.dtype)
    if out.numel():
        with torch.cuda.device_of(streams):
            _forward[rows.programs(tokens, dim)](
                *(streams, h_pre, out, dim),
                *(n, rows.lanes, rows.vector, rows.steps),
                num_warps=rows.num_warps,
            )
    return out


def backward(grad: Tensor, streams: Tensor, h_pre: Tensor, config: Rows | None = None) -> tuple[Tensor, Tensor]:
    """[T, C] grad -> [T, n, C] grad_streams, [T, n] grad_h_pre; moves (2n + 1) C elements a token."""
    check(streams, grad, h_pre)
    tokens, n, dim = streams.shape
    grad_streams, grad_h_pre = torch.empty_like(streams), torch.empty_like(h_pre)
    rows = config or choose_rows(dim, streams.dtype)
    if tokens:
        with torch.cuda.device_of(streams):
            _backward[(tokens,)](
                *(grad, streams, h_pre, grad_streams, grad_h_pre, dim),
                *(n, rows.lanes, rows.vector),
                num_warps=rows.num_warps,
            )
    return grad_streams, grad_h_pre


@triton.jit
def channels_of(block, LANES: tl.constexpr, VECTOR: tl.constexpr):
    """[LANES, VECTOR]: the channels of a block; a row of the tile is what one thread loads at once."""
    return block * (LANES * VECTOR) + (tl.arange(0, LANES) * VECTOR)[:, None] + tl.arange(0, VECTOR)[None, :]


@triton.jit
def blocks_of(dim, LANES: tl.constexpr, VECTOR: tl.constexpr, STEPS: tl.constexpr):
    """The token of this program, its first block, and the first block that is not its own."""
    blocks = tl.cdiv(dim, LANES * VECTOR)
    parts = tl.cdiv(blocks, STEPS)
    first = (tl.program_id(0) % parts) * STEPS
    return (tl.program_id(0) // parts).to(tl.int64), first, tl.minimum(first + STEPS, blocks)


@triton.jit
def _forward(streams, h_pre, out, dim, n: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr, STEPS: tl.constexpr):
    token, first, last = blocks_of(dim, LANES, VECTOR, STEPS)
    for block in range(first, last):
        channel = channels_of(block, LANES, VECTOR)
        mask = channel < dim
        total = tl.zeros([LANES, VECTOR], tl.float32)
        for i in tl.static_range(n):
            row = tl.load(streams + (token * n + i) * dim + channel, mask=mask, other=0.0).to(tl.float32)
            total += tl.load(h_pre + token * n + i).to(tl.float32) * row
        tl.store(out + token * dim + channel, total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _backward(
    grad, streams, h_pre, grad_streams, grad_h_pre, dim, n: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    sums = ()
    for _ in tl.static_range(n):
        sums += (tl.zeros([LANES], tl.float32),)
    for block in range(tl.cdiv(dim, LANES * VECTOR)):
        channel = channels_of(block, LANES, VECTOR)
        mask = channel < dim
        g = tl.load(grad + token * dim + channel, mask=mask, other=0.0).to(tl.float32)
        rows = ()  # all loads before the first store, which no load may overtake
        for i in tl.static_range(n):
            rows += (tl.load(streams + (token * n + i) * dim + channel, mask=mask, other=0.0),)
        added = ()
        for i in tl.static_range(n):
            added += (sums[i] + tl.sum(rows[i].to(tl.float32) * g, 1),)
            weight = tl.load(h_pre + token * n + i).to(tl.float32)
            offset = (token * n + i) * dim + channel
            tl.store(grad_streams + offset, (weight * g).to(grad_streams.dtype.element_ty), mask=mask)
        sums = added
    for i in tl.static_range(n):
        tl.store(grad_h_pre + token * n + i, tl.sum(sums[i], 0).to(grad_h_pre.dtype.element_ty))


def variants() -> list[KernelVariant]:
    """Every kernel as a launch makes it, at a width that is a multiple of 16."""
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        stream = POINTERS[dtype]
        for n, dim in ((1, 4096), (2, 4096), (4, 4096), (4, 1280), (8, 4096), (16, 4096)):
            rows = choose_rows(dim, dtype)
            constants = {"n": n, "LANES": rows.lanes, "VECTOR": rows.vector}
            forward_constants = constants | {"STEPS": rows.steps}
            forward_types = {"streams": stream, "h_pre": "*fp32", "out": stream, "dim": "i32"}
            backward_types = {"grad": stream, "grad_streams": stream, "grad_h_pre": "*fp32"} | forward_types
            del backward_types["out"]
            for name, kernel, types, fixed in (
                ("forward", _forward, forward_types, forward_constants),
                ("backward", _backward, backward_types, constants),
            ):
                label = f"read {name} {stream[1:]} n={n} {rows.lanes} lanes"
                found.append(KernelVariant(label, kernel, types, fixed, tuple(types), rows.num_warps))
    return found
