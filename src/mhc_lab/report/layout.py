"""What a printed table shows: columns, rounded cells, numbered notes, legend; the same for every format."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from mhc_lab.report import stats
from mhc_lab.report.frame import Study
from mhc_lab.report.provenance import mixture_lines, mixtures
from mhc_lab.report.summary import Summary

BLANK = "–"
MARKS = {"dynamic": "✓", "static": "(✓)", "fixed": ""}


@dataclass(frozen=True)
class Column:
    """A column under its heads in text (Markdown, terminal) and in LaTeX."""

    key: str
    head: str
    latex: str
    align: str = "r"


COLUMNS = (
    Column("row", "row", "Row", "l"),
    Column("h_res", "H_res", r"$\mathcal{H}^{\mathrm{res}}$", "c"),
    Column("h_pre", "H_pre", r"$\mathcal{H}^{\mathrm{pre}}$", "c"),
    Column("h_post", "H_post", r"$\mathcal{H}^{\mathrm{post}}$", "c"),
    Column("streams", "n", "$n$"),
    Column("seeds", "seeds", "Seeds"),
    Column("val_loss", "val loss", "Val.\\ loss"),
    Column("loss_gap", "loss gap", "Loss gap"),
    Column("paper_loss_gap", "paper gap", "Paper"),
    Column("gains", "gain fwd / bwd", "Gain"),
    Column("composite_gains", "composite fwd / bwd", "Composite gain"),
    Column("max_grad_norm", "max ‖∇‖", r"$\max\|\nabla\|$"),
    Column("loss_spikes", "spikes", "Spikes"),
    Column("parameters", "params", "Params"),
    Column("ms_per_step", "ms/step", "ms/step"),
    Column("peak_memory_mb", "memory MB", "Memory"),
)


@dataclass(frozen=True)
class Layout:
    """A table ready to be written: `rows` hold a text for every column's key, `notes` those of each row.

    `legend` says how to read the gaps, `details` the other columns.
    """

    study: str
    title: str
    columns: list[Column]
    rows: list[dict[str, str]]
    notes: list[list[str]]
    legend: list[str]
    details: list[str]


def lay_out(study: Study, summary: Summary) -> Layout:
    """The table as people read it. The column of the paper's gaps is left out where no row has one."""
    frame = summary.frame
    columns = [c for c in COLUMNS if c.key != "paper_loss_gap" or frame["paper_loss_gap"].notna().any()]
    rows = [_texts(row) for _, row in frame.iterrows()]
    legend, details = _legend(study, summary), _details(study)
    return Layout(study.name, study.spec["title"], columns, rows, summary.notes, legend, details)


def number_notes(notes: list[list[str]]) -> tuple[list[str], list[list[int]]]:
    """Each distinct note once, in order of appearance, and for every row the numbers (from 1) of its notes."""
    distinct = list(dict.fromkeys(note for row in notes for note in row))
    return distinct, [[distinct.index(note) + 1 for note in row] for row in notes]


def with_interval(mean: float, half_width: float, *, sign: bool = False) -> str:
    """`mean ± half_width` to the second significant digit of the half width; four decimals without one."""
    known = not pd.isna(half_width)
    places = 4
    if known and half_width > 0:
        places = min(max(1 - math.floor(math.log10(half_width)), 0), 6)
    text = f"{mean:{'+' if sign else ''}z.{places}f}".replace("-", "−")
    return f"{text} ± {half_width:.{places}f}" if known else text


def _texts(row: pd.Series) -> dict[str, str]:
    half_gap = (row["loss_gap_ci95_high"] - row["loss_gap_ci95_low"]) / 2
    star = "*" if row["distinguishable"] is True else ""
    ratio = BLANK if pd.isna(row["ms_ratio"]) else f"{row['ms_ratio']:.2f}×"
    texts = {key: MARKS[row[key]] for key in ("h_res", "h_pre", "h_post")}
    return texts | {
        "row": row["row"],
        "streams": str(row["streams"]),
        "seeds": str(row["seeds"]),
        "val_loss": BLANK if pd.isna(row["val_loss"]) else with_interval(row["val_loss"], row["val_loss_ci95"]),
        "loss_gap": _gap(row["loss_gap"], half_gap) + star,
        "paper_loss_gap": BLANK if pd.isna(row["paper_loss_gap"]) else _signed(row["paper_loss_gap"]),
        "gains": f"{_number(row['gain_forward'])} / {_number(row['gain_backward'])}",
        "composite_gains": f"{_number(row['composite_gain_forward'])} / {_number(row['composite_gain_backward'])}",
        "max_grad_norm": _number(row["max_grad_norm"]),
        "loss_spikes": BLANK if pd.isna(row["loss_spikes"]) else f"{row['loss_spikes']:.1f}",
        "parameters": _count(row["parameters"]),
        "ms_per_step": _number(row["ms_per_step"]) + ("" if ratio == BLANK else f" ({ratio})"),
        "ms_ratio": ratio,
        "peak_memory_mb": BLANK if pd.isna(row["peak_memory_mb"]) else f"{row['peak_memory_mb']:,.0f}",
    }


def _gap(mean: float, half_width: float) -> str:
    if pd.isna(mean):
        return BLANK
    if abs(mean) <= stats.ROUNDING and not half_width > stats.ROUNDING:  # the baseline, or identical to it
        return "0"
    return with_interval(mean, half_width, sign=True)


def _signed(value: float) -> str:
    return "0" if value == 0 else f"{value:+g}".replace("-", "−")


def _number(value: float) -> str:
    if pd.isna(value):
        return BLANK
    if abs(value) >= 1e6:
        return f"{value:.2e}"
    return f"{value:,.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def _count(value: float) -> str:
    if pd.isna(value):
        return BLANK
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.0f}"


def _legend(study: Study, summary: Summary) -> list[str]:
    seeds = sorted(study.cells["seed"].unique())
    tested = f"{len(summary.tested)} row{'' if len(summary.tested) == 1 else 's'}"
    floor = "not measured (no control arm)"
    if summary.noise_floor is not None:
        floor = f"{summary.noise_floor:.4f}, the largest |{study.control} − {study.baseline}| over the seeds"
    return [
        f"Seeds: {', '.join(map(str, seeds))}; the column counts those that finished. Losses in nats per token.",
        f"Loss gap: row − {study.baseline}, mean of the differences by seed. ±: half width of the 95 % t interval "
        f"(for the gap, the paired one), from {stats.MIN_SEEDS} seeds on.",
        f"*: distinguishable from {study.baseline}: paired t test, Holm-adjusted over {tested}, p < {stats.ALPHA}.",
        f"Noise floor: {floor}.",
        *(f"Warning: {line}." for line in mixture_lines(mixtures(study))),
    ]


def _details(study: Study) -> list[str]:
    timing = "as measured in the training runs, which may have shared the machine; no timing pass"
    if study.timing:
        timing = "from a timing pass, row and baseline alternating in one process; ×: median ratio to the baseline"
    return [
        "✓ dynamic (per token), (✓) static (learned, the same for all tokens), blank fixed (H_res = I, H_pre = 1/n, "
        "H_post = ones).",
        "Gain: Amax gain magnitude forward (row sums) / backward (column sums), the largest over layers; composite: "
        "of the product up to the output, the largest over start layers. Means over the finished seeds.",
        "max ‖∇‖: the largest finite gradient norm before clipping, over all steps and seeds. Spikes: loss spikes, "
        "mean per run. Both count diverged runs too.",
        f"ms/step: {timing}. Memory: peak in MB, the largest over the seeds.",
    ]
