"""The CPU kernels of a connection: one loop over blocks of tokens forward and, in `token_gradients`, one backward.

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
    scatter,
    scratch_rows,
    scratch_width,
    sinkhorn_block,
)
from mhc_lab.ops.vector_functions import exp
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
