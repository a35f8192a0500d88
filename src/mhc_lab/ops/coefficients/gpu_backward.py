"""The backward kernels of the coefficients: logits first, then both matmuls with one load of the streams."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# Triton reads the annotations of a device function: there can be none but tl.constexpr.
from __future__ import annotations

from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhc_lab.ops.coefficients.gpu_columns import Columns, check_inputs, processors, register_options, small_tokens
from mhc_lab.ops.tiles import (
    ALL_REGISTERS,
    activate_slope,
    dot_wide,
    inside,
    launchable,
    load_matrices,
    precision_for,
    sinkhorn_tile_backward,
)

REDUCED = 1024  # entries a program of the last kernel


@dataclass(frozen=True)
class Config:
    """How the backward is cut: channels a program, tokens a step, and groups of tokens that are summed apart."""

    channels: int
    tokens: int
    groups: int
    num_warps: int
    num_stages: int
    options: dict[str, int] = field(default_factory=dict)


def choose_config(tokens: int, size: int, columns: Columns, dtype: torch.dtype, processor_count: int = 132) -> Config:
    """For [tokens, size] streams on a GPU of so many multiprocessors.

    A program owns some channels for a group of tokens, so that its part of phi stays on chip. More groups fill the
    GPU; each writes a partial gradient of phi, so a group holds at least 256 tokens.
    """
    width = columns.gates + dense_rest(columns)
    if width <= 32:
        channels, rows, warps = 64, 32, 4
    elif width <= 128:
        channels, rows, warps = 32, 16 if dtype == torch.float32 else 32, 4
    else:
        channels, rows, warps = 16, 16, 8
    blocks = triton.cdiv(size, channels)
    groups = max(1, min(triton.cdiv(2 * processor_count, blocks), tokens // 256, 64))
    stages = 3 if width <= 32 else 2
    return Config(channels, rows, groups, warps, stages, register_options(columns, dtype))


def precision(columns: Columns, dtype: torch.dtype) -> str:
    """The products' precision; many columns of fp32 leave no registers for the parts of "bf16x6"."""
    wide = columns.gates + dense_rest(columns) > 128
    return "ieee" if wide and dtype == torch.float32 else precision_for(dtype)


def dense_rest(columns: Columns) -> int:
    """Width of the tile of the rest where it is not seen as matrices."""
    return Columns(columns.m, columns.pre, columns.post, columns.n, sinkhorn=False).rest


def backward(
    grad_values: Tensor,
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    projected: Tensor,
    inverse_rms: Tensor,
    pre: int,
    post: int,
    t_max: int,
    convention: str,
    config: Config | None = None,
    atomic: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `forward` at streams [T, n, C], phi [n C, m], alpha and bias [m]; all arguments contiguous.

    Args:
        grad_values: [T, m] fp32. projected [T, m], inverse_rms [T]: what the forward returned.
        atomic: add the groups' gradients of phi, alpha and bias up in the order in which they come, which saves the
            workspace [groups, n C + 2, m] but changes the last bits from run to run.

    Returns:
        grad_streams in the dtype of the streams, and grad_phi, grad_alpha, grad_bias in fp32.
    """
    columns = check_inputs(streams, phi, alpha, bias, pre, post, t_max, convention)
    tokens, size, m = streams.shape[0], phi.shape[0], columns.m
    assert grad_values.shape == projected.shape == (tokens, m) and inverse_rms.shape == (tokens,)
    assert all(x.is_contiguous() and x.dtype == torch.float32 for x in (grad_values, projected, inverse_rms))
    if tokens == 0 or m == 0:
        return torch.zeros_like(streams), torch.zeros_like(phi), torch.zeros_like(alpha), torch.zeros_like(bias)
    config = config or choose_config(tokens, size, columns, streams.dtype, processors(streams.device))
    grad_raw, pull = torch.empty_like(projected), torch.empty_like(inverse_rms)
    grad_streams, grad_phi = torch.empty_like(streams), torch.empty_like(phi)
    grad_alpha, grad_bias = torch.empty_like(alpha), torch.empty_like(bias)
    span = triton.cdiv(triton.cdiv(tokens, config.tokens), config.groups) * config.tokens
    groups = triton.cdiv(tokens, span)
    parts = (1, size + 2, m) if atomic else (groups, size + 2, m)
    partial = phi.new_zeros(parts) if atomic else phi.new_empty(parts)
    rows = small_tokens(columns)
    dense = {**columns.constants(), "REST": dense_rest(columns)}
    with torch.cuda.device_of(streams):
        _grad_raw[(triton.cdiv(tokens, rows),)](
            grad_values,
            projected,
            inverse_rms,
            alpha,
            bias,
            grad_raw,
            pull,
            tokens,
            size,
            t_max,
            **columns.constants(),
            V4=convention == "v4",
            BT=rows,
            CHUNK=chunk(columns),
            num_warps=1,
            **launchable(ALL_REGISTERS),
        )
        _grad_streams[(1 + triton.cdiv(size, config.channels), groups)](
            streams,
            phi,
            alpha,
            projected,
            inverse_rms,
            grad_raw,
            pull,
            grad_streams,
            partial,
            tokens,
            size,
            span,
            m=m,
            GATED=pre + post,
            GATES=dense["GATES"],
            REST=dense["REST"],
            BT=config.tokens,
            BC=config.channels,
            ATOMIC=atomic,
            PRECISION=precision(columns, streams.dtype),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            **launchable(config.options),
        )
        _reduce[(triton.cdiv((size + 2) * m, REDUCED),)](
            partial, grad_phi, grad_alpha, grad_bias, parts[0], size, m=m, BLOCK=REDUCED, num_warps=4
        )
    return grad_streams, grad_phi, grad_alpha, grad_bias


def chunk(columns: Columns) -> int:
    """Iterations whose sums Sinkhorn's backward keeps: as many as fit into registers."""
    return 10 if columns.n == 4 else 2


@triton.jit(do_not_specialize=["tokens", "t_max"])
def _grad_raw(
    grad_values,
    projected,
    inverse_rms,
    alpha,
    bias,
    grad_raw,
    pull,
    tokens,
    size,
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
    CHUNK: tl.constexpr,
):
    """Back through Eq. 16-19: the gradient by the logits [T, m], and how hard the norm pulls on x [T].

    d(1/rms)/dx = -x / (n C rms^3), and `projected` holds one factor 1/rms: grad_x loses pull * x.
    """
    token = tl.program_id(0) * BT + tl.arange(0, BT)
    live = token < tokens
    at = token.to(tl.int64) * m
    total = tl.zeros((BT,), tl.float32)  # grad_projected . projected
    if GATES > 0:
        column = tl.arange(0, GATES)
        inner = column < pre + post
        mask = live[:, None] & inner[None, :]
        place = at[:, None] + column[None, :]
        p = tl.load(projected + place, mask=mask, other=0.0)
        a = tl.load(alpha + column, mask=inner, other=0.0)[None, :]
        b = tl.load(bias + column, mask=inner, other=0.0)[None, :]
        grad = tl.load(grad_values + place, mask=mask, other=0.0)
        grad *= activate_slope(a * p + b, column[None, :], pre, post)
        tl.store(grad_raw + place, grad, mask=mask)
        total += tl.sum(grad * a * p, 1)
    if SINKHORN:
        index = tl.arange(0, N)
        entry = pre + post + index[None, :, None] * n + index[None, None, :]
        inner = inside(n, N)
        p = load_matrices(projected + pre + post, m, token, tokens, n, N)
        a = tl.load(alpha + entry, mask=inner, other=0.0)
        b = tl.load(bias + entry, mask=inner, other=0.0)
        grad = load_matrices(grad_values + pre + post, m, token, tokens, n, N)
        grad = sinkhorn_tile_backward(a * p + b, grad, n, N, t_max, V4, CHUNK)
        tl.store(grad_raw + at[:, None, None] + entry, grad, mask=live[:, None, None] & inner)
        total += tl.sum(tl.sum(grad * a * p, 2), 1)
    elif REST > 0:
        column = pre + post + tl.arange(0, REST)
        inner = column < m
        mask = live[:, None] & inner[None, :]
        place = at[:, None] + column[None, :]
        p = tl.load(projected + place, mask=mask, other=0.0)
        a = tl.load(alpha + column, mask=inner, other=0.0)[None, :]
        grad = tl.load(grad_values + place, mask=mask, other=0.0)
        tl.store(grad_raw + place, grad, mask=mask)
        total += tl.sum(grad * a * p, 1)
    scale = tl.load(inverse_rms + token, mask=live, other=0.0)
    tl.store(pull + token, total * scale * scale / size, mask=live)


@triton.jit(do_not_specialize=["tokens"])
def _grad_streams(
    streams,
    phi,
    alpha,
    projected,
    inverse_rms,
    grad_raw,
    pull,
    grad_streams,
    partial,
    tokens,
    size,
    span,
    m: tl.constexpr,
    GATED: tl.constexpr,
    GATES: tl.constexpr,
    REST: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
    ATOMIC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One group of tokens: BC channels of grad_streams and of the partial grad_phi, each stream loaded once.

    The first program of a group sums alpha's and bias's gradients instead, into the two rows behind phi's.
    """
    group = tl.program_id(1)
    block = tl.program_id(0) - 1
    first = group * span
    last = tl.minimum(first + span, tokens)
    part = partial if ATOMIC else partial + group.to(tl.int64) * (size + 2) * m
    gate_column = tl.arange(0, GATES if GATES > 0 else 16)
    rest_column = GATED + tl.arange(0, REST if REST > 0 else 16)
    gate_live = gate_column < GATED
    rest_live = rest_column < m
    if block < 0:
        if GATES > 0:
            _sum_tokens(part + size * m, grad_raw, projected, first, last, gate_column, gate_live, m, BT, GATES, ATOMIC)
        if REST > 0:
            _sum_tokens(part + size * m, grad_raw, projected, first, last, rest_column, rest_live, m, BT, REST, ATOMIC)
    else:
        channel = block * BC + tl.arange(0, BC)
        inner = channel < size
        across = phi + channel[None, :] * m  # [1, BC]
        if GATES > 0:
            gate_phi = tl.load(across + gate_column[:, None], mask=gate_live[:, None] & inner[None, :], other=0.0)
            gate_alpha = tl.load(alpha + gate_column, mask=gate_live, other=0.0)
            gate_sum = tl.zeros((BC, GATES), tl.float32)
        if REST > 0:
            rest_phi = tl.load(across + rest_column[:, None], mask=rest_live[:, None] & inner[None, :], other=0.0)
            rest_alpha = tl.load(alpha + rest_column, mask=rest_live, other=0.0)
            rest_sum = tl.zeros((BC, REST), tl.float32)
        # The product of two fp32 factors goes to a 16-bit gradient: tf32 is finer than its rounding.
        NARROW: tl.constexpr = "tf32" if PRECISION == "split" else PRECISION
        for start in range(first, last, BT):
            token = start + tl.arange(0, BT)
            live = token < last
            at = token.to(tl.int64)
            place = at[:, None] * size + channel[None, :]
            mask = live[:, None] & inner[None, :]
            x = tl.load(streams + place, mask=mask, other=0.0)  # [BT, BC]
            scale = tl.load(inverse_rms + token, mask=live, other=0.0)[:, None]
            grad = tl.zeros((BT, BC), tl.float32)
            if GATES > 0:
                g = tl.load(
                    grad_raw + at[:, None] * m + gate_column[None, :],
                    mask=live[:, None] & gate_live[None, :],
                    other=0.0,
                )
                g = g * gate_alpha[None, :] * scale
                grad = dot_wide(g, gate_phi, grad, NARROW)
                gate_sum = dot_wide(tl.trans(x), g, gate_sum, PRECISION)
            if REST > 0:
                g = tl.load(
                    grad_raw + at[:, None] * m + rest_column[None, :],
                    mask=live[:, None] & rest_live[None, :],
                    other=0.0,
                )
                g = g * rest_alpha[None, :] * scale
                grad = dot_wide(g, rest_phi, grad, NARROW)
                rest_sum = dot_wide(tl.trans(x), g, rest_sum, PRECISION)
            grad -= tl.load(pull + token, mask=live, other=0.0)[:, None] * x.to(tl.float32)
            tl.store(grad_streams + place, grad.to(grad_streams.dtype.element_ty), mask=mask)
        if GATES > 0:
            to = part + channel[:, None] * m + gate_column[None, :]
            _add_up(to, gate_sum, inner[:, None] & gate_live[None, :], ATOMIC)
        if REST > 0:
            to = part + channel[:, None] * m + rest_column[None, :]
            _add_up(to, rest_sum, inner[:, None] & rest_live[None, :], ATOMIC)


@triton.jit
def _sum_tokens(
    to,
    grad_raw,
    projected,
    first,
    last,
    column,
    column_live,
    m: tl.constexpr,
    BT: tl.constexpr,
    W: tl.constexpr,
    ATOMIC: tl.constexpr,
):
    """Sums over a group's tokens of grad_raw * projected and of grad_raw: [2, m] from `to` on."""
    by_alpha = tl.zeros((BT, W), tl.float32)
    by_bias = tl.zeros((BT, W), tl.float32)
    for start in range(first, last, BT):
        token = start + tl.arange(0, BT)
        place = token.to(tl.int64)[:, None] * m + column[None, :]
        mask = (token < last)[:, None] & column_live[None, :]
        g = tl.load(grad_raw + place, mask=mask, other=0.0)
        by_alpha += g * tl.load(projected + place, mask=mask, other=0.0)
        by_bias += g
    _add_up(to + column, tl.sum(by_alpha, 0), column_live, ATOMIC)
    _add_up(to + m + column, tl.sum(by_bias, 0), column_live, ATOMIC)


@triton.jit
def _add_up(to, value, mask, ATOMIC: tl.constexpr):
    if ATOMIC:
        tl.atomic_add(to, value, mask=mask, sem="relaxed")
    else:
        tl.store(to, value, mask=mask)


@triton.jit(do_not_specialize=["parts"])
def _reduce(partial, grad_phi, grad_alpha, grad_bias, parts, size, m: tl.constexpr, BLOCK: tl.constexpr):
    """Adds the groups' parts [parts, size + 2, m] up in their order."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    whole = (size + 2) * m
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(parts):
        total += tl.load(partial + place, mask=place < whole, other=0.0)
        partial += whole
    edge = size * m
    tl.store(grad_phi + place, total, mask=place < edge)
    tl.store(grad_alpha + place - edge, total, mask=(place >= edge) & (place < edge + m))
    tl.store(grad_bias + place - edge - m, total, mask=(place >= edge + m) & (place < whole))
