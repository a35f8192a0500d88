"""The forward kernels of the coefficients: one pass over the streams, the rest of Eq. 14-19 behind it."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# Triton reads the annotations of a device function: there can be none but tl.constexpr.
from __future__ import annotations

from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhc_lab.ops.coefficients.gpu_columns import (
    Columns,
    check_inputs,
    processors,
    register_options,
    rest_columns,
    small_tokens,
)
from mhc_lab.ops.coefficients.reference import NORM_EPS
from mhc_lab.ops.tiles import (
    ALL_REGISTERS,
    activate,
    dot_wide,
    inside,
    launchable,
    load_matrices,
    precision_for,
    sinkhorn_tile,
)

_NORM_EPS = tl.constexpr(NORM_EPS)


@dataclass(frozen=True)
class Config:
    """How the forward is cut: tokens and channels a step, and parts of the n C channels that are summed apart.

    fused: what follows the projection is done by the same kernel; only without parts, and where registers allow it.
    """

    tokens: int
    channels: int
    splits: int
    fused: bool
    num_warps: int
    num_stages: int
    options: dict[str, int] = field(default_factory=dict)


def choose_config(tokens: int, size: int, columns: Columns, dtype: torch.dtype, processor_count: int = 132) -> Config:
    """For [tokens, size] streams on a GPU of so many multiprocessors.

    Many tokens a program, since each one reads all of phi from the L2 cache; where that leaves too few programs
    to keep memory busy (two a multiprocessor), the channels are split and a second kernel adds the parts up.
    """
    width = columns.gates + columns.rest
    rows = 32 if width > 128 else 64
    channels = (32 if width > 128 else 64) // (2 if dtype == torch.float32 else 1)
    blocks = triton.cdiv(tokens, rows)
    most = max(1, size // (4 * channels))  # at least four steps a program
    splits = max(1, min(2 * processor_count // blocks, most, 32))
    warps = 8 if width > 64 else 4
    stages = 2 if width > 128 else 3
    fused = splits == 1 and width <= 128
    return Config(rows, channels, splits, fused, warps, stages, register_options(columns, dtype))


def forward(
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    pre: int,
    post: int,
    read_eps: float,
    t_max: int,
    convention: str,
    config: Config | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The coefficients of [T, n, C] streams; arguments as in `ops.coefficients`, all contiguous.

    streams bf16, fp16 or fp32; phi [n C, m], alpha and bias [m] fp32; n <= 16.

    Returns:
        values [T, m], projected [T, m] (before alpha and bias) and inverse_rms [T], fp32.
    """
    columns = check_inputs(streams, phi, alpha, bias, pre, post, t_max, convention)
    tokens, size = streams.shape[0], phi.shape[0]
    values = torch.empty((tokens, columns.m), dtype=torch.float32, device=streams.device)
    projected, inverse_rms = torch.empty_like(values), values.new_empty(tokens)
    if tokens == 0:
        return values, projected, inverse_rms
    config = config or choose_config(tokens, size, columns, streams.dtype, processors(streams.device))
    span = triton.cdiv(triton.cdiv(size, config.channels), config.splits) * config.channels
    splits = triton.cdiv(size, span)
    fused = config.fused and splits == 1
    # The parts of the sums: [splits, T, m] and [splits, T].
    partial = values if fused else values.new_empty(splits * tokens * columns.m)
    squares = inverse_rms if fused else values.new_empty(splits * tokens)
    after = (alpha, bias, values, projected, inverse_rms)
    constants = {**columns.constants(), "V4": convention == "v4"}
    with torch.cuda.device_of(streams):
        _project[(triton.cdiv(tokens, config.tokens), splits)](
            streams,
            phi,
            partial,
            squares,
            *after,
            tokens,
            size,
            span,
            read_eps,
            t_max,
            **constants,
            BT=config.tokens,
            BC=config.channels,
            FUSED=fused,
            PRECISION=precision_for(streams.dtype),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            **launchable(config.options),
        )
        if not fused:
            rows = small_tokens(columns)
            _finish[(triton.cdiv(tokens, rows),)](
                partial,
                squares,
                *after,
                tokens,
                size,
                splits,
                read_eps,
                t_max,
                **constants,
                BT=rows,
                num_warps=1,
                **launchable(ALL_REGISTERS),
            )
    return values, projected, inverse_rms


@triton.jit(do_not_specialize=["tokens", "t_max"])
def _project(
    streams,
    phi,
    partial,
    squares,
    alpha,
    bias,
    values,
    projected,
    inverse_rms,
    tokens,
    size,
    span,
    read_eps,
    t_max,
    m: tl.constexpr,
    pre: tl.constexpr,
    post: tl.constexpr,
    n: tl.constexpr,
    N: tl.constexpr,
    GATES: tl.constexpr,
    REST: tl.constexpr,
    SINKHORN: tl.constexpr,
    V4: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
    FUSED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sums over one part of the channels for BT tokens: x phi and |x|^2 (Eq. 14, 15)."""
    split = tl.program_id(1)
    token = tl.program_id(0) * BT + tl.arange(0, BT)
    live = token < tokens
    gate_column = tl.arange(0, GATES if GATES > 0 else 16)
    gate_live = gate_column < pre + post
    rest_column, rest_live = rest_columns(m - pre - post, n, N, REST if REST > 0 else 16, SINKHORN)
    gates = tl.zeros((BT, GATES if GATES > 0 else 16), tl.float32)
    rest = tl.zeros((BT, REST if REST > 0 else 16), tl.float32)
    square = tl.zeros((BT,), tl.float32)
    row = streams + token[:, None].to(tl.int64) * size  # [BT, 1]
    first = split * span
    for start in range(first, tl.minimum(first + span, size), BC):
        channel = start + tl.arange(0, BC)
        inner = channel < size
        x = tl.load(row + channel[None, :], mask=live[:, None] & inner[None, :], other=0.0)  # [BT, BC]
        weight = phi + channel[:, None] * m  # [BC, 1]
        if GATES > 0:
            w = tl.load(weight + gate_column[None, :], mask=inner[:, None] & gate_live[None, :], other=0.0)
            gates = dot_wide(x, w, gates, PRECISION)
        if REST > 0:
            w = tl.load(
                weight + (pre + post + rest_column)[None, :], mask=inner[:, None] & rest_live[None, :], other=0.0
            )
            rest = dot_wide(x, w, rest, PRECISION)
        wide = x.to(tl.float32)
        square += tl.sum(wide * wide, 1)
    at = split.to(tl.int64) * tokens + token
    if GATES > 0:
        mask = live[:, None] & gate_live[None, :]
        tl.store(partial + at[:, None] * m + gate_column[None, :], gates, mask=mask)
    if REST > 0:
        mask = live[:, None] & rest_live[None, :]
        tl.store(partial + at[:, None] * m + (pre + post + rest_column)[None, :], rest, mask=mask)
    tl.store(squares + at, square, mask=live)
    if FUSED:
        # Back from the L1 cache in the layout that suits Sinkhorn: each thread its own matrices.
        tl.debug_barrier()
        _add_and_finish(
            partial,
            squares,
            alpha,
            bias,
            values,
            projected,
            inverse_rms,
            token,
            tokens,
            size,
            1,
            read_eps,
            t_max,
            m,
            pre,
            post,
            n,
            N,
            GATES,
            REST,
            SINKHORN,
            V4,
        )


@triton.jit(do_not_specialize=["tokens", "splits", "t_max"])
def _finish(
    partial,
    squares,
    alpha,
    bias,
    values,
    projected,
    inverse_rms,
    tokens,
    size,
    splits,
    read_eps,
    t_max,
    m: tl.constexpr,
    pre: tl.constexpr,
    post: tl.constexpr,
    n: tl.constexpr,
    N: tl.constexpr,
    GATES: tl.constexpr,
    REST: tl.constexpr,
    SINKHORN: tl.constexpr,
    V4: tl.constexpr,
    BT: tl.constexpr,
):
    """Behind a `_project` that was split: the parts are added in their order."""
    token = tl.program_id(0) * BT + tl.arange(0, BT)
    _add_and_finish(
        partial,
        squares,
        alpha,
        bias,
        values,
        projected,
        inverse_rms,
        token,
        tokens,
        size,
        splits,
        read_eps,
        t_max,
        m,
        pre,
        post,
        n,
        N,
        GATES,
        REST,
        SINKHORN,
        V4,
    )


@triton.jit
def _add_and_finish(
    partial,
    squares,
    alpha,
    bias,
    values,
    projected,
    inverse_rms,
    token,
    tokens,
    size,
    splits,
    read_eps,
    t_max,
    m: tl.constexpr,
    pre: tl.constexpr,
    post: tl.constexpr,
    n: tl.constexpr,
    N: tl.constexpr,
    GATES: tl.constexpr,
    REST: tl.constexpr,
    SINKHORN: tl.constexpr,
    V4: tl.constexpr,
):
    """Adds up the parts of the sums of some tokens and takes them through Eq. 16-19."""
    BT: tl.constexpr = token.shape[0]
    live = token < tokens
    gate_column = tl.arange(0, GATES if GATES > 0 else 16)
    rest_column = tl.arange(0, REST if REST > 0 else 16)
    gates = tl.zeros((BT, GATES if GATES > 0 else 16), tl.float32)
    rest = tl.zeros((BT, N, N), tl.float32) if SINKHORN else tl.zeros((BT, REST if REST > 0 else 16), tl.float32)
    square = tl.zeros((BT,), tl.float32)
    row = token.to(tl.int64)
    for _ in range(splits):
        if GATES > 0:
            mask = live[:, None] & (gate_column < pre + post)[None, :]
            gates += tl.load(partial + row[:, None] * m + gate_column[None, :], mask=mask, other=0.0)
        if SINKHORN:
            rest += load_matrices(partial + pre + post, m, token, tokens, n, N)
        elif REST > 0:
            column = pre + post + rest_column
            mask = live[:, None] & (column < m)[None, :]
            rest += tl.load(partial + row[:, None] * m + column[None, :], mask=mask, other=0.0)
        square += tl.load(squares + row, mask=live, other=0.0)
        partial += tokens * m
        squares += tokens
    # In a fused launch the sums stand where results will: all must have been read.
    tl.debug_barrier()
    scale = tl.rsqrt(square / size + _NORM_EPS)
    tl.store(inverse_rms + token, scale, mask=live)
    at = row * m
    if GATES > 0:
        column = tl.arange(0, GATES)
        inner = column < pre + post
        mask = live[:, None] & inner[None, :]
        normed = gates * scale[:, None]
        tl.store(projected + at[:, None] + column[None, :], normed, mask=mask)
        raw = normed * tl.load(alpha + column, mask=inner, other=0.0)[None, :]
        raw += tl.load(bias + column, mask=inner, other=0.0)[None, :]
        tl.store(values + at[:, None] + column[None, :], activate(raw, column[None, :], pre, post, read_eps), mask=mask)
    if SINKHORN:
        index = tl.arange(0, N)
        column = pre + post + index[None, :, None] * n + index[None, None, :]
        inner = inside(n, N)
        mask = live[:, None, None] & inner
        normed = rest * scale[:, None, None]
        tl.store(projected + at[:, None, None] + column, normed, mask=mask)
        raw = normed * tl.load(alpha + column, mask=inner, other=0.0) + tl.load(bias + column, mask=inner, other=0.0)
        tl.store(values + at[:, None, None] + column, sinkhorn_tile(raw, n, N, t_max, V4), mask=mask)
    elif REST > 0:
        column = pre + post + tl.arange(0, REST)
        inner = column < m
        mask = live[:, None] & inner[None, :]
        normed = rest * scale[:, None]
        tl.store(projected + at[:, None] + column[None, :], normed, mask=mask)
        raw = normed * tl.load(alpha + column, mask=inner, other=0.0)[None, :]
        raw += tl.load(bias + column, mask=inner, other=0.0)[None, :]
        tl.store(values + at[:, None] + column[None, :], raw, mask=mask)
