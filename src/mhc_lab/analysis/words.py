"""Lists in options, checked."""

from __future__ import annotations

from collections.abc import Sequence

from mhc_lab.errors import LabError, nearest

MAX_T = 10_000


def chosen(option: str, text: str, known: Sequence[str]) -> list[str]:
    """Names as in plain,log, without repetition; LabError for one that is not known, and for none."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise LabError(f"{option} {name}: {nearest(name, known)}")
    if not names:
        raise LabError(f"{option}: choose some of {', '.join(known)}")
    return names


def iterations(option: str, text: str) -> list[int]:
    """Numbers as in 1,2,5, in order; LabError for what is no number of iterations."""
    found = []
    for part in text.split(","):
        if not part.strip().isdecimal() or not 1 <= int(part) <= MAX_T:
            raise LabError(f"{option} {text}: give whole numbers from 1 to {MAX_T} as 1,2,5")
        found.append(int(part))
    return sorted(set(found))


def within(option: str, value: float, low: float, high: float) -> None:
    """LabError unless low <= value <= high."""
    if not low <= value <= high:
        raise LabError(f"{option} {value:g}: must be from {low:g} to {high:g}")
