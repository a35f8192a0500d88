"""Coefficients and read on a GPU: its two kernels."""

from __future__ import annotations

import functools
from typing import Any

from mhc_lab.ops.coefficients import gpu as coefficients
from mhc_lab.ops.coefficients_read import parts
from mhc_lab.ops.read import gpu as read

forward = functools.partial(parts.forward, coefficients, read)
backward = functools.partial(parts.backward, coefficients, read)


def variants() -> list[Any]:
    """None of its own: see `coefficients.gpu` and `read.gpu`."""
    return []
