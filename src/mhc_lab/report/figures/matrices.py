"""H_res averaged over tokens, of single layers and of products up to the output (Fig. 8 of the paper)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mhc_lab.report.curves import Array, Probe
from mhc_lab.report.figures.colour import luminance
from mhc_lab.report.figures.labels import wrapped
from mhc_lab.report.figures.mixing import absent, mixing_rows, unprobed_text
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.style import MUTED, PAPER
from mhc_lab.report.frame import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "matrices"
MAX_ROWS = 6  # more do not fit on a page
_COLOURS = mpl.colormaps["RdBu"]  # negative red, positive blue: the colour-blind tell them apart
_DARK, _LIGHT = "#000001", "#fffffe"  # on coloured cells: INK and PAPER change places in the dark
_LONGEST = 60  # characters of a row's name
_PRINTED = 4  # streams up to which every entry is printed
_LABELLED = 8  # streams up to which every sum is
_RASTER = 16  # streams beyond which cells are pixels, not shapes
_NUMBERS, _WORDS = 7.0, 7.5  # sizes of text, points

# In inches: a line of panels has a head with the row's name, titles, and squares of _SIDE with the row sums at their
# left and the column sums below.
_WIDTH, _SUMS, _SIDE, _GAP = 7.0, 0.36, 1.01, 0.03
_HEAD, _TITLE, _FOOT = 0.2, 0.14, 0.34
_LINE = _HEAD + _TITLE + _SIDE + _FOOT
_BAR = 0.5  # below all lines


def draw(material: Material) -> Plot | Absent:
    """A line of matrices for each row that mixes: of its first, middle and last layer, and products from the first and
    the middle layer up to the output, all of one seed.

    One seed, as the paper shows one model: a mean over seeds would be the matrix of none of them.
    Absent where no finished run of a row that mixes has a probe.
    """
    study = material.study
    mixing = mixing_rows(study)
    probed = [row for row in mixing if material.probes.get(row)]
    if not probed:
        return absent(NAME, mixing)
    rows = _one_of_each_variant(study, probed)
    height = len(rows) * _LINE + _BAR
    figure = Figure(figsize=(_WIDTH, height), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))  # one for all, in inches: sixty axes would take longer than all they hold
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    for place, row in enumerate(rows):
        seed = min(material.probes[row])
        top = place * _LINE
        axes.text(0.04, top + 0.13, wrapped(row, _LONGEST), fontsize=8.5, weight="bold", parse_math=False)
        axes.text(_WIDTH - 0.04, top + 0.13, f"seed {seed}", fontsize=_WORDS, color=MUTED, ha="right")
        for column, (title, matrix) in enumerate(_matrices(material.probes[row][seed])):
            _draw_matrix(axes, column * (_SUMS + _SIDE + _GAP) + _SUMS, top + _HEAD + _TITLE, title, matrix)
    _draw_bar(axes, height - _BAR)
    caption = _caption(material, rows)
    if len(probed) > len(rows):
        caption += f" {len(rows)} of the {len(mixing)} rows that mix, of as many variants as possible."
    return Plot(NAME, "H_res, averaged over tokens", caption + unprobed_text(material, mixing), figure)


def _one_of_each_variant(study: Study, rows: Sequence[str]) -> list[str]:
    """MAX_ROWS of the rows, in the study's order, with as many variants among them as possible."""
    variants = {row["row"]: row["variant"] for row in study.rows}
    seen: Counter[str] = Counter()
    turns = {}
    for row in rows:
        turns[row] = seen[variants[row]]
        seen[variants[row]] += 1
    kept = set(sorted(rows, key=turns.__getitem__)[:MAX_ROWS])
    return [row for row in rows if row in kept]


def _matrices(probe: Probe) -> list[tuple[str, Array]]:
    """Titles and matrices [n, n]; layers are counted from 1."""
    layers = len(probe.h_res)
    middle = (layers + 1) // 2
    single = [(f"layer {layer}", probe.h_res[layer - 1]) for layer in dict.fromkeys((1, middle, layers))]
    starts = [layer for layer in dict.fromkeys((1, middle)) if layer < layers]
    return single + [(f"layers {layer}–{layers}", probe.h_res_composite[layer - 1]) for layer in starts]


def _draw_matrix(axes: Axes, left: float, top: float, title: str, matrix: Array) -> None:
    """Cells coloured from minus to plus the largest |entry|, its sums at the left and below."""
    n = len(matrix)
    most = float(np.abs(matrix[np.isfinite(matrix)]).max(initial=0.0))
    power = _power(most)
    matrix, most = matrix / 10.0**power, most / 10.0**power or 1.0
    edges = np.linspace(0, _SIDE, n + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    axes.pcolormesh(
        left + edges,
        top + edges,
        matrix / most,
        cmap=_COLOURS,
        vmin=-1,
        vmax=1,
        edgecolors=PAPER if n <= _RASTER else "none",
        linewidth=0.6 if n <= _LABELLED else 0.2,
        rasterized=n > _RASTER,
    )
    if n <= _PRINTED:
        for row, column in np.ndindex(n, n):
            value = float(matrix[row, column])
            colour = _DARK if _is_light(value / most) else _LIGHT
            x, y = left + float(middles[column]), top + float(middles[row])
            _number(axes, x, y, tiny(value), color=colour, ha="center")
    else:
        title += f", ±{short(most)}"
        below = np.argwhere(matrix < -0.05 * most)
        size = min(2.0, 0.25 * 72 * _SIDE / n)
        axes.plot(left + middles[below[:, 1]], top + middles[below[:, 0]], ".", color=_DARK, markersize=size, mew=0)
    if power:
        title += rf" $\times10^{{{power}}}$"
    long = n > _PRINTED or power  # to the right there may be no room
    axes.text(left + (_SIDE if long else 0), top - 0.05, title, fontsize=_WORDS, ha="right" if long else "left")
    _draw_sums(axes, left, top, middles, matrix)


def _is_light(part: float) -> bool:
    """Whether dark text has more contrast than light text on the cell of an entry, given as a part of the largest.

    Source: contrast ratio of WCAG 2.2, (L1 + 0.05) / (L2 + 0.05).
    """
    colour = _COLOURS(0.5 + 0.5 * part if math.isfinite(part) else 0.5)[:3]
    return luminance(colour) > math.sqrt(1.05 * 0.05) - 0.05


def _draw_sums(axes: Axes, left: float, top: float, middles: Array, matrix: Array) -> None:
    with np.errstate(invalid="ignore"):  # of infinities
        of_rows, of_columns = matrix.sum(axis=1), matrix.sum(axis=0)
    x, y = left - 0.03, top + _SIDE + 0.03
    if len(matrix) <= _LABELLED:
        for middle, row, column in zip(middles, of_rows, of_columns, strict=True):
            _number(axes, x, top + middle, short(row), ha="right")
            _number(axes, left + middle, y, short(column), ha="center", va="top", rotation=90)
        return
    _number(axes, x, top + _SIDE / 2, _range(of_rows), ha="right", rotation=90)
    _number(axes, left + _SIDE / 2, y, _range(of_columns), ha="center", va="top")


def _number(axes: Axes, x: float, y: float, text: str, *, va: str = "center_baseline", **how: Any) -> None:
    axes.text(x, y, text, fontsize=_NUMBERS, va=va, **how)


def _draw_bar(axes: Axes, top: float) -> None:
    """What the colours are, and what the numbers beside a matrix."""
    words = "left of a matrix: row sums (forward); below: column sums (backward)"
    axes.text(0.04, top + 0.32, words, fontsize=_WORDS, color=MUTED)
    edges = np.linspace(-1, 1, 65)
    left, width, y = 4.8, 2.0, top + 0.2
    parts = ((edges[1:] + edges[:-1]) / 2)[None]
    axes.pcolormesh(left + width * (edges + 1) / 2, [y, y + 0.1], parts, cmap=_COLOURS, vmin=-1, vmax=1)
    for part, text in ((-1, "−1"), (0, "0"), (1, "1")):
        axes.text(left + width * (part + 1) / 2, y + 0.13, text, fontsize=_NUMBERS, ha="center", va="top")
    words = "entry / largest |entry| of its matrix"
    axes.text(left + width / 2, y - 0.04, words, fontsize=_NUMBERS, color=MUTED, ha="center")


def _caption(material: Material, rows: Sequence[str]) -> str:
    streams = {row["row"]: row["streams"] for row in material.study.rows}
    seeds = {min(material.probes[row]) for row in rows}
    text = (
        "H_res averaged over the tokens of one validation window at the last step, of single layers and of products "
        "from a layer up to the output, with row sums (left) and column sums (below), as in Fig. 8 of the mHC paper. "
        + ("One seed each." if len(seeds) > 1 else f"Seed {min(seeds)} alone.")
    )
    if any(streams[row] > _PRINTED for row in rows):
        text += " Above a matrix without numbers, the largest |entry|; dots are entries below −5 % of it."
    return text


def short(value: float) -> str:
    """A sum to three digits or so."""
    size = abs(value)
    places = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return _signed(value, "−", places)


def tiny(value: float) -> str:
    """An entry below 1000, narrower than four digits: no 0 before the point, a short minus and fewer places with it."""
    size = abs(value)
    places = 2 if size < (0.995 if value < 0 else 9.995) else 1 if size < (9.95 if value < 0 else 99.95) else 0
    text = _signed(value, "–", places)
    return "0" if text == "0.00" else text.replace("0.", ".", 1) if size < 0.995 else text


def _signed(value: float, minus: str, places: int) -> str:
    if not math.isfinite(value):
        return "?" if math.isnan(value) else "∞" if value > 0 else f"{minus}∞"
    return f"{value:z.{places}f}".replace("-", minus)


def _range(values: Array) -> str:
    return f"{short(values.min())} to {short(values.max())}"


def _power(most: float) -> int:
    """Of ten, by which entries up to `most` are divided so that a few digits show them; mostly 0."""
    return 0 if 0.1 <= most < 1000 or most == 0 else math.floor(math.log10(most))
