"""Residual connections: variants, constraints, ends. Importing this package does not import torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mhc_lab.residual.registry import Variant, constraints, register_constraint, register_variant, variants

if TYPE_CHECKING:
    from mhc_lab.residual.connection import Connection, ConnectionCost, Mappings
    from mhc_lab.residual.constraints.base import Constraint
    from mhc_lab.residual.ends import collapse, expand
    from mhc_lab.residual.factory import build, build_all

_LAZY = {
    "build": "factory",
    "build_all": "factory",
    "Connection": "connection",
    "ConnectionCost": "connection",
    "Mappings": "connection",
    "Constraint": "constraints.base",
    "expand": "ends",
    "collapse": "ends",
}

__all__ = [
    "Connection",
    "ConnectionCost",
    "Constraint",
    "Mappings",
    "Variant",
    "build",
    "build_all",
    "collapse",
    "constraints",
    "expand",
    "register_constraint",
    "register_variant",
    "variants",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
