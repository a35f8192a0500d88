"""How curves over seeds are laid out: all rows in one panel, and where bands would hide one another, a panel a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mhc_lab.report.figures.labels import EndLabel, column_height, column_width, label_ends, wrapped
from mhc_lab.report.figures.seed_curves import SeedCurves
from mhc_lab.report.figures.style import LOST, PAPER, RowStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BANDS = 4  # lines in one panel whose bands can still be told apart
_BAND_ROOM = 1.0  # times its length that an axis may grow at each end for them
_POINTS = 150  # in a small panel, which is about as many pixels wide
# Inches: the figure, what stands left of the panels, above and below the large one, and the height of a small one.
_WIDTH, _LEFT, _SMALL_LEFT, _ABOVE, _BELOW, _SMALL = 7.0, 1.0, 0.47, 0.2, 0.5, 1.02  # above stands an axis' 1e−5
_ACROSS = (5, 4, 3)  # small panels side by side
_TITLE = 20  # characters that fit above it


@dataclass(frozen=True)
class Scene:
    """What all panels share: axes and what lies behind the lines; the names beside the large one other than those of
    its lines; the row that small panels repeat, thin, for comparison; the `early` part of the points, which the
    axis is not for."""

    xlim: tuple[float, float]
    ylim: tuple[float, float]
    log: bool
    xlabel: str
    ylabel: str
    labels: Sequence[EndLabel] = ()
    behind: Callable[[Axes], None] | None = None
    repeated: str | None = None
    early: float = 0.0


def lay_out(
    lines: Mapping[str, SeedCurves], styles: Mapping[str, RowStyle], names: Mapping[str, str], scene: Scene
) -> tuple[Figure, str]:
    """Lines by row; `names` are what stands for them. Up to BANDS lines carry their bands in the one panel; more have
    a panel each with its band below it, its axis longer where bands need it. With the figure, what its caption says of
    bands that are cut all the same.
    """
    labels = [EndLabel(float(line.mean[-1]), names[row], styles[row]) for row, line in lines.items()]
    labels += scene.labels
    large = max(2.3, column_height(label.text for label in labels) + 0.1)
    apart = len(lines) > BANDS
    across = min(_ACROSS, key=lambda count: (-(-len(lines) // count), count))
    titles = {row: wrapped(names[row], _TITLE) for row in lines}
    small = _SMALL + 0.14 * max(title.count("\n") for title in titles.values())
    height = _ABOVE + large + _BELOW + (small * -(-len(lines) // across) + 0.25 if apart else 0)

    # Placed by hand: matplotlib's layout of a dozen panels takes longer than everything else about a study's figures.
    figure = Figure(figsize=(_WIDTH, height), facecolor=PAPER)

    def panel(left: float, top: float, width: float, high: float, ylim: tuple[float, float]) -> Axes:
        axes = figure.add_axes((left / _WIDTH, 1 - (top + high) / height, width / _WIDTH, high / height))
        _prepare(axes, scene, ylim)
        return axes

    axes = panel(_LEFT, _ABOVE, _WIDTH - _LEFT - column_width(label.text for label in labels), large, scene.ylim)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))  # steps, tokens, layers
    axes.set_xlabel(scene.xlabel)
    axes.set_ylabel(scene.ylabel)
    for place, (row, line) in enumerate(lines.items()):
        draw(axes, line, styles[row], band=not apart, shift=(place % 5) / 5)
    label_ends(axes, labels, height=large)
    ylim = with_bands(list(lines.values()), scene.ylim, early=scene.early, log=scene.log) if apart else scene.ylim
    for place, (row, line) in enumerate(lines.items() if apart else ()):
        down, right = divmod(place, across)
        wide = (_WIDTH - _SMALL_LEFT) / across
        top = _ABOVE + large + _BELOW + (down + 1) * small - _SMALL + 0.2
        axes = panel(_SMALL_LEFT + right * wide, top, wide - 0.13, _SMALL - 0.3, ylim)
        draw(axes, line.thinned(_POINTS), styles[row], marks=0)
        if scene.repeated is not None and row != scene.repeated:
            other = lines[scene.repeated].thinned(_POINTS)
            axes.plot(other.x, other.mean, color=styles[scene.repeated].colour, linewidth=0.7, zorder=2)
        _dress(axes, titles[row], left=right == 0, last=place + across >= len(lines))
    ends = np.concatenate([line.bands(scene.early) for line in lines.values()])
    cut = bool((ends < ylim[0]).any() or (ends > ylim[1]).any())
    return figure, " Bands are cut at the axis." if cut else ""


def with_bands(
    lines: Sequence[SeedCurves], ylim: tuple[float, float], *, early: float, log: bool = False
) -> tuple[float, float]:
    """The ends of an axis, moved by up to _BAND_ROOM of its length to hold the bands behind the `early` part."""
    scaled = np.log if log else np.asarray
    room = _BAND_ROOM * np.ptp(scaled(ylim))
    ends = np.concatenate([line.bands(early) for line in lines])
    ends = ends[(scaled(ends) >= scaled(ylim[0]) - room) & (scaled(ends) <= scaled(ylim[1]) + room)]
    return float(np.min([ylim[0], *ends])), float(np.max([ylim[1], *ends]))


def _dress(axes: Axes, title: str, *, left: bool, last: bool) -> None:
    """A small panel's title and ticks; numbers only where no panel with the same ones follows."""
    axes.set_title(title, fontsize=7.2, loc="left", pad=3, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(4, prune="upper", integer=True))
    if axes.get_yscale() == "log":
        axes.minorticks_off()
    else:
        axes.locator_params(axis="y", nbins=4)
    axes.tick_params(labelsize=7, length=2, pad=2, labelleft=left, labelbottom=last)


def _prepare(axes: Axes, scene: Scene, ylim: tuple[float, float]) -> None:
    if scene.log:
        axes.set_yscale("log")
    axes.set_xlim(*scene.xlim)
    axes.set_ylim(*ylim)
    axes.grid(True, axis="y")
    if scene.behind is not None:
        scene.behind(axes)


def draw(
    axes: Axes, line: SeedCurves, style: RowStyle, *, band: bool = True, marks: int = 5, shift: float = 0.5
) -> None:
    """The line and its band; dotted from the first lost seed on, a × where each ended. Set scale and limits before.

    `marks` markers, the first after `shift` of the distance between two, tell lines apart in grey.
    """
    bottom, top = sorted(axes.get_ylim())
    far = 20 * (top - bottom)  # surges by many powers of ten are cut where nobody sees it
    mean = line.mean if axes.get_yscale() == "log" else np.clip(line.mean, bottom - far, top + far)
    first_lost = len(line.x) if line.whole.all() else int(np.argmin(line.whole))
    look: dict[str, Any] = {"color": style.colour, "zorder": 2.5}
    solid = look | {"linestyle": style.line}
    if marks or len(line.x) == 1:
        every = max(1, len(line.x) // max(marks, 1))
        solid |= {"marker": style.marker, "markerfacecolor": style.face, "markersize": 3.5}
        first = min(int(shift * every), max(first_lost - 1, 0))
        # None of a few at the very edge, which would cut it in half.
        solid |= {"markevery": slice(first, len(line.x) - (every > 1), every)}
    axes.plot(line.x[:first_lost], mean[:first_lost], **solid)
    if first_lost < len(line.x):
        since = max(first_lost - 1, 0)
        axes.plot(line.x[since:], mean[since:], linestyle=LOST, linewidth=1.1, **look)
    if band:
        low, high = np.clip(line.low, bottom, top), np.clip(line.high, bottom, top)
        axes.fill_between(line.x, low, high, color=style.colour, alpha=0.18, linewidth=0, zorder=1.5)
    if line.ends:
        xs, ys = zip(*line.ends, strict=True)
        axes.plot(xs, np.clip(ys, bottom, top), "x", markersize=5, markeredgewidth=1.4, clip_on=False, **look)
