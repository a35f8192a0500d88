"""How all figures look: a variant has one hue everywhere, a row one shade, marker and line; readable in grey too."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from mhc_lab.report.frame import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = str | tuple[float, tuple[float, ...]]

# The report page swaps these four for its own in the dark, so nothing but text, lines and empty faces may use them.
INK, MUTED, GRID, PAPER = "#1a1a1b", "#5d5d5e", "#e3e3e4", "#ffffff"
REFERENCE = "#a3428f"  # the paper's numbers
DPI = 200

MAX_ROWS = 12  # in one figure, beside baselines and control arms; more lines cannot be told apart

# Okabe and Ito (2008), Color Universal Design; yellow, too light for lines on paper, is left out.
_VARIANTS = {
    "identity": (INK, "o"),
    "identity_wide": ("#8f8f8f", "s"),
    "hc": ("#d55e00", "^"),
    "mhc": ("#0072b2", "D"),
    "identity_hc": ("#56b4e9", "v"),
    "orthogonal": ("#009e73", "P"),
    "row_stochastic": ("#e69f00", "<"),
    "column_stochastic": ("#cc79a7", ">"),
    "unconstrained": ("#8c510a", "X"),
}
_OTHERS = (
    ("#6a3d9a", "p"),
    ("#7f7f00", "h"),
    ("#b2182b", "d"),
    ("#01665e", "*"),
    ("#4053d3", "8"),
    ("#dd5182", "H"),
)
# Dots are not among them: they are for what the seeds still alive say after one was lost.
_LINES: tuple[Line, ...] = ("-", (0, (5, 1.5)), (0, (6, 1.2, 1.2, 1.2)), (0, (2.5, 1.2)))
LOST: Line = (0, (1, 1.4))
_CONTROL: Line = (0, (3.5, 3.5))
_SHADES = {False: (0.0, 0.3, -0.2), True: (0.0, -0.25, -0.45)}  # to white or black; of hues that are light already


@dataclass(frozen=True)
class RowStyle:
    """Of one row. `line` and `filled` tell the rows of one variant apart, in grey too."""

    colour: str
    marker: str
    line: Line
    filled: bool

    @property
    def face(self) -> str:
        """The fill of its markers."""
        return self.colour if self.filled else PAPER


def row_styles(study: Study) -> dict[str, RowStyle]:
    """Of every row: marker and hue are its variant's; the rows of one variant differ in shade, line and fill."""
    styles = {}
    variants = variant_looks([row["variant"] for row in study.rows])
    count: dict[str, int] = {}
    for row in study.rows:
        if row["control"]:
            styles[row["row"]] = RowStyle(MUTED, "o", _CONTROL, filled=False)
            continue
        place = count[row["variant"]] = count.get(row["variant"], -1) + 1
        colour, marker = variants[row["variant"]]
        if colour != INK:
            shades = _SHADES[_light(colour)]
            colour = _shade(colour, shades[place % len(shades)])
        turn, line = divmod(place, len(_LINES))
        styles[row["row"]] = RowStyle(colour, marker, _LINES[line], filled=turn % 2 == 0)
    return styles


def drawn_rows(study: Study, names: Iterable[str] | None = None, most: int = MAX_ROWS) -> tuple[list[str], str]:
    """The rows of a figure in the study's order, and what its caption says of those left out ("" if none is).

    The first `most` of `names` (every row, if not given) that are neither baseline nor control arm, with the baselines
    that these are measured from and their control arms.
    """
    wanted = {row["row"] for row in study.rows} if names is None else set(names)
    fixed = {row["row"] for row in study.rows if row["control"]} | set(study.baselines)
    rows = [row["row"] for row in study.rows if row["row"] in wanted - fixed]
    baselines = {study.baseline_of(row) for row in rows[:most]} or set(study.baselines)
    controls = {study.control_of(baseline) for baseline in baselines}
    kept = set(rows[:most]) | wanted & (baselines | controls)
    note = f" Drawn are the first {most} of {len(rows)} rows." if len(rows) > most else ""
    return [row["row"] for row in study.rows if row["row"] in kept], note


def panels(widths: Sequence[float] = (1,), *, height: float = 2.9, width: float = 7.0) -> tuple[Figure, list[Axes]]:
    """A figure of the width of a page (inches) with panels side by side, lettered if there are several."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    axes = list(figure.subplots(1, len(widths), width_ratios=list(widths), squeeze=False)[0])
    for place, panel in enumerate(axes):
        if len(axes) > 1:
            panel.set_title(f"({chr(ord('a') + place)})", loc="left", fontsize=9)
        panel.grid(True, axis="y")
    return figure, axes


@contextmanager
def drawing() -> Iterator[None]:
    """Settings for drawing and writing figures; use it around both."""
    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.facecolor": PAPER,
        "axes.titlesize": 9,
        "axes.axisbelow": True,
        "axes.linewidth": 0.7,
        "axes.formatter.useoffset": False,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.5,
        "lines.markersize": 4.5,
        "legend.frameon": False,
        "legend.fontsize": 7.5,
        "legend.handlelength": 2.8,
    }
    with mpl.rc_context(settings):
        yield


def svg(figure: Figure, name: str) -> str:
    """The figure as SVG; the same bytes for the same numbers: no date, no random ids."""
    out = io.StringIO()
    with drawing(), mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def png(figure: Figure) -> bytes:
    out = io.BytesIO()
    with drawing():
        figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()


def variant_looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Hue and marker of every variant: for one's own, a free one, found from its name so that it is mostly the same
    in another study too."""
    found = dict(_VARIANTS)
    for name in dict.fromkeys(names):
        if name not in found:
            start = zlib.crc32(name.encode())
            places = [_OTHERS[(start + step) % len(_OTHERS)] for step in range(len(_OTHERS))]
            found[name] = next((place for place in places if place not in found.values()), places[0])
    return found


def _shade(colour: str, amount: float) -> str:
    """A hex colour mixed with white (amount > 0) or black."""
    target = 255 if amount > 0 else 0
    return "#" + "".join(f"{round(part + (target - part) * abs(amount)):02x}" for part in _parts(colour))


def _light(colour: str) -> bool:
    """By its luma (ITU-R BT.601)."""
    red, green, blue = _parts(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140


def _parts(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
