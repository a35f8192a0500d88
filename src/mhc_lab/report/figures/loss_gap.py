"""The figure beside the table: each row's loss gap, seed by seed, with its interval."""

from __future__ import annotations

import io
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import pandas as pd

from mhc_lab.report.frame import Study
from mhc_lab.report.stats import paired_differences
from mhc_lab.report.summary import Summary, losses_by_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART, _ALIKE, _PAPER = "#0b5fa5", "#7a7a7a", "#c2571a"


def loss_gap_svg(study: Study, summary: Summary) -> str:
    """One line a row: dots are seeds, the bar is the mean with its 95 % paired t interval, the band the noise floor.

    Rows that are distinguishable from the baseline are blue and filled, the others grey and open; a tick below a row
    is the paper's gap.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    baseline = losses_by_seed(study, study.baseline)
    rows = [row for row in summary.frame.to_dict("records") if row["row"] != study.baseline]
    # Same bytes for the same numbers: no date, no random ids.
    with mpl.rc_context({"svg.hashsalt": study.name, "font.size": 9, "font.family": "DejaVu Sans"}):
        figure, axes = plt.subplots(figsize=(7.0, 0.9 + 0.34 * len(rows)), layout="constrained")
        if summary.noise_floor is not None:
            axes.axvspan(-summary.noise_floor, summary.noise_floor, color="#e9e9e9", zorder=0)
            axes.text(
                summary.noise_floor, -0.62, "noise floor ", color="#5c5c5c", fontsize=7.5, va="center", ha="right"
            )
        axes.axvline(0, color="black", linewidth=0.8, zorder=1)
        for place, row in enumerate(rows):
            gaps = paired_differences(losses_by_seed(study, str(row["row"])), baseline)
            _draw_row(axes, place, row, list(gaps.values()))
        axes.set_yticks(range(len(rows)), [str(row["row"]) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.9)
        axes.set_xlabel(f"validation loss − {study.baseline} (nats per token), {_seeds(summary)}")
        axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        plt.close(figure)
    return out.getvalue()


def _draw_row(axes: Axes, place: int, row: dict[Hashable, Any], gaps: list[float]) -> None:
    apart = row["distinguishable"] is True
    color = _APART if apart else _ALIKE
    axes.plot(gaps, [place + 0.18] * len(gaps), ".", color=color, alpha=0.55, markersize=4)
    mean, low, high = (row[key] for key in ("loss_gap", "loss_gap_ci95_low", "loss_gap_ci95_high"))
    if isinstance(low, float) and isinstance(high, float) and not pd.isna(low):
        axes.plot([low, high], [place, place], color=color, linewidth=2, solid_capstyle="butt")
    if isinstance(mean, float) and not pd.isna(mean):
        axes.plot([mean], [place], "o", color=color, markersize=6, markerfacecolor=color if apart else "white")
    paper = row["paper_loss_gap"]
    if isinstance(paper, float) and not pd.isna(paper):
        axes.plot([paper], [place + 0.34], "|", color=_PAPER, markersize=7, markeredgewidth=1.6)
        axes.text(paper, place + 0.34, " paper", color=_PAPER, fontsize=6.5, va="center")


def _seeds(summary: Summary) -> str:
    counts = sorted({int(count) for count in summary.frame["seeds"] if count})
    return f"{counts[0]}–{counts[-1]} seeds" if len(counts) > 1 else f"{counts[0]} seed{'s' if counts[0] > 1 else ''}"
