"""Coefficients and read in plain torch."""

from __future__ import annotations

import functools

from mhc_lab.ops.coefficients import reference as coefficients
from mhc_lab.ops.coefficients_read import parts
from mhc_lab.ops.read import reference as read

forward = functools.partial(parts.forward, coefficients, read)
backward = functools.partial(parts.backward, coefficients, read)
