"""What the Numba kernels share: how they are compiled and launched, and their inner loops.

Loops over tokens run in parallel over blocks of a fixed size, so that results do not depend on the number of threads.
Sums may be reordered within a token (`reassoc`), which is what lets them be vectorised; NaN and inf are kept.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from torch import Tensor

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "error_model": "numpy",  # Python's checks each division for zero, and a checked division is not vectorised
    "nogil": True,
}
TOKENS = 64  # a block: enough to vectorise across, few enough for their streams to stay in the L2 cache
_config: Any = numba.config  # its attributes are made at run time
_lock = threading.Lock()  # Numba's workqueue threads, its last resort, break under two launches at once


def inner(function: Kernel) -> Kernel:
    """A function that kernels call, compiled into them."""
    compiled: Kernel = numba.njit(**_OPTIONS)(function)
    return compiled


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """A kernel whose outer loop is a `prange`, on as many threads as torch has.

    It is compiled at its first launch and cached on disk for later processes; on one thread without a thread pool.
    """
    compiled = {parallel: _compiled(function, parallel) for parallel in (False, True)}

    def launch(*arguments: Any) -> None:
        threads = min(torch.get_num_threads(), _config.NUMBA_NUM_THREADS)
        if threads == 1:
            compiled[False](*arguments)
            return
        with _lock:
            numba.set_num_threads(threads)
            compiled[True](*arguments)

    launch.__doc__ = function.__doc__
    return launch


def _compiled(function: Callable[..., Any], parallel: bool) -> Callable[..., Any]:
    before = _config.CACHE_DIR
    try:
        _config.CACHE_DIR = str(_cache() / ("parallel" if parallel else "sequential"))
        compiled: Callable[..., Any] = numba.njit(parallel=parallel, cache=True, **_OPTIONS)(function)
    except (RuntimeError, OSError):  # nowhere to write: compile in each process
        compiled = numba.njit(parallel=parallel, **_OPTIONS)(function)
    finally:
        _config.CACHE_DIR = before
    return compiled


@functools.cache
def _cache() -> Path:
    """A folder for the source as it is: Numba looks at the file of a kernel, not at those of its inner functions."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("**/*.py")):
        digest.update(source.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "mhc_lab" / f"kernels-{digest.hexdigest()[:12]}"


def array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The memory of a contiguous fp32 or fp64 CPU tensor."""
    assert tensor.is_contiguous() and tensor.dtype in (torch.float32, torch.float64), (tensor.stride(), tensor.dtype)
    return tensor.numpy()


def wide(tensor: Tensor) -> Tensor:
    """Contiguous, and fp32 where it is narrower: NumPy has no bf16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).contiguous()


@inner
def mix(
    out: Any, o: Any, n_o: Any, rows: Any, r: Any, n_r: Any, w: Any, t: Any, at: Any, step_o: Any, step_r: Any
) -> None:
    """out[o + i] += sum over j < n_r of w[t, at + i step_o + j step_r] rows[r + j], for i < n_o. Rows are vectors.

    In tiles of 4 x 4 rows, each of which is loaded once for 16 products.
    """
    for i in range(0, n_o - 3, 4):
        for j in range(0, n_r - 3, 4):
            _mix_tile(out, o + i, rows, r + j, w, t, at + i * step_o + j * step_r, step_o, step_r)
    for i in range(n_o):
        j = n_r // 4 * 4 if i < n_o // 4 * 4 else 0
        while j + 4 <= n_r:
            _mix_row(out[o + i], rows, r + j, w, t, at + i * step_o + j * step_r, step_r)
            j += 4
        for k in range(j, n_r):
            target, weight, row = out[o + i], w[t, at + i * step_o + k * step_r], rows[r + k]
            for c in range(len(target)):
                target[c] += weight * row[c]


@inner
def _mix_row(target: Any, rows: Any, r: Any, w: Any, t: Any, at: Any, step: Any) -> None:
    r0, r1, r2, r3 = rows[r], rows[r + 1], rows[r + 2], rows[r + 3]
    w0, w1, w2, w3 = w[t, at], w[t, at + step], w[t, at + 2 * step], w[t, at + 3 * step]
    for c in range(len(target)):
        target[c] += w0 * r0[c] + w1 * r1[c] + w2 * r2[c] + w3 * r3[c]


@inner
def _mix_tile(out: Any, o: Any, rows: Any, r: Any, w: Any, t: Any, at: Any, step_o: Any, step_r: Any) -> None:
    o0, o1, o2, o3 = out[o], out[o + 1], out[o + 2], out[o + 3]
    r0, r1, r2, r3 = rows[r], rows[r + 1], rows[r + 2], rows[r + 3]
    at1, at2, at3 = at + step_o, at + 2 * step_o, at + 3 * step_o
    one, two, three = step_r, 2 * step_r, 3 * step_r
    w00, w01, w02, w03 = w[t, at], w[t, at + one], w[t, at + two], w[t, at + three]
    w10, w11, w12, w13 = w[t, at1], w[t, at1 + one], w[t, at1 + two], w[t, at1 + three]
    w20, w21, w22, w23 = w[t, at2], w[t, at2 + one], w[t, at2 + two], w[t, at2 + three]
    w30, w31, w32, w33 = w[t, at3], w[t, at3 + one], w[t, at3 + two], w[t, at3 + three]
    for c in range(len(o0)):
        x0, x1, x2, x3 = r0[c], r1[c], r2[c], r3[c]
        o0[c] += w00 * x0 + w01 * x1 + w02 * x2 + w03 * x3
        o1[c] += w10 * x0 + w11 * x1 + w12 * x2 + w13 * x3
        o2[c] += w20 * x0 + w21 * x1 + w22 * x2 + w23 * x3
        o3[c] += w30 * x0 + w31 * x1 + w32 * x2 + w33 * x3


@inner
def gram(
    a: Any, a0: Any, n_a: Any, b: Any, b0: Any, n_b: Any, out: Any, t: Any, at: Any, step_a: Any, step_b: Any
) -> None:
    """out[t, at + i step_a + j step_b] = <a[a0 + i], b[b0 + j]> for i < n_a, j < n_b, in tiles of 4 x 4."""
    for i in range(0, n_a - 3, 4):
        for j in range(0, n_b - 3, 4):
            _gram_tile(a, a0 + i, b, b0 + j, out, t, at + i * step_a + j * step_b, step_a, step_b)
    for i in range(n_a):
        j = n_b // 4 * 4 if i < n_a // 4 * 4 else 0
        while j + 4 <= n_b:
            _gram_row(a[a0 + i], b, b0 + j, out, t, at + i * step_a + j * step_b, step_b)
            j += 4
        for k in range(j, n_b):
            row, other, total = a[a0 + i], b[b0 + k], out.dtype.type(0)
            for c in range(len(row)):
                total += row[c] * other[c]
            out[t, at + i * step_a + k * step_b] = total


@inner
def _gram_row(row: Any, b: Any, j: Any, out: Any, t: Any, at: Any, step: Any) -> None:
    b0, b1, b2, b3 = b[j], b[j + 1], b[j + 2], b[j + 3]
    s0 = s1 = s2 = s3 = out.dtype.type(0)
    for c in range(len(row)):
        s0 += row[c] * b0[c]
        s1 += row[c] * b1[c]
        s2 += row[c] * b2[c]
        s3 += row[c] * b3[c]
    out[t, at], out[t, at + step], out[t, at + 2 * step], out[t, at + 3 * step] = s0, s1, s2, s3


@inner
def _gram_tile(a: Any, i: Any, b: Any, j: Any, out: Any, t: Any, at: Any, step_a: Any, step_b: Any) -> None:
    a0, a1, a2, a3 = a[i], a[i + 1], a[i + 2], a[i + 3]
    b0, b1, b2, b3 = b[j], b[j + 1], b[j + 2], b[j + 3]
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = out.dtype.type(0)
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = out.dtype.type(0)
    for c in range(len(a0)):
        x0, x1, x2, x3 = a0[c], a1[c], a2[c], a3[c]
        y0, y1, y2, y3 = b0[c], b1[c], b2[c], b3[c]
        s00, s01, s02, s03 = s00 + x0 * y0, s01 + x0 * y1, s02 + x0 * y2, s03 + x0 * y3
        s10, s11, s12, s13 = s10 + x1 * y0, s11 + x1 * y1, s12 + x1 * y2, s13 + x1 * y3
        s20, s21, s22, s23 = s20 + x2 * y0, s21 + x2 * y1, s22 + x2 * y2, s23 + x2 * y3
        s30, s31, s32, s33 = s30 + x3 * y0, s31 + x3 * y1, s32 + x3 * y2, s33 + x3 * y3
    one, two, three = step_b, 2 * step_b, 3 * step_b
    out[t, at], out[t, at + one], out[t, at + two], out[t, at + three] = s00, s01, s02, s03
    at += step_a
    out[t, at], out[t, at + one], out[t, at + two], out[t, at + three] = s10, s11, s12, s13
    at += step_a
    out[t, at], out[t, at + one], out[t, at + two], out[t, at + three] = s20, s21, s22, s23
    at += step_a
    out[t, at], out[t, at + one], out[t, at + two], out[t, at + three] = s30, s31, s32, s33
