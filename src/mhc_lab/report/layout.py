"""What a printed table shows: columns, rounded cells, numbered notes, legend; the same for every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import pandas as pd

from mhc_lab.errors import LabError, nearest, shown
from mhc_lab.report.frame import Study
from mhc_lab.report.legend import details, legend, warnings
from mhc_lab.report.summary import Summary
from mhc_lab.report.texts import BLANK, count, interval, number, p_value, signed, spanned, with_interval
from mhc_lab.report.verdict import verdict

IDENTICAL = "identical by construction"
Notes = Literal["full", "short", "none"]  # legend and columns explained; the legend; only what rows and warnings say
NOTES: tuple[Notes, ...] = get_args(Notes)
MARKS = {"dynamic": "✓", "static": "(✓)", "fixed": ""}


@dataclass(frozen=True)
class Column:
    """A column under its heads in text (Markdown, terminal) and in LaTeX; `raw` is the column of `Summary.frame` that
    it sorts by, its own key's if empty."""

    key: str
    head: str
    latex: str
    align: str = "r"
    raw: str = ""


COLUMNS = (
    Column("row", "row", "Row", "l"),
    Column("baseline", "against", "Against", "l"),
    Column("h_res", "H_res", r"$\mathcal{H}^{\mathrm{res}}$", "c"),
    Column("h_pre", "H_pre", r"$\mathcal{H}^{\mathrm{pre}}$", "c"),
    Column("h_post", "H_post", r"$\mathcal{H}^{\mathrm{post}}$", "c"),
    Column("streams", "n", "$n$"),
    Column("seeds", "seeds", "Seeds"),
    Column("val_loss", "val loss (nats/token)", "Val.\\ loss (nats/token)"),
    Column("loss_gap", "loss gap (nats/token)", "Loss gap (nats/token)"),
    Column("bca", "BCa interval", "BCa interval", raw="loss_gap_bca95_low"),
    Column("p_holm", "p (t, Holm)", "$p$ ($t$, Holm)"),
    Column("p_sign_flip", "p (sign flips)", "$p$ (sign flips)"),
    Column("claim", "", ""),
    Column("paper_loss_gap", "paper gap (nats/token)", "Paper"),
    Column("gains", "gain (fwd / bwd)", "Gain (fwd / bwd)", raw="gain_forward"),
    Column("composite_gains", "composite gain (fwd / bwd)", "Composite gain (fwd / bwd)", raw="composite_gain_forward"),
    Column("max_grad_norm", "max ‖∇‖", r"$\max\|\nabla\|$"),
    Column("loss_spikes", "spikes (per run)", "Spikes (per run)"),
    Column("parameters", "params", "Params"),
    Column("ms_per_step", "time (ms/step)", "Time (ms/step)"),
    Column("peak_memory_mb", "memory (MiB)", "Memory (MiB)"),
)


@dataclass(frozen=True)
class Layout:
    """A table ready to be written: `rows` hold a text for every column's key, `notes` those of each row.

    `verdict` says in words what can be told. `best` are the rows to be marked as such. `warnings` say what the table
    lacks or mixes, `legend` how to read the gaps, `details` the other columns.
    """

    study: str
    title: str
    verdict: list[str]
    columns: list[Column]
    rows: list[dict[str, str]]
    notes: list[list[str]]
    best: frozenset[str]
    warnings: list[str]
    legend: list[str]
    details: list[str]


def lay_out(study: Study, summary: Summary) -> Layout:
    """The table as people read it. Columns that would say nothing in this study are left out."""
    frame = summary.frame
    needless = {key for key in ("paper_loss_gap", "p_holm", "p_sign_flip") if frame[key].isna().all()}
    needless |= {"bca"} if frame["loss_gap_bca95_low"].isna().all() else set()
    needless |= set() if len(study.baselines) > 1 else {"baseline"}
    needless |= set() if summary.margin is not None else {"claim"}
    columns = [_headed(column, summary) for column in COLUMNS if column.key not in needless]
    return Layout(
        study.name,
        study.title,
        verdict(summary),
        columns,
        [_texts(row) for _, row in frame.iterrows()],
        summary.notes,
        frozenset(best.row for best in summary.best.values()),
        warnings(study),
        legend(study, summary),
        details(study),
    )


def narrowed(layout: Layout, columns: Sequence[str], notes: Notes) -> Layout:
    """A table with these columns only, by their keys (all, if there are none), and with as much said under it as asked.

    Raises LabError for a column that this table has not.
    """
    known = [column.key for column in layout.columns]
    for key in columns:
        if key not in known:
            raise LabError(f"--columns {shown(key)}: no such column of this table; {nearest(key, known)}")
    kept = [column for column in layout.columns if not columns or column.key in ("row", *columns)]
    legend = [] if notes == "none" else layout.legend
    return replace(layout, columns=kept, legend=legend, details=layout.details if notes == "full" else [])


def number_notes(notes: list[list[str]]) -> tuple[list[str], list[list[int]]]:
    """Each distinct note once, in order of appearance, and for every row the numbers (from 1) of its notes."""
    distinct = list(dict.fromkeys(note for row in notes for note in row))
    return distinct, [[distinct.index(note) + 1 for note in row] for row in notes]


def _texts(row: pd.Series) -> dict[str, str]:
    lost = row["cells"] - row["seeds"]
    spread = "" if pd.isna(row["ms_ratio_spread"]) else f" ± {row['ms_ratio_spread']:.2f}"
    ratio = BLANK if pd.isna(row["ms_ratio"]) else f"{row['ms_ratio']:.2f}×{spread}"
    texts = {key: MARKS[row[key]] for key in ("h_res", "h_pre", "h_post")}
    return texts | {
        "row": row["row"],
        "baseline": row["baseline"],
        "streams": str(row["streams"]),
        "seeds": f"{row['seeds']} of {row['cells']}" if lost else str(row["seeds"]),
        "val_loss": BLANK if pd.isna(row["val_loss"]) else with_interval(row["val_loss"], row["val_loss_ci95"]),
        "loss_gap": _gap(row),
        "bca": interval(row["loss_gap_bca95_low"], row["loss_gap_bca95_high"]),
        "p_holm": p_value(row["p_holm"]),
        "p_sign_flip": p_value(row["p_sign_flip"]),
        "claim": _claim(row),
        "paper_loss_gap": signed(row["paper_loss_gap"]),
        "gains": f"{number(row['gain_forward'])} / {number(row['gain_backward'])}",
        "composite_gains": f"{number(row['composite_gain_forward'])} / {number(row['composite_gain_backward'])}",
        "max_grad_norm": number(row["max_grad_norm"]),
        "loss_spikes": BLANK if pd.isna(row["loss_spikes"]) else f"{row['loss_spikes']:.1f}",
        "parameters": count(row["parameters"]),
        "ms_per_step": number(row["ms_per_step"]) + ("" if ratio == BLANK else f" ({ratio})"),
        "ms_ratio": ratio,
        "peak_memory_mb": spanned(row["peak_memory_mb_low"], row["peak_memory_mb"]),
    }


def _gap(row: pd.Series) -> str:
    mean, half_width = row["loss_gap"], (row["loss_gap_ci95_high"] - row["loss_gap_ci95_low"]) / 2
    if pd.isna(mean):
        return BLANK
    if row["row"] == row["baseline"]:
        return "0"
    if row["identical"] is True:
        return IDENTICAL
    star = "*" if row["distinguishable"] is True else ""
    return with_interval(mean, half_width, sign=True) + star


def _claim(row: pd.Series) -> str:
    if row["equivalent"] is True:
        return "equivalent"
    return "no worse" if row["no_worse"] is True else BLANK


def _headed(column: Column, summary: Summary) -> Column:
    if column.key != "claim":
        return column
    return replace(column, head=f"within ±{summary.margin:g}", latex=rf"Within $\pm${summary.margin:g}")
