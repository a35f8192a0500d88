"""Studies: a set of runs with one purpose, pulled by workers from an Optuna storage.

`ablate` and `sweep` are what `mhc-lab ablate` and `mhc-lab sweep` call; see their docstrings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mhc_lab.study.engine import ablate as ablate
    from mhc_lab.study.sweep import sweep as run_sweep

__all__ = ["ablate", "run_sweep"]


def __getattr__(name: str) -> Any:
    """Imported when first asked for: Optuna takes a while, and `--help` answers at once."""
    if name == "ablate":
        from mhc_lab.study.engine import ablate

        return ablate
    if name == "run_sweep":
        from mhc_lab.study.sweep import sweep

        return sweep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
