"""How light a colour looks."""

from __future__ import annotations

from collections.abc import Sequence


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance, from 0 to 1, of an sRGB colour whose red, green and blue are from 0 to 1.

    Source: WCAG 2.2, definition of relative luminance.
    """
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
