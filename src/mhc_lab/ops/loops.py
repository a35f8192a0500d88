"""How Numba kernels are compiled, cached and launched.

Loops over tokens run in parallel over blocks of a fixed size, so that results do not depend on the number of threads.
Sums may be reordered within a token (`reassoc`); NaN and inf are kept.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numba import types
from numba.core.compiler import Compiler
from torch import Tensor

from mhc_lab import kernel_cache

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "error_model": "numpy",  # Python's checks each division for zero, and a checked division is not vectorised
    "nogil": True,
}
_INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
TOKENS = 64  # a block: whole vectors of any width, few enough for their streams to stay in the L2 cache
_config: Any = numba.config  # its attributes are made at run time
_lock = threading.Lock()  # Numba's workqueue threads, its last resort, break under two launches at once


class _Unoptimised(Compiler):
    """Numba optimises and assembles every function, though what an inner one becomes is settled in its kernel."""

    def _compile_core(self) -> Any:
        before = _config.OPT
        _config.OPT = type(before)(0)
        try:
            return super()._compile_core()  # type: ignore[no-untyped-call]
        finally:
            _config.OPT = before


def inner(function: Kernel) -> Kernel:
    """A function that kernels call, compiled into them; once for all the constants that it is called with."""
    compiled: Any = numba.njit(forceinline=True, pipeline_class=_Unoptimised, **_INNER, **_OPTIONS)(function)
    template = compiled.get_call_template

    def without_constants(arguments: Any, keywords: Any) -> Any:
        assert not keywords
        return template(tuple(types.unliteral(kind) for kind in arguments), keywords)

    compiled.get_call_template = without_constants
    found: Kernel = compiled
    return found


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
        _config.CACHE_DIR = str(kernel_cache.folder() / ("parallel" if parallel else "sequential"))
        compiled: Callable[..., Any] = numba.njit(parallel=parallel, cache=True, **_OPTIONS)(function)
        _forgive(compiled)
    except (RuntimeError, OSError):  # nowhere to write: compile in each process
        compiled = numba.njit(parallel=parallel, **_OPTIONS)(function)
    finally:
        _config.CACHE_DIR = before
    return compiled


def _forgive(compiled: Any) -> None:
    """A cache that cannot be read (cut short, garbage, somebody else's) is a miss, and is written again; one that
    cannot be written is left alone."""
    cache = compiled._cache
    load, save = cache.load_overload, cache.save_overload

    def load_overload(signature: Any, context: Any) -> Any:
        try:
            return load(signature, context)
        except Exception:  # whatever unpickling comes upon in a damaged file
            with contextlib.suppress(OSError):
                cache.flush()  # an empty index: what lies behind it is not looked at again
            return None

    def save_overload(signature: Any, data: Any) -> None:
        with contextlib.suppress(OSError, EOFError):
            save(signature, data)

    cache.load_overload, cache.save_overload = load_overload, save_overload


def array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The memory of a contiguous fp32 or fp64 CPU tensor."""
    assert tensor.is_contiguous() and tensor.dtype in (torch.float32, torch.float64), (tensor.stride(), tensor.dtype)
    return tensor.numpy()


def wide(tensor: Tensor) -> Tensor:
    """Contiguous, and fp32 where it is narrower: NumPy has no bf16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).contiguous()


def as_wide(tensor: Tensor, like: Tensor) -> Tensor:
    """Contiguous, in the dtype of wide streams: a layer may give its output in any."""
    return tensor.to(like.dtype).contiguous()
