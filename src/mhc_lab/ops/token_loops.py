"""The CPU kernels of a connection: one loop over blocks of tokens forward and one backward.

A block's streams lie in the cache from its write over its projection to its read, so that each pass touches memory
once. Every operation is a part of the two loops: `write`, `coefficients`, `read`, or all of them as `write_read`.
What belongs to coefficients is worked on side by side, in matrices [m, TOKENS], whose rows are vectors of tokens.

Arrays: rows of streams [T n, C] and the same memory as `flat` [T, n C]; phi transposed [m, n C]; the coefficients
packed [T, m] as in `ops.coefficients`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from mhc_lab.ops.coefficients.reference import NORM_EPS
from mhc_lab.ops.loops import TOKENS, inner, kernel
from mhc_lab.ops.matrices import at, columns, get, keep, matrix, number, put, shaped
from mhc_lab.ops.products import gram, mix
from mhc_lab.ops.sinkhorn.cpu import (
    gather,
    scatter,
    scratch_rows,
    scratch_width,
    sinkhorn_block,
    sinkhorn_block_backward,
)
from mhc_lab.ops.vector_functions import exp, total
from mhc_lab.ops.vectors import lanes, load, splat, spread, store


@kernel
def forward(
    writes: Any,
    streams: Any,
    output: Any,
    weights: Any,
    post_at: Any,
    res: Any,
    res_at: Any,
    written: Any,
    projects: Any,
    phi: Any,
    alpha: Any,
    bias: Any,
    pre: Any,
    gates: Any,
    read_eps: Any,
    n: Any,
    t_max: Any,
    eps: Any,
    projected: Any,
    inverse_rms: Any,
    values: Any,
    reads: Any,
    h_pre: Any,
    hidden: Any,
) -> None:
    """Where `writes`: streams -> written. Where `projects`: written -> values. Where `reads`: written, h_pre -> hidden.

    H_post lies in the columns of weights from `post_at` on, H_res in those of res from `res_at` on (below 0: I).
    """
    tokens = len(written) // n
    for block in prange((tokens + TOKENS - 1) // TOKENS):
        first = block * TOKENS
        count = min(TOKENS, tokens - first)
        if writes:
            _write(
                matrix(streams),
                matrix(output),
                matrix(weights),
                post_at,
                matrix(res),
                res_at,
                matrix(written),
                first,
                count,
                n,
            )
        if projects:
            beside = np.zeros((len(phi), TOKENS), values.dtype)
            scales = np.zeros((1, TOKENS), values.dtype)
            work = np.empty((scratch_rows(n, t_max), scratch_width(values)), values.dtype)
            products, scale = matrix(beside), matrix(scales)
            _project(
                shaped(matrix(written), n * written.shape[1]), first, count, matrix(phi), len(phi), products, scale
            )
            for b in range(count):
                inverse_rms[first + b] = get(scale, 0, b)
            scatter(products, len(phi), matrix(projected), first, count)
            _activate(products, len(phi), matrix(alpha), matrix(bias), pre, gates, read_eps)
            if t_max > 0:
                sinkhorn_block(at(products, gates, 0), count, n, t_max, eps, work)
            scatter(products, len(phi), matrix(values), first, count)
            keep(beside)
            keep(scales)
        if reads:
            _read(matrix(written), matrix(h_pre), matrix(hidden), first, count, n)


@inner
def _write(
    streams: Any,
    y: Any,
    weights: Any,
    post_at: Any,
    res: Any,
    res_at: Any,
    written: Any,
    first: Any,
    count: Any,
    n: Any,
) -> None:
    for token in range(first, first + count):
        x, out = at(streams, token * n, 0), at(written, token * n, 0)
        f, h_post = at(y, token, 0), at(weights, token, post_at)
        if res_at >= 0:
            mix(out, n, f, h_post, 1, x, n, at(res, token, res_at), n, 1)
        else:
            for i in range(n):
                _add(at(x, i, 0), spread(h_post, 0, i), f, at(out, i, 0))


@inner
def _add(x: Any, weight: Any, y: Any, out: Any) -> None:
    """out[0] = x[0] + weight y[0]."""
    step, dim, c = lanes(x), columns(x), 0
    while c + step <= dim:
        store(out, 0, c, None, load(x, 0, c, None) + weight * load(y, 0, c, None))
        c += step
    if c < dim:
        store(out, 0, c, dim - c, load(x, 0, c, dim - c) + weight * load(y, 0, c, dim - c))


@inner
def _project(flat: Any, first: Any, count: Any, phi: Any, width: Any, products: Any, scale: Any) -> None:
    """x phi, and the norm divided out behind it (mHC Eq. 14-16), of `count` tokens side by side."""
    for b in range(0, count, 4):
        gram(at(flat, first + b, 0), min(4, count - b), phi, width, at(products, 0, b), 1, TOKENS)
    for b in range(count):
        x = at(flat, first + b, 0)
        gram(x, 1, x, 1, at(scale, 0, b), 1, 1)
        put(scale, 0, b, 1 / np.sqrt(get(scale, 0, b) / number(flat, columns(flat)) + number(flat, NORM_EPS)))
    for k in range(width):
        for b in range(0, TOKENS, lanes(products)):
            store(products, k, b, None, load(products, k, b, None) * load(scale, 0, b, None))


@inner
def _activate(products: Any, width: Any, alpha: Any, bias: Any, pre: Any, gates: Any, read_eps: Any) -> None:
    one, shift = splat(number(products, 1)), splat(number(products, read_eps))
    for k in range(width):
        slope, offset = spread(alpha, 0, k), spread(bias, 0, k)
        for b in range(0, TOKENS, lanes(products)):
            x = slope * load(products, k, b, None) + offset
            if k < gates:
                s = one / (one + exp(one - one - x))
                x = s + shift if k < pre else s + s
            store(products, k, b, None, x)


@inner
def _read(written: Any, h_pre: Any, hidden: Any, first: Any, count: Any, n: Any) -> None:
    for token in range(first, first + count):
        x, w = at(written, token * n, 0), at(h_pre, token, 0)
        mix(at(hidden, token, 0), 1, x, w, 1, at(x, 1, 0), n - 1, at(w, 0, 1), 1, 1)


@kernel
def backward(
    writes: Any,
    streams: Any,
    output: Any,
    weights: Any,
    post_at: Any,
    res: Any,
    res_at: Any,
    written: Any,
    adds: Any,
    grad_written: Any,
    projects: Any,
    phi: Any,
    alpha: Any,
    bias: Any,
    pre: Any,
    gates: Any,
    n: Any,
    t_max: Any,
    eps: Any,
    projected: Any,
    inverse_rms: Any,
    grad: Any,
    reads: Any,
    h_pre: Any,
    grad_hidden: Any,
    grad_streams: Any,
    grad_output: Any,
    grad_weights: Any,
    grad_res: Any,
    parts: Any,
    phi_parts: Any,
    chunk: Any,
) -> None:
    """Where it `reads`, grad [T, m] gets the gradient by h_pre added to its first n columns.

    Where it `projects`, grad is that by the values; parts [chunks, 2, m] and phi_parts [chunks, m, n C] become the
    sums over `chunk` tokens each of the gradients by alpha, bias and phi. Where it `adds`, the written streams have a
    gradient of their own. Where it `writes`, the gradients by H_post and H_res go where these lie; else grad_streams
    is the one by `written`.
    """
    tokens, dim = len(written) // n, grad_streams.shape[1]
    for part in prange(len(parts)):
        parts[part] = 0
        phi_parts[part] = 0
        four = np.empty((4 * n, dim), grad.dtype)  # the gradient by the written streams, of four tokens
        pulls = np.zeros((1, TOKENS), grad.dtype)
        tables = np.zeros((3 * len(phi), TOKENS), grad.dtype)  # by the products; projected; logits
        work = np.empty((scratch_rows(n, t_max), scratch_width(grad)), grad.dtype)
        by_products, sums, by_phi = matrix(tables), matrix(parts[part]), matrix(phi_parts[part])
        stop = min((part + 1) * chunk, tokens)
        for first in range(part * chunk, stop, TOKENS):
            count = min(TOKENS, stop - first)
            if reads:
                _by_h_pre(matrix(grad_hidden), matrix(written), n, matrix(grad), first, count, matrix(four))
            if projects:
                gather(matrix(grad), first, count, len(phi), by_products)
                gather(matrix(projected), first, count, len(phi), at(by_products, len(phi), 0))
                _by_values(by_products, len(phi), matrix(alpha), matrix(bias), pre, gates)
                if t_max > 0:
                    logits = at(by_products, 2 * len(phi) + gates, 0)
                    sinkhorn_block_backward(at(by_products, gates, 0), logits, count, n, t_max, eps, work)
                _by_scale(
                    by_products,
                    len(phi),
                    matrix(alpha),
                    matrix(inverse_rms),
                    first,
                    count,
                    n * dim,
                    matrix(pulls),
                    sums,
                )
                x = at(shaped(matrix(written), n * dim), first, 0)
                mix(by_phi, len(phi), None, x, 0, x, count, by_products, TOKENS, 1)
            for token in range(first, first + count, 4):
                few = min(4, first + count - token)
                mixed = writes and res_at >= 0  # else these gradients are those by the streams as they are
                rows = matrix(four) if mixed else at(matrix(grad_streams), token * n, 0)
                _by_written(
                    rows,
                    few,
                    adds,
                    matrix(grad_written),
                    projects,
                    at(matrix(pulls), 0, token - first),
                    matrix(written),
                    reads,
                    matrix(h_pre),
                    matrix(grad_hidden),
                    token,
                    n,
                )
                if projects:
                    whole = shaped(rows, n * dim)
                    mix(whole, few, None, whole, 0, matrix(phi), len(phi), at(by_products, 0, token - first), 1, TOKENS)
                if writes:
                    _by_write(
                        rows,
                        few,
                        matrix(streams),
                        matrix(output),
                        matrix(weights),
                        post_at,
                        matrix(res),
                        res_at,
                        matrix(grad_streams),
                        matrix(grad_output),
                        matrix(grad_weights),
                        matrix(grad_res),
                        token,
                        n,
                    )
        keep(four)
        keep(pulls)
        keep(tables)


@inner
def _by_h_pre(grad_hidden: Any, written: Any, n: Any, grad: Any, first: Any, count: Any, found: Any) -> None:
    for token in range(first, first + count):
        gram(at(grad_hidden, token, 0), 1, at(written, token * n, 0), n, found, 1, 1)
        for i in range(n):
            put(grad, token, i, get(grad, token, i) + get(found, 0, i))


@inner
def _by_values(grad: Any, width: Any, alpha: Any, bias: Any, pre: Any, gates: Any) -> None:
    """Back through the gates; behind the gradients, and behind what was projected, come the logits."""
    one = splat(number(grad, 1))
    for k in range(width):
        slope, offset = spread(alpha, 0, k), spread(bias, 0, k)
        for b in range(0, TOKENS, lanes(grad)):
            x = slope * load(grad, width + k, b, None) + offset
            store(grad, 2 * width + k, b, None, x)
            if k < gates:
                s = one / (one + exp(one - one - x))
                g = load(grad, k, b, None) * s * (one - s)
                store(grad, k, b, None, g if k < pre else g + g)


@inner
def _by_scale(
    grad: Any,
    width: Any,
    alpha: Any,
    inverse_rms: Any,
    first: Any,
    count: Any,
    length: Any,
    pulls: Any,
    sums: Any,
) -> None:
    """Sums for alpha and bias, and from the gradient by the projected to that by the products x phi.

    The norm's part of it is -pull x: d(1/rms)/dx = -x / (n C rms^3); one 1/rms is in grad and one in the projected.
    """
    step, zero = lanes(grad), splat(number(grad, 0))
    scales = at(grad, 2 * width, 0)  # in the place of logits, which are not needed any more
    for b in range(count):
        put(scales, 0, b, get(inverse_rms, 0, first + b))
    for b in range(0, TOKENS, step):
        store(pulls, 0, b, None, zero)
    for k in range(width):
        by_alpha, by_bias, slope = zero, zero, spread(alpha, 0, k)
        for b in range(0, TOKENS, step):
            g, x = load(grad, k, b, None), load(grad, width + k, b, None)
            by_alpha += g * x
            by_bias += g
            g = g * slope * load(scales, 0, b, None)
            store(grad, k, b, None, g)
            store(pulls, 0, b, None, load(pulls, 0, b, None) + g * x)
        put(sums, 0, k, get(sums, 0, k) + total(by_alpha))
        put(sums, 1, k, get(sums, 1, k) + total(by_bias))
    for b in range(count):
        put(pulls, 0, b, get(pulls, 0, b) * get(scales, 0, b) / number(grad, length))


@inner
def _by_written(
    rows: Any,
    count: Any,
    adds: Any,
    grad_written: Any,
    projects: Any,
    pulls: Any,
    written: Any,
    reads: Any,
    h_pre: Any,
    grad_hidden: Any,
    first: Any,
    n: Any,
) -> None:
    """A few tokens' gradients by their written streams, but for what comes through the products x phi."""
    step, dim = lanes(rows), columns(rows)
    for token in range(count):
        given, x, h = (
            at(grad_written, (first + token) * n, 0),
            at(written, (first + token) * n, 0),
            at(grad_hidden, first + token, 0),
        )
        for i in range(n):
            pull, weight = spread(pulls, 0, token), spread(h_pre, first + token, i)
            c = 0
            while c < dim:
                left = dim - c
                if left >= step:
                    found = splat(number(rows, 0))
                    if adds:
                        found = load(given, i, c, None)
                    if projects:
                        found = found - pull * load(x, i, c, None)
                    if reads:
                        found = found + weight * load(h, 0, c, None)
                    store(rows, token * n + i, c, None, found)
                else:
                    found = splat(number(rows, 0))
                    if adds:
                        found = load(given, i, c, left)
                    if projects:
                        found = found - pull * load(x, i, c, left)
                    if reads:
                        found = found + weight * load(h, 0, c, left)
                    store(rows, token * n + i, c, left, found)
                c += step


@inner
def _by_write(
    rows: Any,
    count: Any,
    streams: Any,
    output: Any,
    weights: Any,
    post_at: Any,
    res: Any,
    res_at: Any,
    grad_streams: Any,
    grad_output: Any,
    grad_weights: Any,
    grad_res: Any,
    first: Any,
    n: Any,
) -> None:
    """From a few tokens' gradients by their written streams to what their write was made of."""
    for k in range(count):
        token = first + k
        g, w = at(rows, k * n, 0), at(weights, token, post_at)
        mix(at(grad_output, token, 0), 1, g, w, 1, at(g, 1, 0), n - 1, at(w, 0, 1), 1, 1)
        gram(at(output, token, 0), 1, g, n, at(grad_weights, token, post_at), 1, 1)
        if res_at >= 0:
            x, h = at(streams, token * n, 0), at(res, token, res_at)
            mix(at(grad_streams, token * n, 0), n, g, h, 1, at(g, 1, 0), n - 1, at(h, 0, n), 1, n)
            gram(g, n, x, n, at(grad_res, token, res_at), n, 1)
