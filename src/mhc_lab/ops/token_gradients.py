"""The backward of a connection on a CPU: one loop over blocks of tokens, with the arrays of `token_loops`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from mhc_lab.ops.loops import TOKENS, inner, kernel
from mhc_lab.ops.matrices import at, columns, get, keep, matrix, number, put, shaped
from mhc_lab.ops.products import gram, mix
from mhc_lab.ops.sinkhorn.cpu import (
    gather,
    scratch_rows,
    scratch_width,
    sinkhorn_block_backward,
)
from mhc_lab.ops.vector_functions import exp, total
from mhc_lab.ops.vectors import lanes, load, splat, spread, store


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
