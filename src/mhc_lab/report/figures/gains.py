"""Amax gains of H_res by layer, of single layers and of products up to the output (Fig. 3 and 7 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mhc_lab.report.curves import Array, Probe
from mhc_lab.report.figures.labels import wrapped
from mhc_lab.report.figures.line_panels import BANDS
from mhc_lab.report.figures.mixing import absent, mixing_rows, unprobed_text
from mhc_lab.report.figures.paper import HC_COMPOSITE_GAIN, MHC_COMPOSITE_GAIN, Reference
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.seed_curves import row_text
from mhc_lab.report.figures.style import MUTED, PAPER, REFERENCE, RowStyle, drawn_rows, row_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "gains"
SINGLE = {"gain_forward": "single layer, forward", "gain_backward": "single layer, backward"}
COMPOSITE = {
    "composite_gain_forward": "composite up to the output, forward",
    "composite_gain_backward": "composite up to the output, backward",
}
Dashes = tuple[float, tuple[float, ...]]

_REFERENCES: tuple[tuple[Reference, Dashes], ...] = (
    (HC_COMPOSITE_GAIN, (0, (1, 1))),
    (MHC_COMPOSITE_GAIN, (0, (4, 2))),
)
_ROUNDING = 1e-6  # of sums of fp32 entries of order 1
_LEAST_SPAN = 0.01  # of an axis, in decades: gains within 2 % of each other shall not look apart
_UNNAMED = "_"  # the label of a line that the legend leaves out
_NAME_WIDTH = 48  # characters of a line of the legend, of which the paper's numbers have the longest
_MOST_STRETCH = 3.0  # how much longer the paper's numbers may make an axis than the runs' own gains do


def draw(material: Material) -> Plot | Absent:
    """Four panels: single-layer and composite gain, forward and backward; one line a row that mixes its streams.

    Lines are geometric means over the seeds, bands their range, which more than BANDS rows would hide. Rows that
    cannot mix share one grey line at 1.
    Absent where no finished run of a row that mixes has a probe.
    """
    study = material.study
    probes = {row: list(found.values()) for row, found in material.probes.items() if found}
    mixing = mixing_rows(study)
    curved = [row for row in probes if row in mixing or not _all_one(probes[row])]
    if not curved:
        return absent(NAME, mixing)
    rows, left_out = drawn_rows(study, curved)
    still = [row["row"] for row in study.rows if row["row"] in probes and row["row"] not in curved]

    bands = len(rows) <= BANDS
    figure = Figure(figsize=(7.0, 4.7), layout="constrained", facecolor=PAPER)
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(1, 1.25))
    styles = row_styles(study)
    for letter, panel, (gain, title) in zip("abcd", axes.flat, (SINGLE | COMPOSITE).items(), strict=True):
        panel.set_title(f"({letter}) {title}", loc="left")
        panel.axhline(1.0, color=MUTED, linewidth=0.8, zorder=1, label=_still_label(still))
        for row in rows:
            gains = np.stack([getattr(probe, gain) for probe in probes[row]])
            _draw_row(panel, gains, styles[row], row_text(study, row), band=bands)

    drawn = [probe for row in rows for probe in probes[row]]
    _scale(axes[0], _values(drawn, SINGLE))
    references, beyond = _within_reach(_values(drawn, COMPOSITE))
    for reference, dashes in references:
        _draw_reference(axes[1], reference, dashes)
    _scale(axes[1], np.append(_values(drawn, COMPOSITE), [reference.value for reference, _ in references]))
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes[0, 0].set_xlim(left=0.5)
    for panel in axes[1]:
        panel.set_xlabel("layer (attention and FFN count as one each)")
    for panel in axes[:, 0]:
        panel.set_ylabel("Amax gain")
    _draw_legend(figure, axes[1, 0])
    caption = _caption(material, rows, beyond, drawn) + left_out + unprobed_text(material, mixing)
    return Plot(NAME, "Gain of H_res by layer", caption, figure)


def _draw_legend(figure: Figure, panel: Axes) -> None:
    """Below the panels, in as many columns as the width of the figure (and no more than 4) allows."""
    handles = [line for line in panel.lines if line.get_label() != _UNNAMED]
    names = [wrapped(str(line.get_label()), _NAME_WIDTH) for line in handles]
    fits = (count for count in (4, 3, 2, 1) if _legend_width(names, count) < 72 * figure.get_figwidth())
    columns = next(fits, 1)
    lines = max(sum(name.count("\n") + 1 for name in part) for part in _columns(names, columns))
    figure.set_figheight(figure.get_figheight() + 0.17 * lines)
    legend = figure.legend(handles, names, loc="outside lower center", ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _legend_width(names: Sequence[str], columns: int) -> float:
    """About, in points."""
    lines = [[line for name in part for line in name.split("\n")] for part in _columns(names, columns)]
    return sum(40 + 4.6 * max(map(len, part), default=0) for part in lines)


def _columns(names: Sequence[str], columns: int) -> list[Sequence[str]]:
    """A legend is filled column by column."""
    heights = [len(names) // columns + (place < len(names) % columns) for place in range(columns)]
    ends = np.cumsum(heights)
    return [names[end - height : end] for end, height in zip(ends, heights, strict=True)]


def _all_one(probes: Iterable[Probe]) -> bool:
    values = _values(probes, SINGLE | COMPOSITE)
    return bool(np.all(np.abs(values - 1) <= _ROUNDING))


def _values(probes: Iterable[Probe], gains: Iterable[str]) -> Array:
    """All of them in one line."""
    names = list(gains)
    return np.concatenate([getattr(probe, gain) for probe in probes for gain in names])


def _still_label(rows: Sequence[str]) -> str:
    """Of the line at 1."""
    if not rows:
        return _UNNAMED
    return f"1: {', '.join(rows)}" if len(rows) <= 2 else f"1: {rows[0]} and {len(rows) - 1} others"


def _draw_row(panel: Axes, gains: Array, style: RowStyle, label: str, *, band: bool) -> None:
    """`gains` are [seeds, L]."""
    layers = np.arange(1, gains.shape[1] + 1)
    with np.errstate(divide="ignore"):  # a gain of 0 has a mean of 0
        mean = np.exp(np.log(gains).mean(axis=0))
    if band and len(gains) > 1:
        panel.fill_between(layers, gains.min(axis=0), gains.max(axis=0), color=style.colour, alpha=0.15, linewidth=0)
    panel.plot(
        layers,
        mean,
        color=style.colour,
        linestyle=style.line,
        marker=style.marker,
        markerfacecolor=style.face,
        markevery=math.ceil(len(layers) / 12),
        label=label,
    )


def _within_reach(gains: Array) -> tuple[list[tuple[Reference, Dashes]], list[Reference]]:
    """The paper's numbers that can be drawn without squashing the runs' own gains, and the others."""
    low, high = _limits(gains)
    own = math.log10(high / low)
    near, beyond = [], []
    for reference, dashes in _REFERENCES:
        stretched = math.log10(max(high, reference.value) / min(low, reference.value))
        if stretched <= _MOST_STRETCH * own:
            near.append((reference, dashes))
        else:
            beyond.append(reference)
    return near, beyond


def _draw_reference(panels: Sequence[Axes], reference: Reference, dashes: Dashes) -> None:
    for panel in panels:
        panel.axhline(
            reference.value, color=REFERENCE, linewidth=1.1, linestyle=dashes, zorder=1.5, label=reference.label
        )
        panel.annotate(
            f"{reference.value:g}",
            (1.0, reference.value),
            xycoords=("axes fraction", "data"),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=REFERENCE,
        )


def _limits(gains: Array) -> tuple[float, float]:
    """Of what can stand on a log axis, with 1 among it; beyond 1e±250 a margin around them would be no number."""
    shown = np.append(gains[np.isfinite(gains) & (gains > 0)], 1.0).clip(1e-250, 1e250)
    return float(shown.min()), float(shown.max())


def _scale(panels: Sequence[Axes], gains: Array) -> None:
    """A log axis around these gains, with ticks that people read."""
    low, high = (math.log10(limit) for limit in _limits(gains))
    missing = max(0.0, _LEAST_SPAN - (high - low)) / 2
    low, high = low - missing, high + missing
    margin = 0.05 * (high - low)
    for panel in panels:
        panel.set_yscale("log", nonpositive="clip")
        panel.set_ylim(10 ** (low - margin), 10 ** (high + margin))
        panel.grid(True, axis="y")
        panel.yaxis.set_minor_locator(NullLocator())
        if high - low < 0.9:
            panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        else:
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low < 2 else (1,), numticks=8))
            panel.yaxis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, _: int | None = None) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    return f"$10^{{{round(math.log10(value))}}}$"


def _caption(material: Material, rows: Sequence[str], beyond: Sequence[Reference], drawn: Sequence[Probe]) -> str:
    bands = f"no bands, which {len(rows)} rows would hide" if len(rows) > BANDS else "bands: their range"
    several = any(len(material.probes[row]) > 1 for row in rows)
    text = (
        "Amax gain of H_res on one validation window at the last step: forward the largest |row sum|, backward the "
        "largest |column sum|, means over its tokens; (c, d) of the product from a layer to the output, as in Fig. 3 "
        f"and 7 of the mHC paper. {f'Lines: geometric means over the seeds; {bands}.' if several else ''}"
    ).rstrip()
    if beyond:
        text += f" Beyond the axis: {', '.join(reference.label for reference in beyond)}."
    values = _values(drawn, SINGLE | COMPOSITE)
    if (values <= 0).any():
        text += " A line that leaves at the bottom is a gain of 0."
    if not np.isfinite(values).all():
        text += " A line breaks where a gain is not finite."
    return text
