"""Names beside what they name: a column at the right of an axis, and around points, so that none covers another; in a
sentence, the first of many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D, Affine2DBase, ScaledTranslation, Transform, blended_transform_factory

from mhc_lab.report.curves import Array
from mhc_lab.report.figures.style import INK, RowStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 7.5  # points
_LINE = 1.25 * SIZE  # height of a line of text
_FONT = FontProperties(family="DejaVu Sans", size=SIZE)
_CHARACTERS = 26  # of a line
_LONGEST = 60
_TEXT = 37  # points right of the axis where names begin
_POINT = 4.5  # half the width of a marker, with some air
_AIR = 3.0  # points between two names
_STEP = 4.0  # points; a slanted line takes the boxes around pieces of this length
Segment = tuple[tuple[float, float], tuple[float, float]]
Box = tuple[float, float, float, float]  # left, bottom, right, top, in points


@dataclass(frozen=True)
class EndLabel:
    """`text` stands at the height `y` (data) as far as there is room. A row's has its `style`, a reference line's a
    `colour`."""

    y: float
    text: str
    style: RowStyle | None = None
    colour: str = INK


@dataclass(frozen=True)
class PointLabel:
    """The name of a point at x, y (data); a line that leads to it has its `colour`."""

    x: float
    y: float
    text: str
    colour: str


def wrapped(text: str, width: int = _CHARACTERS) -> str:
    """A name of any length on lines of at most `width` characters, broken where words end if possible; its middle is
    left out beyond 60."""
    if len(text) > _LONGEST:
        half = (_LONGEST - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    lines = []
    while len(text) > width:
        cut = max(text.rfind(mark, width // 2, width) for mark in " _-,") + 1 or width
        lines.append(text[:cut].rstrip())
        text = text[cut:]
    return "\n".join([*lines, text])


def column_height(texts: Iterable[str]) -> float:
    """Inches that the labels of a column need, one above the other."""
    return sum(_height(wrapped(text)) for text in texts) / 72


def column_width(texts: Iterable[str]) -> float:
    """Inches from the edge of the axis to the end of the longest label."""
    return (_TEXT + 10 + max(_width(wrapped(text)) for text in texts)) / 72


def label_ends(axes: Axes, labels: Iterable[EndLabel], *, height: float) -> None:
    """A column at the right edge of `axes`, which is about `height` inches high: each label as near to its y as the
    others allow, with a piece of its line; a label whose y is outside of the axis says where with an arrow.

    Set scale and limits of the axis before.
    """
    placed = sorted(((*_fraction(axes, label.y), label) for label in labels), key=lambda entry: entry[0])
    texts = [wrapped(label.text) + mark for _, mark, label in placed]
    places = spread([at for at, _, _ in placed], [_height(text) / 72 / height for text in texts])
    across = _points_right_of(axes)
    for (at, _, label), text, place in zip(placed, texts, places, strict=True):
        colour = label.style.colour if label.style else label.colour
        axes.plot([2, 12], [at, place], transform=across, color=colour, linewidth=0.6, clip_on=False)
        if label.style:
            style = label.style
            axes.plot([12, 34], [place] * 2, transform=across, color=colour, linestyle=style.line, clip_on=False)
            axes.plot(
                [23],
                [place],
                style.marker,
                transform=across,
                color=colour,
                markerfacecolor=style.face,
                markersize=4,
                clip_on=False,
            )
        axes.text(
            _TEXT if label.style else 14,
            place,
            text,
            transform=across,
            color=INK if label.style else colour,
            fontsize=SIZE,
            va="center",
            linespacing=1.1,
            parse_math=False,
        )


def label_points(
    axes: Axes,
    labels: Sequence[PointLabel],
    others: Iterable[tuple[float, float]],
    lines: Iterable[Segment],
    size: tuple[float, float],
) -> None:
    """Each point's name beside it, on no other name or point and off the `lines` (data), with a thin line to it where
    there was room only further away.

    `others` (data) are the points without a name. `size` is that of the axes in inches; set scale and limits before.
    """

    def points(x: float, y: float) -> tuple[float, float]:
        across, up = (axes.transScale + axes.transLimits).transform((x, y))
        return min(max(across, 0.0), 1.0) * size[0] * 72, min(max(up, 0.0), 1.0) * size[1] * 72

    at = [points(label.x, label.y) for label in labels]
    texts = [wrapped(label.text) for label in labels]
    everywhere = [*at, *(points(*other) for other in others)]
    taken = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in everywhere]
    for one, other in lines:
        (x0, y0), (x1, y1) = points(*one), points(*other)
        taken.append((min(x0, x1) - 1.5, min(y0, y1) - 1.5, max(x0, x1) + 1.5, max(y0, y1) + 1.5))
    area = (2.0, 2.0, size[0] * 72 - 2, size[1] * 72 - 2)
    for label, text, (x, y), box in zip(labels, texts, at, around(at, texts, taken, area), strict=True):
        left, bottom, right, top = box
        look: dict[str, Any] = {"xycoords": "axes points", "fontsize": SIZE, "linespacing": 1.1, "parse_math": False}
        middle = ((left + right) / 2, (bottom + top) / 2)
        axes.annotate(text, middle, ha="center", va="center", zorder=5, **look)
        nearest = _led_from((x, y), box)
        if nearest is not None:
            line = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
            axes.annotate("", (x, y), nearest, xycoords="axes points", textcoords="axes points", arrowprops=line)


def spread(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Centres in [0, 1] of labels of these sizes, none on another, in this order, the sum of squares of the distances
    from `wanted` (ascending) least: isotonic regression by pooling neighbours.

    Labels that need more room than there is go on evenly from the middle.
    """
    starts, total = [], 0.0
    for size in sizes:
        starts.append(total + size / 2)
        total += size
    blocks: list[tuple[float, int]] = []
    for at, start in zip(wanted, starts, strict=True):
        mean, count = at - start, 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (mean * count + before * many) / (count + many), count + many
        blocks.append((mean, count))
    shifts = [mean for mean, count in blocks for _ in range(count)]
    slack = 1 - total
    low, high = (0.0, slack) if slack > 0 else (slack / 2, slack / 2)
    return [start + min(max(shift, low), high) for shift, start in zip(shifts, starts, strict=True)]


def around(points: Sequence[tuple[float, float]], texts: Sequence[str], taken: Sequence[Box], area: Box) -> list[Box]:
    """Boxes (points) for texts beside `points`, near them but not on one another, nor on `taken`, nor out of `area`.

    The lines that lead from the farther ones to their points keep off all that too. Where nothing is free,
    what is covered least.
    """
    boxes: list[Box] = []
    names: list[Box] = []  # with the air around them
    full = list(taken)
    for (x, y), text in zip(points, texts, strict=True):
        width, height = _width(text), _height(text)
        covered, inside = _boxes([*full, *names]), _boxes([area])
        best: tuple[float, Box] | None = None
        for reach in (7, 13, 20, 30, 42, 56):
            for turn in (0, 180, 30, -30, 150, -150, 60, -60, 120, -120, 90, -90):
                box = _beside(x, y, width, height, reach, turn)
                cost = sum(_shared(part, covered) for part in (box, *_leader((x, y), box)))
                cost += 4 * (width * height - _shared(box, inside))
                if best is None or cost < best[0] - 1e-9:
                    best = (cost, box)
            if best is not None and best[0] <= 1e-9:
                break
        assert best is not None
        box = best[1]
        boxes.append(box)
        names.append((box[0] - _AIR, box[1], box[2] + _AIR, box[3]))
        full += _leader((x, y), box)
    return boxes


def _led_from(point: tuple[float, float], box: Box) -> tuple[float, float] | None:
    """Where on the box of a name the line to its point begins; None of one that stands beside it."""
    nearest = (min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3]))
    return nearest if math.dist(point, nearest) > 2 * _POINT else None


def _leader(point: tuple[float, float], box: Box) -> list[Box]:
    """What the line from a name to its point takes, up to the point's marker."""
    start = _led_from(point, box)
    if start is None:
        return []
    away, half = math.dist(point, start), _STEP / 2
    parts = np.arange(half, away - _POINT - half, _STEP) / away
    places = [(start[0] + part * (point[0] - start[0]), start[1] + part * (point[1] - start[1])) for part in parts]
    return [(x - half, y - half, x + half, y + half) for x, y in places]


def _beside(x: float, y: float, width: float, height: float, reach: float, turn: float) -> Box:
    """The box that a ray from the point meets after `reach`."""
    across, up = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    left = x + reach * across - width * (1 - across) / 2
    bottom = y + reach * up - height * (1 - up) / 2
    return left, bottom, left + width, bottom + height


def _boxes(boxes: Sequence[Box]) -> Array:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _shared(one: Box, others: Array) -> float:
    """The area that a box shares with `others` [k, 4], each counted for itself."""
    left, bottom, right, top = others.T
    width = np.minimum(one[2], right) - np.maximum(one[0], left)
    height = np.minimum(one[3], top) - np.maximum(one[1], bottom)
    return float(np.sum(np.maximum(width, 0) * np.maximum(height, 0)))


def _width(text: str) -> float:
    """Points."""
    return max(float(text_to_path.get_text_width_height_descent(line, _FONT, False)[0]) for line in text.split("\n"))


def _height(text: str) -> float:
    return _LINE * (text.count("\n") + 1) + 1.5


def _fraction(axes: Axes, y: float) -> tuple[float, str]:
    """Where y is between the ends of the axis (0 to 1), and an arrow if it is beyond one."""
    at = float((axes.transScale + axes.transLimits).transform((axes.get_xlim()[1], y))[1])
    return min(max(at, 0.0), 1.0), " ↑" if at > 1 else " ↓" if at < 0 else ""


def _points_right_of(axes: Axes) -> Transform:
    """x in points from the right edge, y from 0 to 1 along it; holds whatever the layout makes of the axes."""
    figure = axes.get_figure()
    assert figure is not None
    assert isinstance(axes.transAxes, Affine2DBase)
    x = Affine2D().scale(1 / 72) + figure.dpi_scale_trans + ScaledTranslation(1, 0, axes.transAxes)
    return blended_transform_factory(x, axes.transAxes)
