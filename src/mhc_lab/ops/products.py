"""Products of a few rows of channels with small matrices: what mixing streams and projecting them comes down to.

All arguments but counts and steps are `vectors.Matrix`. Weights lie anywhere in the memory from the beginning of their
matrix on, a step apart.
"""

from __future__ import annotations

from typing import Any

from mhc_lab.ops.loops import inner
from mhc_lab.ops.matrices import columns, number, put
from mhc_lab.ops.vector_functions import total, totals
from mhc_lab.ops.vectors import lanes, load, splat, spread, store


@inner
def mix(
    out: Any, n_out: Any, first: Any, v: Any, v_step: Any, rows: Any, n_rows: Any, w: Any, step_out: Any, step_rows: Any
) -> None:
    """out[i] = v[i v_step] first[0] + sum over j < n_rows of w[i step_out + j step_rows] rows[j], for i < n_out.

    Without `first` (None) the sum is added to `out`. In tiles of four rows by two vectors, which stay in registers for
    the whole sum.
    """
    step, dim, i = lanes(out), columns(out), 0
    while i + 4 <= n_out:
        c = 0
        while c + 2 * step <= dim:
            _wide(out, i, c, first, v, v_step, rows, n_rows, w, step_out, step_rows)
            c += 2 * step
        if c + step <= dim:
            _four(out, i, c, None, first, v, v_step, rows, n_rows, w, step_out, step_rows)
            c += step
        if c < dim:
            _four(out, i, c, dim - c, first, v, v_step, rows, n_rows, w, step_out, step_rows)
        i += 4
    while i < n_out:
        c = 0
        while c + step <= dim:
            _one(out, i, c, None, first, v, v_step, rows, n_rows, w, step_out, step_rows)
            c += step
        if c < dim:
            _one(out, i, c, dim - c, first, v, v_step, rows, n_rows, w, step_out, step_rows)
        i += 1


@inner
def _start(out: Any, i: Any, c: Any, count: Any, first: Any, v: Any, v_step: Any) -> Any:
    if first is None:
        return load(out, i, c, count)
    return spread(v, 0, i * v_step) * load(first, 0, c, count)


@inner
def _wide(
    out: Any,
    i: Any,
    c: Any,
    first: Any,
    v: Any,
    v_step: Any,
    rows: Any,
    n_rows: Any,
    w: Any,
    step_out: Any,
    step_rows: Any,
) -> None:
    d = c + lanes(out)
    a0, b0 = _start(out, i, c, None, first, v, v_step), _start(out, i, d, None, first, v, v_step)
    a1, b1 = _start(out, i + 1, c, None, first, v, v_step), _start(out, i + 1, d, None, first, v, v_step)
    a2, b2 = _start(out, i + 2, c, None, first, v, v_step), _start(out, i + 2, d, None, first, v, v_step)
    a3, b3 = _start(out, i + 3, c, None, first, v, v_step), _start(out, i + 3, d, None, first, v, v_step)
    for j in range(n_rows):
        x, y, k = load(rows, j, c, None), load(rows, j, d, None), i * step_out + j * step_rows
        w0, w1 = spread(w, 0, k), spread(w, 0, k + step_out)
        w2, w3 = spread(w, 0, k + 2 * step_out), spread(w, 0, k + 3 * step_out)
        a0, a1, a2, a3 = a0 + w0 * x, a1 + w1 * x, a2 + w2 * x, a3 + w3 * x
        b0, b1, b2, b3 = b0 + w0 * y, b1 + w1 * y, b2 + w2 * y, b3 + w3 * y
    store(out, i, c, None, a0)
    store(out, i + 1, c, None, a1)
    store(out, i + 2, c, None, a2)
    store(out, i + 3, c, None, a3)
    store(out, i, d, None, b0)
    store(out, i + 1, d, None, b1)
    store(out, i + 2, d, None, b2)
    store(out, i + 3, d, None, b3)


@inner
def _four(
    out: Any,
    i: Any,
    c: Any,
    count: Any,
    first: Any,
    v: Any,
    v_step: Any,
    rows: Any,
    n_rows: Any,
    w: Any,
    step_out: Any,
    step_rows: Any,
) -> None:
    a0, a1 = _start(out, i, c, count, first, v, v_step), _start(out, i + 1, c, count, first, v, v_step)
    a2, a3 = _start(out, i + 2, c, count, first, v, v_step), _start(out, i + 3, c, count, first, v, v_step)
    for j in range(n_rows):
        x, k = load(rows, j, c, count), i * step_out + j * step_rows
        a0 += spread(w, 0, k) * x
        a1 += spread(w, 0, k + step_out) * x
        a2 += spread(w, 0, k + 2 * step_out) * x
        a3 += spread(w, 0, k + 3 * step_out) * x
    store(out, i, c, count, a0)
    store(out, i + 1, c, count, a1)
    store(out, i + 2, c, count, a2)
    store(out, i + 3, c, count, a3)


@inner
def _one(
    out: Any,
    i: Any,
    c: Any,
    count: Any,
    first: Any,
    v: Any,
    v_step: Any,
    rows: Any,
    n_rows: Any,
    w: Any,
    step_out: Any,
    step_rows: Any,
) -> None:
    a = _start(out, i, c, count, first, v, v_step)
    for j in range(n_rows):
        a += spread(w, 0, i * step_out + j * step_rows) * load(rows, j, c, count)
    store(out, i, c, count, a)


@inner
def gram(a: Any, n_a: Any, b: Any, n_b: Any, out: Any, step_a: Any, step_b: Any) -> None:
    """out[i step_a + j step_b] = <a[i], b[j]> for i < n_a, j < n_b, in tiles of 4 x 4."""
    i = 0
    while i < n_a:
        four, j = i + 4 <= n_a, 0
        while j < n_b:
            here = i * step_a + j * step_b
            if four and j + 4 <= n_b:
                _gram_tile(a, i, b, j, out, here, step_a, step_b)
                j += 4
            elif j + 4 <= n_b:
                _gram_row(a, i, b, j, out, here, step_b)
                j += 4
            elif four:
                _gram_row(b, j, a, i, out, here, step_a)
                j += 1
            else:
                _gram_one(a, i, b, j, out, here)
                j += 1
        i += 4 if four else 1


@inner
def _gram_one(a: Any, i: Any, b: Any, j: Any, out: Any, here: Any) -> None:
    step, dim, c = lanes(a), columns(a), 0
    s = splat(number(a, 0))
    while c + step <= dim:
        s += load(a, i, c, None) * load(b, j, c, None)
        c += step
    if c < dim:
        s += load(a, i, c, dim - c) * load(b, j, c, dim - c)
    put(out, 0, here, total(s))


@inner
def _gram_row(a: Any, i: Any, b: Any, j: Any, out: Any, here: Any, step_b: Any) -> None:
    step, dim, c = lanes(a), columns(a), 0
    s0 = s1 = s2 = s3 = splat(number(a, 0))
    while c < dim:
        left = dim - c
        if left >= step:
            x, y0, y1 = load(a, i, c, None), load(b, j, c, None), load(b, j + 1, c, None)
            y2, y3 = load(b, j + 2, c, None), load(b, j + 3, c, None)
        else:
            x, y0, y1 = load(a, i, c, left), load(b, j, c, left), load(b, j + 1, c, left)
            y2, y3 = load(b, j + 2, c, left), load(b, j + 3, c, left)
        s0, s1, s2, s3 = s0 + x * y0, s1 + x * y1, s2 + x * y2, s3 + x * y3
        c += step
    _put(out, here, step_b, totals(s0, s1, s2, s3))


@inner
def _gram_tile(a: Any, i: Any, b: Any, j: Any, out: Any, here: Any, step_a: Any, step_b: Any) -> None:
    step, dim, c = lanes(a), columns(a), 0
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = splat(number(a, 0))
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = s00
    while c < dim:
        left = dim - c
        if left >= step:
            x0, x1, y0, y1 = load(a, i, c, None), load(a, i + 1, c, None), load(b, j, c, None), load(b, j + 1, c, None)
            x2, x3 = load(a, i + 2, c, None), load(a, i + 3, c, None)
            y2, y3 = load(b, j + 2, c, None), load(b, j + 3, c, None)
        else:
            x0, x1, y0, y1 = load(a, i, c, left), load(a, i + 1, c, left), load(b, j, c, left), load(b, j + 1, c, left)
            x2, x3 = load(a, i + 2, c, left), load(a, i + 3, c, left)
            y2, y3 = load(b, j + 2, c, left), load(b, j + 3, c, left)
        s00, s01, s02, s03 = s00 + x0 * y0, s01 + x0 * y1, s02 + x0 * y2, s03 + x0 * y3
        s10, s11, s12, s13 = s10 + x1 * y0, s11 + x1 * y1, s12 + x1 * y2, s13 + x1 * y3
        s20, s21, s22, s23 = s20 + x2 * y0, s21 + x2 * y1, s22 + x2 * y2, s23 + x2 * y3
        s30, s31, s32, s33 = s30 + x3 * y0, s31 + x3 * y1, s32 + x3 * y2, s33 + x3 * y3
        c += step
    _put(out, here, step_b, totals(s00, s01, s02, s03))
    _put(out, here + step_a, step_b, totals(s10, s11, s12, s13))
    _put(out, here + 2 * step_a, step_b, totals(s20, s21, s22, s23))
    _put(out, here + 3 * step_a, step_b, totals(s30, s31, s32, s33))


@inner
def _put(out: Any, here: Any, step: Any, four: Any) -> None:
    a, b, c, d = four
    put(out, 0, here, a)
    put(out, 0, here + step, b)
    put(out, 0, here + 2 * step, c)
    put(out, 0, here + 3 * step, d)
