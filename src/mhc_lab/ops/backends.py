"""Which implementation of an operation runs: reference, Triton (gpu) or Numba (cpu)."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mhc_lab import kernel_cache
from mhc_lab.machine import BACKEND_VARIABLE as VARIABLE
from mhc_lab.machine import BACKENDS

_forced: str | None = None  # by `use`, inside its context
_broken: set[tuple[str, str]] = set()  # (operation, backend) that failed to launch once


def requested() -> str:
    """What the user asked for: `use`, else MHC_LAB_BACKEND, else auto. Raises ValueError for an unknown name."""
    name = _forced or os.environ.get(VARIABLE) or "auto"
    if name not in BACKENDS:
        raise ValueError(f"{VARIABLE}={name}: choose one of {', '.join(BACKENDS)}")
    return name


@contextmanager
def use(name: str) -> Iterator[None]:
    """Force a backend while the context lasts: "reference", "gpu", "cpu" or "auto"."""
    global _forced
    if name not in BACKENDS:
        raise ValueError(f"backend '{name}': choose one of {', '.join(BACKENDS)}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def chosen(device: torch.device) -> str:
    """The backend for tensors on `device`: auto takes Triton on a GPU, Numba on a CPU, the reference else."""
    name = requested()
    if name == "auto":
        name = {"cuda": "gpu", "cpu": "cpu"}.get(device.type, "reference")
    if name == "cpu" and device.type != "cpu":
        return "reference"  # an address on another device is none here
    why = kernel_cache.unusable() if name == "cpu" else _without_triton() if name == "gpu" else ""
    if why:
        _warn_once(("", name), f"{why}: operations run on their slower reference")
        return "reference"
    return name


def failed() -> set[tuple[str, str]]:
    """(operation, backend) of the kernels that the reference has replaced in this process."""
    return {key for key in _broken if key[0]}


def try_again() -> None:
    """Let kernels that failed be tried, and warned of, once more: where one shape must not speak for the next."""
    _broken.clear()


def run(operation: str, function: str, like: Tensor, *arguments: Any) -> Any:
    """Call `function` of `mhc_lab.ops.<operation>` in the backend for tensors like `like`, on contiguous tensors.

    A kernel that cannot be built or launched is replaced by the reference, for good and with one warning.
    """
    tidy = [value.contiguous() if isinstance(value, Tensor) else value for value in arguments]
    kind = like.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        with torch.autocast(like.device.type, enabled=False):
            return _dispatch(operation, function, like, tidy)
    return _dispatch(operation, function, like, tidy)


def _dispatch(operation: str, function: str, like: Tensor, tidy: list[Any]) -> Any:
    name = chosen(like.device) if like.numel() else "reference"
    if name == "gpu" and like.dtype == torch.float64:
        name = "reference"  # what the Triton kernels are written for ends at fp32
    if name != "reference" and (operation, name) not in _broken:
        try:
            return _load(operation, name, function)(*tidy)
        except torch.OutOfMemoryError:
            raise  # the reference would need more, not less
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            _warn_once(
                (operation, name),
                f"the {name} kernel of '{operation}' failed and its slower reference runs instead ({reason})",
            )
    return _load(operation, "reference", function)(*tidy)


@functools.cache
def _without_triton() -> str:
    return "" if importlib.util.find_spec("triton") else "triton is not installed"


@functools.cache
def _load(operation: str, backend: str, function: str) -> Callable[..., Any]:
    module: ModuleType = importlib.import_module(f"mhc_lab.ops.{operation}.{backend}")
    found: Callable[..., Any] = getattr(module, function)
    return found


def _warn_once(key: tuple[str, str], message: str) -> None:
    if key not in _broken:
        _broken.add(key)
        warnings.warn(message, RuntimeWarning, stacklevel=3)
