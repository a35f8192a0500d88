"""Triton kernels of write_read's backward, launched by `gpu_backward.py`.

1. `back_to_projection`: the gradient of H_pre, a sum over the channels, then back through Sinkhorn, activations, alpha,
   bias and norm to [T, m]. Moves (n + 1) C elements a token.
2. `back_to_streams`: the whole gradient by x', and the write's backward from it. x' is computed again from x and F,
   which are needed anyway: (3n + 3) C. A program owns a block of tokens, and so their sums over the channels.
3. `back_to_phi`: a program owns rows of phi and walks along its part of the tokens: n C.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: disable-error-code="assignment, operator, var-annotated"
from __future__ import annotations

import triton
import triton.language as tl

from mhc_lab.ops.tiles import activate_slope, dot_wide, sinkhorn_tile_backward
from mhc_lab.ops.write_read.gpu_tiles import mixed_row, settled, weight_columns


@triton.jit(do_not_specialize=["tokens", "t_max"])
def back_to_projection(
    grad_hidden,
    grad_values,
    written,
    alpha,
    bias,
    projected,
    inverse_rms,
    grad_raw,
    grad_projected,
    pull,
    sums,
    tokens,
    dim,
    t_max,
    n: tl.constexpr,
    N: tl.constexpr,
    m: tl.constexpr,
    M: tl.constexpr,
    POST: tl.constexpr,
    SINKHORN: tl.constexpr,
    V4: tl.constexpr,
    BT: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """grad_projected [T, m]: by x' phi, the norm's factor in; pull [T]: the norm's part is -pull x'."""
    token = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    live = token < tokens
    column = tl.arange(0, M)

    by_pre = ()
    for _ in tl.static_range(n):
        by_pre += (tl.zeros([BT], tl.float32),)
    for block in range(tl.cdiv(dim, CHANNELS)):
        channel = block * CHANNELS + tl.arange(0, CHANNELS)
        mask = live[:, None] & (channel < dim)[None, :]
        g = tl.load(grad_hidden + token[:, None] * dim + channel[None, :], mask=mask, other=0.0).to(tl.float32)
        row = written + token[:, None] * (n * dim) + channel[None, :]
        added = ()
        for i in tl.static_range(n):
            added += (by_pre[i] + tl.sum(tl.load(row + i * dim, mask=mask, other=0.0).to(tl.float32) * g, 1),)
        by_pre = added

    packed = token[:, None] * m + column[None, :]
    in_pack = live[:, None] & (column < m)[None, :]
    product = tl.load(projected + packed, mask=in_pack, other=0.0)
    scale = tl.load(alpha + column, mask=column < m, other=0.0)
    shift = tl.load(bias + column, mask=column < m, other=0.0)
    grad = tl.load(grad_values + packed, mask=in_pack, other=0.0).to(tl.float32)
    for i in tl.static_range(n):
        grad += tl.where(column[None, :] == i, by_pre[i][:, None], 0.0)
    grad *= activate_slope(product * scale[None, :] + shift[None, :], column[None, :], n, POST)

    if SINKHORN:
        index = tl.arange(0, N)
        entry = n + POST + index[:, None] * n + index[None, :]
        inside = (index[:, None] < n) & (index[None, :] < n)
        deep = token[:, None, None] * m + entry[None, :, :]
        in_deep = live[:, None, None] & inside[None, :, :]
        logits = tl.load(projected + deep, mask=in_deep, other=0.0)
        logits *= tl.load(alpha + entry, mask=inside, other=0.0)[None, :, :]
        logits += tl.load(bias + entry, mask=inside, other=0.0)[None, :, :]
        by_res = tl.load(grad_values + deep, mask=in_deep, other=0.0).to(tl.float32)
        by_logits = sinkhorn_tile_backward(logits, by_res, n, N, t_max, V4)
        tl.store(grad_raw + deep, by_logits, mask=in_deep)
        tl.debug_barrier()  # below, threads read what other threads of this program have stored
        res = column >= n + POST
        grad = tl.where(res[None, :], tl.load(grad_raw + packed, mask=in_pack & res[None, :], other=0.0), grad)
        grad = tl.where(in_pack, grad, 0.0)

    inverse = tl.load(inverse_rms + token, mask=live, other=0.0)
    by_product = grad * scale[None, :]
    tl.store(grad_projected + packed, by_product * inverse[:, None], mask=in_pack)
    tl.store(pull + token, tl.sum(by_product * product, 1) * inverse * inverse / (n * dim), mask=live)
    place = sums + tl.program_id(0) * (2 * m) + column
    tl.store(place, tl.sum(grad * product, 0), mask=column < m)
    tl.store(place + m, tl.sum(grad, 0), mask=column < m)


@triton.jit(do_not_specialize=["tokens"])
def back_to_streams(
    grad_written,
    grad_hidden,
    streams,
    output,
    weights,
    h_res,
    values,
    phi,
    grad_projected,
    pull,
    grad_streams,
    grad_output,
    grad_weights,
    grad_h_res,
    tokens,
    dim,
    n: tl.constexpr,
    N: tl.constexpr,
    m: tl.constexpr,
    M: tl.constexpr,
    STRIDE: tl.constexpr,
    POST_AT: tl.constexpr,
    RES_STRIDE: tl.constexpr,
    RES_AT: tl.constexpr,
    PRECISION: tl.constexpr,
    BT: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The write's backward from the whole gradient by x', which is summed here; x' is computed again."""
    MIXED: tl.constexpr = RES_AT >= 0
    token = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    live = token < tokens
    column = tl.arange(0, M)
    post = weight_columns(weights, token, live, STRIDE, POST_AT, n, N)
    res = weight_columns(h_res, token, live, RES_STRIDE, RES_AT, n * n if MIXED else 0, N * N)
    pre = weight_columns(values, token, live, m, 0, n, N)
    back = weight_columns(pull, token, live, 1, 0, 1, 2)
    by_product = tl.load(
        grad_projected + token[:, None] * m + column[None, :], mask=live[:, None] & (column < m)[None, :], other=0.0
    )
    post_sums, res_sums = (), ()
    for _ in tl.static_range(n):
        post_sums += (tl.zeros([BT], tl.float32),)
    for _ in tl.static_range(n * n if MIXED else 0):
        res_sums += (tl.zeros([BT], tl.float32),)

    for block in range(tl.cdiv(dim, CHANNELS)):
        channel = block * CHANNELS + tl.arange(0, CHANNELS)
        in_row = channel < dim
        mask = live[:, None] & in_row[None, :]
        flat = token[:, None] * dim + channel[None, :]
        row = token[:, None] * (n * dim) + channel[None, :]
        y = tl.load(output + flat, mask=mask, other=0.0).to(tl.float32)
        by_hidden = tl.load(grad_hidden + flat, mask=mask, other=0.0).to(tl.float32)
        x, g = (), ()
        for j in tl.static_range(n):
            x += (tl.load(streams + row + j * dim, mask=mask, other=0.0),)
        for i in tl.static_range(n):
            g += (tl.load(grad_written + row + i * dim, mask=mask, other=0.0),)

        by_y = tl.zeros([BT, CHANNELS], tl.float32)
        by_x, added_post, added_res = (), (), ()
        for _ in tl.static_range(n):
            by_x += (tl.zeros([BT, CHANNELS], tl.float32),)
        for i in tl.static_range(n):
            weight = tl.load(  # [M, CHANNELS]
                phi + (i * dim + channel)[None, :] * m + column[:, None],
                mask=in_row[None, :] & (column < m)[:, None],
                other=0.0,
            )
            total = settled(tl.dot(by_product, weight, input_precision=PRECISION))
            tile = mixed_row(x, y, post, res, i, n, MIXED).to(streams.dtype.element_ty).to(tl.float32)
            total += g[i].to(tl.float32) + pre[i][:, None] * by_hidden - back[0][:, None] * tile
            by_y += post[i][:, None] * total
            added_post += (post_sums[i] + tl.sum(total * y, 1),)
            mixed = ()
            for j in tl.static_range(n):
                if MIXED:
                    added_res += (res_sums[i * n + j] + tl.sum(total * x[j].to(tl.float32), 1),)
                    mixed += (by_x[j] + res[i * n + j][:, None] * total,)
                else:
                    mixed += (total if i == j else by_x[j],)
            by_x = mixed
        post_sums, res_sums = added_post, added_res
        tl.store(grad_output + flat, by_y.to(grad_output.dtype.element_ty), mask=mask)
        for j in tl.static_range(n):
            tl.store(grad_streams + row + j * dim, by_x[j].to(grad_streams.dtype.element_ty), mask=mask)

    for i in tl.static_range(n):
        tl.store(grad_weights + token * STRIDE + POST_AT + i, post_sums[i], mask=live)
    for k in tl.static_range(n * n if MIXED else 0):
        tl.store(grad_h_res + token * RES_STRIDE + RES_AT + k, res_sums[k], mask=live)


@triton.jit(do_not_specialize=["tokens", "span"])
def back_to_phi(
    written,
    grad_projected,
    parts,
    tokens,
    span,
    size,
    m: tl.constexpr,
    M: tl.constexpr,
    PRECISION: tl.constexpr,
    BT: tl.constexpr,
    ROWS: tl.constexpr,
):
    """parts [.., n C, m]: x'^T grad_projected over the tokens [span * part, span * (part + 1))."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, M)
    part = tl.program_id(1).to(tl.int64)
    last = tl.minimum((part + 1) * span, tokens)
    total = tl.zeros([ROWS, M], tl.float32)
    for first in range(part * span, last, BT):
        token = first + tl.arange(0, BT)
        tile = tl.load(
            written + token[:, None] * size + row[None, :],
            mask=(token < last)[:, None] & (row < size)[None, :],
            other=0.0,
        )
        g = tl.load(
            grad_projected + token[:, None] * m + column[None, :],
            mask=(token < last)[:, None] & (column < m)[None, :],
            other=0.0,
        )
        total = dot_wide(tl.trans(tile), g, total, PRECISION)
    place = parts + (part * size + row)[:, None] * m + column[None, :]
    tl.store(place, total, mask=(row < size)[:, None] & (column < m)[None, :])
