"""Sinkhorn-Knopp on a CPU: a block of tokens side by side, so that each step over n x n runs across tokens.

Iterates are kept as diag(u) M_0 diag(v): a half-step then costs n^2 multiply-adds and n divisions a token, and its
history, which the backward needs, is 2n numbers. Scratch is one array [rows, TOKENS]: M_0 in its first n^2 rows,
then u and v of every iteration, ones first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from torch import Tensor

from mhc_lab.ops.loops import TOKENS, array, inner, kernel
from mhc_lab.ops.sinkhorn.reference import V4_EPS

# The scalings reach exp(spread of a matrix's logits) and their squares occur in the backward: past this, fp64.
FP32_SPREAD = 30.0


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
        sinkhorn_block(values, first, min(TOKENS, len(values) - first), 0, n, t_max, eps)


@kernel
def _backward(grad: Any, logits: Any, n: Any, t_max: Any, eps: Any) -> None:
    for block in prange((len(grad) + TOKENS - 1) // TOKENS):
        first = block * TOKENS
        sinkhorn_block_backward(grad, logits, first, first, min(TOKENS, len(grad) - first), 0, n, t_max, eps)


@inner
def sinkhorn_block(values: Any, first: Any, count: Any, at: Any, n: Any, t_max: Any, eps: Any) -> None:
    """Replace the logits of `count` tokens from `first` on, in the n^2 columns from `at` on, by their H_res."""
    if _fp32_holds(values, first, count, at, n, eps):
        _block_forward(values, first, count, at, n, t_max, eps, np.empty(1, values.dtype))
    else:
        _block_forward(values, first, count, at, n, t_max, eps, np.empty(1, np.float64))


@inner
def sinkhorn_block_backward(
    grad: Any, logits: Any, first: Any, row: Any, count: Any, at: Any, n: Any, t_max: Any, eps: Any
) -> None:
    """The same backward: grad from token `first` on, in place; their logits are the rows from `row` on of `logits`."""
    if _fp32_holds(logits, row, count, at, n, eps):
        _block_backward(grad, logits, first, row, count, at, n, t_max, eps, np.empty(1, grad.dtype))
    else:
        _block_backward(grad, logits, first, row, count, at, n, t_max, eps, np.empty(1, np.float64))


@inner
def _fp32_holds(logits: Any, first: Any, count: Any, at: Any, n: Any, eps: Any) -> Any:
    """Whether no token's logits spread too far; v4 has no entry below its eps, and fp64 holds them all."""
    if eps > 0 or logits.itemsize == 8:
        return True
    far = logits.dtype.type(0)  # half the spread bounds it, and needs no minimum and maximum a token
    for b in range(first, first + count):
        for k in range(at, at + n * n):
            far = max(far, abs(logits[b, k]))
    if far <= FP32_SPREAD / 2:
        return True
    for b in range(first, first + count):
        low = high = logits[b, at]
        for k in range(at + 1, at + n * n):
            low, high = min(low, logits[b, k]), max(high, logits[b, k])
        if not high - low <= FP32_SPREAD:
            return False
    return True


@inner
def _block_forward(values: Any, first: Any, count: Any, at: Any, n: Any, t_max: Any, eps64: Any, like: Any) -> None:
    work = np.empty((n * n + 2 * n * (t_max + 1), TOKENS), like.dtype)
    eps = like.dtype.type(eps64)
    _begin(values, first, count, at, n, eps, work)
    _iterate(work, n, t_max, eps)
    u = n * n + 2 * n * t_max
    for i in range(n):
        for j in range(n):
            for b in range(count):
                values[first + b, at + i * n + j] = work[i * n + j, b] * work[u + i, b] * work[u + n + j, b]


@inner
def _block_backward(
    grad: Any, logits: Any, first: Any, row: Any, count: Any, at: Any, n: Any, t_max: Any, eps64: Any, like: Any
) -> None:
    history = n * n + 2 * n * (t_max + 1)
    work = np.zeros((history + n * n + 4 * n, TOKENS), like.dtype)
    eps = like.dtype.type(eps64)
    _begin(logits, row, count, at, n, eps, work)
    _iterate(work, n, t_max, eps)
    u, v = history - 2 * n, history - n
    for i in range(n):
        for j in range(n):
            m, g = work[i * n + j], work[history + i * n + j]
            u_i, v_j, g_u, g_v = work[u + i], work[v + j], work[history + n * n + i], work[history + n * n + n + j]
            for b in range(count):
                g[b] = grad[first + b, at + i * n + j]
            for b in range(TOKENS):
                g_u[b] += g[b] * m[b] * v_j[b]
                g_v[b] += g[b] * m[b] * u_i[b]
                g[b] *= u_i[b] * v_j[b]
    _walk_back(work, n, t_max, eps)
    for j in range(n):
        total = work[history + n * n]  # free by now
        for b in range(TOKENS):
            total[b] = 0
        if eps > 0:  # v4's M_0 is a softmax + eps
            for i in range(n):
                m, g = work[i * n + j], work[history + i * n + j]
                for b in range(TOKENS):
                    m[b] -= eps
                    total[b] += g[b] * m[b]
        for i in range(n):
            m, g = work[i * n + j], work[history + i * n + j]
            for b in range(count):
                grad[first + b, at + i * n + j] = m[b] * (g[b] - total[b])


@inner
def _begin(logits: Any, first: Any, count: Any, at: Any, n: Any, eps: Any, work: Any) -> None:
    """Fill M_0 = exp(logits - column maximum), or v4's softmax + eps, and ones."""
    for k in range(n * n):
        row = work[k]
        for b in range(count):
            row[b] = logits[first + b, at + k]
        for b in range(count, TOKENS):
            row[b] = 0
    top = work[n * n]
    for j in range(n):
        for b in range(TOKENS):
            top[b] = work[j, b]
        for i in range(1, n):
            row = work[i * n + j]
            for b in range(TOKENS):
                top[b] = max(top[b], row[b])
        for i in range(n):
            row = work[i * n + j]
            for b in range(TOKENS):
                row[b] = np.exp(row[b] - top[b])
        if eps > 0:
            for b in range(TOKENS):
                top[b] = 0
            for i in range(n):
                row = work[i * n + j]
                for b in range(TOKENS):
                    top[b] += row[b]
            for i in range(n):
                row = work[i * n + j]
                for b in range(TOKENS):
                    row[b] = row[b] / top[b] + eps
    for k in range(n * n, n * n + 2 * n):
        row = work[k]
        for b in range(TOKENS):
            row[b] = 1


@inner
def _products(work: Any, first: Any, stride: Any, weights: Any, out: Any, n: Any) -> None:
    """work[out] += sum over k < n of work[first + k stride] work[weights + k]."""
    o = work[out]
    k = 0
    while k + 4 <= n:
        m0, m1, m2, m3 = work[first], work[first + stride], work[first + 2 * stride], work[first + 3 * stride]
        w0, w1, w2, w3 = work[weights + k], work[weights + k + 1], work[weights + k + 2], work[weights + k + 3]
        for b in range(TOKENS):
            o[b] += m0[b] * w0[b] + m1[b] * w1[b] + m2[b] * w2[b] + m3[b] * w3[b]
        k += 4
        first += 4 * stride
    while k < n:
        m0, w0 = work[first], work[weights + k]
        for b in range(TOKENS):
            o[b] += m0[b] * w0[b]
        k += 1
        first += stride


@inner
def _scale(work: Any, first: Any, stride: Any, weights: Any, old: Any, out: Any, n: Any, eps: Any) -> None:
    """One scaling: work[out] = 1 / (M w + eps / work[old]), so that its row or column sums to 1 (to s / (s + eps))."""
    o, before = work[out], work[old]
    if eps > 0:
        for b in range(TOKENS):
            o[b] = eps / before[b]
    else:
        for b in range(TOKENS):
            o[b] = 0
    _products(work, first, stride, weights, out, n)
    for b in range(TOKENS):
        o[b] = 1 / o[b]


@inner
def _iterate(work: Any, n: Any, t_max: Any, eps: Any) -> None:
    for step in range(t_max):
        u = n * n + 2 * n * step
        v, u_next, v_next = u + n, u + 2 * n, u + 3 * n
        for j in range(n):
            if eps > 0 and step == 0:
                row = work[v_next + j]  # v4's softmax was its first division of the columns
                for b in range(TOKENS):
                    row[b] = 1
            else:
                _scale(work, j, n, u, v + j, v_next + j, n, eps)
        for i in range(n):
            _scale(work, i * n, 1, v_next, u + i, u_next + i, n, eps)


@inner
def _through(work: Any, grad: Any, sums: Any, old: Any, new: Any, eps: Any) -> None:
    """Back through one scaling: from row `grad`, by its result, to row `sums`, by the sum it divides by.

    Row `grad` keeps what the previous scaling gets of it, which is nothing without eps.
    """
    g, s, before, after = work[grad], work[sums], work[old], work[new]
    for b in range(TOKENS):
        s[b] = -g[b] * after[b] * after[b]
    if eps > 0:
        for b in range(TOKENS):
            g[b] = -s[b] * eps / (before[b] * before[b])
    else:
        for b in range(TOKENS):
            g[b] = 0


@inner
def _walk_back(work: Any, n: Any, t_max: Any, eps: Any) -> None:
    """From the gradients by the last u and v (behind the history: M_0 [n n], u, v, row sums, column sums) to M_0's."""
    matrix = n * n + 2 * n * (t_max + 1)
    grad_u, grad_v = matrix + n * n, matrix + n * n + n
    rows, columns = grad_v + n, grad_v + 2 * n
    for step in range(t_max - 1, -1, -1):
        u = n * n + 2 * n * step
        v, u_next, v_next = u + n, u + 2 * n, u + 3 * n
        for i in range(n):
            _through(work, grad_u + i, rows + i, u + i, u_next + i, eps)
        for j in range(n):
            _products(work, j, n, rows, grad_v + j, n)
        if eps > 0 and step == 0:
            for k in range(columns, columns + n):
                row = work[k]
                for b in range(TOKENS):
                    row[b] = 0
        else:
            for j in range(n):
                _through(work, grad_v + j, columns + j, v + j, v_next + j, eps)
            for i in range(n):
                _products(work, i * n, 1, columns, grad_u + i, n)
        for i in range(n):
            r, old = work[rows + i], work[u + i]
            for j in range(n):
                m, c, new = work[matrix + i * n + j], work[columns + j], work[v_next + j]
                for b in range(TOKENS):
                    m[b] += r[b] * new[b] + c[b] * old[b]
