"""The CPU kernels of a connection: one loop over blocks of tokens forward and one backward.

A block's streams lie in the cache from its write over its projection to its read, so that each pass touches memory
once. Every operation is a part of the two loops: `write`, `coefficients`, `read`, or all of them as `write_read`.

Arrays: rows of streams [T n, C] and the same memory as `flat` [T, n C]; phi transposed [m, n C]; the coefficients
packed [T, m] as in `ops.coefficients`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from mhc_lab.ops.coefficients.reference import NORM_EPS
from mhc_lab.ops.loops import TOKENS, gram, inner, kernel, mix
from mhc_lab.ops.sinkhorn.cpu import sinkhorn_block, sinkhorn_block_backward


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
    flat: Any,
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
    tokens = len(flat)
    line = projected.reshape((1, projected.size))
    for block in prange((tokens + TOKENS - 1) // TOKENS):
        first, last = block * TOKENS, min((block + 1) * TOKENS, tokens)
        if writes:
            for token in range(first, last):
                _write(streams, output[token], weights, post_at, res, res_at, written, token, n)
        if projects:
            for token in range(first, last, 4):
                few = min(4, last - token)
                gram(flat, token, few, phi, 0, len(phi), line, 0, token * len(phi), len(phi), 1)
            for token in range(first, last):
                _scale(flat[token], projected[token], inverse_rms, token)
                _activate(projected[token], alpha, bias, pre, gates, read_eps, values[token])
            if t_max > 0:
                sinkhorn_block(values, first, last - first, gates, n, t_max, eps)
        if reads:
            for token in range(first, last):
                hidden[token] = 0
                mix(hidden, token, 1, written, token * n, n, h_pre, token, 0, 0, 1)


@inner
def _write(
    streams: Any, y: Any, weights: Any, post_at: Any, res: Any, res_at: Any, written: Any, token: Any, n: Any
) -> None:
    for i in range(n):
        row, x, weight = written[token * n + i], streams[token * n + i], weights[token, post_at + i]
        if res_at < 0:
            for c in range(len(y)):
                row[c] = x[c] + weight * y[c]
        else:
            for c in range(len(y)):
                row[c] = weight * y[c]
    if res_at >= 0:
        mix(written, token * n, n, streams, token * n, n, res, token, res_at, n, 1)


@inner
def _scale(x: Any, projected: Any, inverse_rms: Any, token: Any) -> None:
    """The norm, divided out behind the product (mHC Eq. 14-16)."""
    total = x.dtype.type(0)
    for c in range(len(x)):
        total += x[c] * x[c]
    scale = x.dtype.type(1 / np.sqrt(total / len(x) + NORM_EPS))
    inverse_rms[token] = scale
    for k in range(len(projected)):
        projected[k] *= scale


@inner
def _activate(projected: Any, alpha: Any, bias: Any, pre: Any, gates: Any, read_eps: Any, values: Any) -> None:
    one = values.dtype.type(1)
    for k in range(len(values)):
        values[k] = alpha[k] * projected[k] + bias[k]
    for k in range(gates):
        values[k] = one / (one + np.exp(-values[k]))
    for k in range(pre):
        values[k] += values.dtype.type(read_eps)
    for k in range(pre, gates):
        values[k] *= one + one


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
    grad_written: Any,
    projects: Any,
    flat: Any,
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

    Where it `projects`, grad is that by the values and ends as that by x phi; parts [chunks, 2, m] and phi_parts
    [chunks, m, n C] become the sums over `chunk` tokens each of the gradients by alpha, bias and phi. Where it
    `writes`, the gradients by H_post and H_res go where these lie; else grad_streams is the one by `written`.
    """
    tokens, dim, width = len(flat), grad_streams.shape[1], grad.shape[1]
    line = grad.reshape((1, tokens * width))
    for part in prange(len(parts)):
        total = np.empty((4, n * dim), grad.dtype)  # the gradient by the written streams, of four tokens
        rows = total.reshape((4 * n, dim))
        logits, read = np.empty((TOKENS, width), grad.dtype), np.empty((TOKENS, n), grad.dtype)
        parts[part] = 0
        phi_part = phi_parts[part]
        phi_part[:] = 0
        stop = min((part + 1) * chunk, tokens)
        for first in range(part * chunk, stop, TOKENS):
            last = min(first + TOKENS, stop)
            if reads:
                for token in range(first, last):
                    gram(grad_hidden, token, 1, written, token * n, n, read, token - first, 0, 0, 1)
                    for i in range(n):
                        grad[token, i] += read[token - first, i]
            if projects:
                for token in range(first, last):
                    raw = logits[token - first]
                    for k in range(width):
                        raw[k] = alpha[k] * projected[token, k] + bias[k]
                    _through_gates(grad[token], raw, pre, gates)
                if t_max > 0:
                    sinkhorn_block_backward(grad, logits, first, 0, last - first, gates, n, t_max, eps)
                for token in range(first, last):
                    _unscale(grad[token], projected[token], alpha, inverse_rms[token], parts[part])
            for four in range(first, last, 4):
                few = min(4, last - four)
                for token in range(four, four + few):
                    pull = total.dtype.type(0)
                    if projects:
                        pull = _pull(grad[token], projected[token], inverse_rms[token], n * dim)
                    for i in range(n):
                        row, g, x = rows[(token - four) * n + i], grad_written[token * n + i], written[token * n + i]
                        if reads:
                            weight, h = h_pre[token, i], grad_hidden[token]
                            for c in range(dim):
                                row[c] = g[c] - pull * x[c] + weight * h[c]
                        else:
                            for c in range(dim):
                                row[c] = g[c] - pull * x[c]
                if projects:
                    mix(total, 0, few, phi, 0, width, line, 0, four * width, width, 1)
                for token in range(four, four + few):
                    row = (token - four) * n
                    if writes:
                        grad_output[token] = 0
                        mix(grad_output, token, 1, rows, row, n, weights, token, post_at, 0, 1)
                        gram(output, token, 1, rows, row, n, grad_weights, token, post_at, 0, 1)
                    if writes and res_at >= 0:
                        for j in range(n):
                            grad_streams[token * n + j] = 0
                        mix(grad_streams, token * n, n, rows, row, n, res, token, res_at, 1, n)
                        gram(rows, row, n, streams, token * n, n, grad_res, token, res_at, n, 1)
                    else:
                        for j in range(n):
                            _copy(rows[row + j], grad_streams[token * n + j])
            if projects:  # in a loop of its own: phi and its gradient do not fit the L1 cache side by side
                for four in range(first, last, 4):
                    few = min(4, last - four)
                    mix(phi_part, 0, width, flat, four, few, line, 0, four * width, 1, width)


@inner
def _through_gates(grad: Any, raw: Any, pre: Any, gates: Any) -> None:
    one = grad.dtype.type(1)
    for k in range(gates):
        s = one / (one + np.exp(-raw[k]))
        grad[k] *= s * (one - s)
    for k in range(pre, gates):
        grad[k] *= one + one


@inner
def _unscale(grad: Any, projected: Any, alpha: Any, scale: Any, parts: Any) -> None:
    """Sum up what alpha and bias get; then the gradient by x phi, whose rows `inverse_rms` scaled."""
    for k in range(len(grad)):
        parts[0, k] += grad[k] * projected[k]
        parts[1, k] += grad[k]
        grad[k] *= alpha[k] * scale


@inner
def _copy(source: Any, target: Any) -> None:
    for c in range(len(target)):  # a slice assignment is three times slower
        target[c] = source[c]


@inner
def _pull(grad: Any, projected: Any, scale: Any, width: Any) -> Any:
    """The norm's part is -pull x: d(1/rms)/dx = -x / (n C rms^3), one factor 1/rms is in grad and one in projected."""
    total = grad.dtype.type(0)
    for k in range(len(grad)):
        total += grad[k] * projected[k]
    return total * scale / grad.dtype.type(width)
