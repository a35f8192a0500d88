"""Sinkhorn-Knopp on a CPU: a block of tokens side by side, so that each step over n x n runs across tokens.

Iterates are kept as diag(u) M_0 diag(v): a half-step then costs n^2 multiply-adds and n divisions a token, and its
history, which the backward needs, is 2n numbers. Two vectors of tokens are worked on at a time, as one would wait for
its own divisions. Their scratch is one array [rows, tokens]: M_0 in its first n^2 rows, then u and v of every
iteration, ones first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from torch import Tensor

from mhc_lab.ops.loops import TOKENS, array, inner, kernel
from mhc_lab.ops.matrices import get, keep, matrix, number, put
from mhc_lab.ops.sinkhorn.reference import V4_EPS
from mhc_lab.ops.vector_functions import exp, peak
from mhc_lab.ops.vectors import lanes, lanes_of, largest, load, splat, store

# The scalings reach exp(spread of a matrix's logits) and their squares occur in the backward: past this, fp64.
FP32_SPREAD = 30.0
FP64_LANES = lanes_of(np.float64)


def forward(logits: Tensor, t_max: int, convention: str) -> Tensor:
    """[T, n, n] -> [T, n, n]; contract of `ops.sinkhorn`."""
    tokens, n, _ = logits.shape
    out = logits.clone()
    _forward(array(out.view(tokens, n * n)), n, t_max, eps_of(convention))
    return out


def backward(grad: Tensor, logits: Tensor, t_max: int, convention: str) -> Tensor:
    """[T, n, n]: the gradient of the truncated iteration."""
    tokens, n, _ = logits.shape
    out = grad.clone()
    _backward(array(out.view(tokens, n * n)), array(logits.view(tokens, n * n)), n, t_max, eps_of(convention))
    return out


def eps_of(convention: str) -> float:
    """What is added to every sum."""
    return V4_EPS if convention == "v4" else 0.0


@kernel
def _forward(values: Any, n: Any, t_max: Any, eps: Any) -> None:
    for block in prange((len(values) + TOKENS - 1) // TOKENS):
        first = block * TOKENS
        count = min(TOKENS, len(values) - first)
        beside = np.zeros((n * n, TOKENS), values.dtype)
        work = np.empty((scratch_rows(n, t_max), scratch_width(values)), values.dtype)
        gather(matrix(values), first, count, n * n, matrix(beside))
        sinkhorn_block(matrix(beside), count, n, t_max, eps, work)
        scatter(matrix(beside), n * n, matrix(values), first, count)
        keep(beside)


@kernel
def _backward(grad: Any, logits: Any, n: Any, t_max: Any, eps: Any) -> None:
    for block in prange((len(grad) + TOKENS - 1) // TOKENS):
        first = block * TOKENS
        count = min(TOKENS, len(grad) - first)
        beside, logits_beside = np.zeros((n * n, TOKENS), grad.dtype), np.zeros((n * n, TOKENS), grad.dtype)
        work = np.empty((scratch_rows(n, t_max), scratch_width(grad)), grad.dtype)
        gather(matrix(grad), first, count, n * n, matrix(beside))
        gather(matrix(logits), first, count, n * n, matrix(logits_beside))
        sinkhorn_block_backward(matrix(beside), matrix(logits_beside), count, n, t_max, eps, work)
        scatter(matrix(beside), n * n, matrix(grad), first, count)
        keep(beside)
        keep(logits_beside)


@inner
def gather(source: Any, first: Any, count: Any, width: Any, beside: Any) -> None:
    """beside[k, b] = source[first + b, k] for k < width: the rows of `count` tokens, side by side; 0 past these."""
    for b in range(count):
        for k in range(width):
            put(beside, k, b, get(source, first + b, k))
    for b in range(count, TOKENS):
        for k in range(width):
            put(beside, k, b, number(beside, 0))


@inner
def scatter(beside: Any, width: Any, target: Any, first: Any, count: Any) -> None:
    """And back."""
    for b in range(count):
        for k in range(width):
            put(target, first + b, k, get(beside, k, b))


@inner
def scratch_rows(n: Any, t_max: Any) -> Any:
    """M_0; u and v of every iteration; for the backward the gradients of these, and by the sums."""
    return 2 * n * n + 2 * n * (t_max + 1) + 4 * n


@inner
def scratch_width(like: Any) -> Any:
    return 2 * lanes(like)


@inner
def sinkhorn_block(values: Any, count: Any, n: Any, t_max: Any, eps: Any, work: Any) -> None:
    """Replace the logits values [n n, TOKENS] of `count` tokens by their H_res; past `count` they are 0."""
    if _fp32_holds(values, count, n, eps):
        _block_forward(values, n, t_max, number(matrix(work), eps), matrix(work))
    else:
        wide = np.empty(work.shape, np.float64)
        _block_forward(values, n, t_max, eps, matrix(wide))
        keep(wide)


@inner
def sinkhorn_block_backward(grad: Any, logits: Any, count: Any, n: Any, t_max: Any, eps: Any, work: Any) -> None:
    """The same backward: grad [n n, TOKENS] by H_res becomes that by the logits."""
    if _fp32_holds(logits, count, n, eps):
        _block_backward(grad, logits, n, t_max, number(matrix(work), eps), matrix(work))
    else:
        wide = np.empty(work.shape, np.float64)
        _block_backward(grad, logits, n, t_max, eps, matrix(wide))
        keep(wide)


@inner
def _fp32_holds(logits: Any, count: Any, n: Any, eps: Any) -> Any:
    """Whether no token's logits spread too far; v4 has no entry below its eps, and fp64 holds them all."""
    if eps > 0 or lanes(logits) == FP64_LANES:
        return True
    zero = splat(number(logits, 0))
    far = zero  # half the spread bounds it, and needs no minimum and maximum a token
    for k in range(n * n):
        for b in range(0, TOKENS, lanes(logits)):
            x = load(logits, k, b, None)
            far = largest(largest(far, x), zero - x)
    if peak(far) <= FP32_SPREAD / 2:
        return True
    for b in range(count):
        low = high = get(logits, 0, b)
        for k in range(1, n * n):
            low, high = min(low, get(logits, k, b)), max(high, get(logits, k, b))
        if not high - low <= FP32_SPREAD:
            return False
    return True


@inner
def _block_forward(values: Any, n: Any, t_max: Any, eps: Any, work: Any) -> None:
    step = lanes(work)
    u = n * n + 2 * n * t_max
    for first in range(0, TOKENS, 2 * step):
        _begin(values, first, n, eps, work)
        _iterate(work, n, t_max, eps)
        for i in range(n):
            for j in range(n):
                for b in range(0, 2 * step, step):
                    m, v = load(work, i * n + j, b, None), load(work, u + n + j, b, None)
                    store(work, i * n + j, b, None, m * load(work, u + i, b, None) * v)
        for k in range(n * n):
            for b in range(2 * step):
                put(values, k, first + b, get(work, k, b))


@inner
def _block_backward(grad: Any, logits: Any, n: Any, t_max: Any, eps: Any, work: Any) -> None:
    step, zero = lanes(work), splat(eps - eps)
    matrix = n * n + 2 * n * (t_max + 1)  # from there on the gradients: by M_0, u, v
    u, v = matrix - 2 * n, matrix - n
    for first in range(0, TOKENS, 2 * step):
        _begin(logits, first, n, eps, work)
        _iterate(work, n, t_max, eps)
        for k in range(n * n):
            for b in range(2 * step):
                put(work, matrix + k, b, get(grad, k, first + b))
        for b in range(0, 2 * step, step):
            for k in range(matrix + n * n, matrix + n * n + 2 * n):
                store(work, k, b, None, zero)
            for i in range(n):
                by_u, u_i = matrix + n * n + i, load(work, u + i, b, None)
                for j in range(n):
                    g, v_j, by_v = load(work, matrix + i * n + j, b, None), load(work, v + j, b, None), by_u - i + n + j
                    gm = g * load(work, i * n + j, b, None)
                    store(work, by_u, b, None, load(work, by_u, b, None) + gm * v_j)
                    store(work, by_v, b, None, load(work, by_v, b, None) + gm * u_i)
                    store(work, matrix + i * n + j, b, None, g * u_i * v_j)
        _walk_back(work, n, t_max, eps)
        for b in range(0, 2 * step, step):
            for j in range(n):
                _by_logits(work, j, b, n, matrix, eps)
        for k in range(n * n):
            for b in range(2 * step):
                put(grad, k, first + b, get(work, matrix + k, b))


@inner
def _by_logits(work: Any, j: Any, b: Any, n: Any, matrix: Any, eps: Any) -> None:
    """Through M_0 of column j: an exp, or v4's softmax + eps."""
    shift, found = splat(eps), splat(eps - eps)
    if eps > 0:
        for i in range(n):
            found += load(work, matrix + i * n + j, b, None) * (load(work, i * n + j, b, None) - shift)
    for i in range(n):
        g, m = load(work, matrix + i * n + j, b, None), load(work, i * n + j, b, None)
        store(work, matrix + i * n + j, b, None, (m - shift) * (g - found))


@inner
def _begin(logits: Any, first: Any, n: Any, eps: Any, work: Any) -> None:
    """Fill M_0 = exp(logits - column maximum), or v4's softmax + eps, and ones."""
    step, one = lanes(work), splat(number(work, 1))
    for k in range(n * n):
        for b in range(2 * step):
            put(work, k, b, number(work, get(logits, k, first + b)))
    for b in range(0, 2 * step, step):
        for j in range(n):
            top = load(work, j, b, None)
            for i in range(1, n):
                top = largest(top, load(work, i * n + j, b, None))
            found = one - one
            for i in range(n):
                e = exp(load(work, i * n + j, b, None) - top)
                found += e
                store(work, i * n + j, b, None, e)
            if eps > 0:
                for i in range(n):
                    store(work, i * n + j, b, None, load(work, i * n + j, b, None) / found + splat(eps))
        for k in range(n * n, n * n + 2 * n):
            store(work, k, b, None, one)


@inner
def _sum(work: Any, first: Any, stride: Any, weights: Any, b: Any, n: Any) -> Any:
    """The sum over k < n of work[first + k stride] work[weights + k], of the vector of tokens at b."""
    found = load(work, first, b, None) * load(work, weights, b, None)
    for k in range(1, n):
        found += load(work, first + k * stride, b, None) * load(work, weights + k, b, None)
    return found


@inner
def _scale(work: Any, first: Any, stride: Any, weights: Any, old: Any, out: Any, n: Any, eps: Any) -> None:
    """One scaling: work[out] = 1 / (M w + eps / work[old]), so that its row or column sums to 1 (to s / (s + eps))."""
    step, one = lanes(work), splat(number(work, 1))
    for b in range(0, 2 * step, step):
        s = _sum(work, first, stride, weights, b, n)
        if eps > 0:
            s += splat(eps) / load(work, old, b, None)
        store(work, out, b, None, one / s)


@inner
def _iterate(work: Any, n: Any, t_max: Any, eps: Any) -> None:
    for step in range(t_max):
        u = n * n + 2 * n * step
        v, u_next, v_next = u + n, u + 2 * n, u + 3 * n
        for j in range(n):
            if eps > 0 and step == 0:
                for b in range(0, 2 * lanes(work), lanes(work)):
                    store(work, v_next + j, b, None, splat(number(work, 1)))  # v4's softmax was this division
            else:
                _scale(work, j, n, u, v + j, v_next + j, n, eps)
        for i in range(n):
            _scale(work, i * n, 1, v_next, u + i, u_next + i, n, eps)


@inner
def _through(work: Any, grad: Any, sums: Any, old: Any, new: Any, eps: Any) -> None:
    """Back through one scaling: from row `grad`, by its result, to row `sums`, by the sum it divides by.

    Row `grad` keeps what the previous scaling gets of it, which is nothing without eps.
    """
    step, zero = lanes(work), splat(eps - eps)
    for b in range(0, 2 * step, step):
        after = load(work, new, b, None)
        s = zero - load(work, grad, b, None) * after * after
        store(work, sums, b, None, s)
        kept = zero
        if eps > 0:
            before = load(work, old, b, None)
            kept = zero - s * splat(eps) / (before * before)
        store(work, grad, b, None, kept)


@inner
def _walk_back(work: Any, n: Any, t_max: Any, eps: Any) -> None:
    """From the gradients by the last u and v (behind the history: M_0 [n n], u, v, row sums, column sums) to M_0's."""
    width, wide = lanes(work), 2 * lanes(work)
    matrix = n * n + 2 * n * (t_max + 1)
    grad_u, grad_v = matrix + n * n, matrix + n * n + n
    rows, columns = grad_v + n, grad_v + 2 * n
    for step in range(t_max - 1, -1, -1):
        u = n * n + 2 * n * step
        v, u_next, v_next = u + n, u + 2 * n, u + 3 * n
        for i in range(n):
            _through(work, grad_u + i, rows + i, u + i, u_next + i, eps)
        for j in range(n):
            for b in range(0, wide, width):
                store(work, grad_v + j, b, None, load(work, grad_v + j, b, None) + _sum(work, j, n, rows, b, n))
        if eps > 0 and step == 0:
            for k in range(columns, columns + n):
                for b in range(0, wide, width):
                    store(work, k, b, None, splat(eps - eps))
        else:
            for j in range(n):
                _through(work, grad_v + j, columns + j, v + j, v_next + j, eps)
            for i in range(n):
                for b in range(0, wide, width):
                    store(
                        work, grad_u + i, b, None, load(work, grad_u + i, b, None) + _sum(work, i * n, 1, columns, b, n)
                    )
        for b in range(0, wide, width):
            for i in range(n):
                r, old = load(work, rows + i, b, None), load(work, u + i, b, None)
                for j in range(n):
                    at = matrix + i * n + j
                    m, new = load(work, at, b, None), load(work, v_next + j, b, None)
                    store(work, at, b, None, m + r * new + load(work, columns + j, b, None) * old)
