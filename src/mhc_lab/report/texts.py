"""Numbers as people read them: rounded by their uncertainty, with a true minus."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

BLANK = "–"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet's formulas begin with


def with_interval(mean: float, half_width: float | None, *, sign: bool = False) -> str:
    """`mean ± half_width` to the second significant digit of the half width; four decimals without one."""
    if half_width is None or pd.isna(half_width):
        return decimal(mean, 4, sign=sign)
    places = _places(half_width)
    return f"{decimal(mean, places, sign=sign)} ± {half_width:.{places}f}"


def interval(low: float, high: float) -> str:
    """`[low, high]` to the second significant digit of half its width."""
    if pd.isna(low) or pd.isna(high):
        return BLANK
    places = _places((high - low) / 2)
    return f"[{decimal(low, places, sign=True)}, {decimal(high, places, sign=True)}]"


def spanned(low: float, high: float) -> str:
    """`low–high` in whole numbers; one of them where they round alike."""
    if pd.isna(high):
        return BLANK
    ends = dict.fromkeys(f"{end:,.0f}" for end in (low, high))
    return "–".join(ends)


def p_value(p: float) -> str:
    """Three decimals; one more where they would hide on which side of .05 it is."""
    if pd.isna(p):
        return BLANK
    if p < 1e-3:
        return "< 0.001"
    return f"{p:.4f}" if f"{p:.3f}" == "0.050" else f"{p:.3f}"


def p_text(p: float) -> str:
    """As `p_value`, in a sentence: p = 0.012, p < 0.001."""
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _places(half_width: float) -> int:
    if half_width <= 0:
        return 4
    return min(max(1 - math.floor(math.log10(float(f"{half_width:.1e}"))), 0), 6)


def decimal(value: float, places: int, *, sign: bool = False) -> str:
    return f"{value:{'+' if sign else ''}z.{places}f}".replace("-", "−")


def signed(value: float) -> str:
    """As short as it is exact, with its sign; 0 has none."""
    if pd.isna(value):
        return BLANK
    return "0" if value == 0 else f"{value:+g}".replace("-", "−")


def number(value: float) -> str:
    """Three digits or so."""
    if pd.isna(value):
        return BLANK
    if abs(value) >= 1e6:
        return f"{value:.2e}"
    return f"{value:,.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def count(value: float) -> str:
    """Of parameters: 234k, 1.23M."""
    if pd.isna(value):
        return BLANK
    rounded = float(f"{value:.3g}")
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if rounded >= unit:
            return f"{rounded / unit:g}{name}"
    return f"{value:.0f}"


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV. Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay so."""

    def tame(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value[:1] in FORMULA else value

    return str(frame.map(tame).rename(columns=tame).to_csv(index=False))
