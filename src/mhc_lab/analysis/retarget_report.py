"""Retargeting as a table and as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mhc_lab.analysis.enough import loss_sentence
from mhc_lab.analysis.output import markdown_table, number
from mhc_lab.analysis.sinkhorn_report import LOOK
from mhc_lab.report.figures.plot import Plot
from mhc_lab.report.figures.style import MUTED, drawing, panels
from mhc_lab.report.texts import with_interval

Row = Mapping[str, Any]

HEADS = ("changed", "", "val loss", "difference (95 %)", "gain fwd", "gain bwd", "ds error")
LEGEND = (
    "*: the interval excludes 0",
    "val loss: nats a token on the run's own validation windows, fp32, token-weighted",
    "difference: to the model as trained, with the half width of its paired 95 % t interval over validation windows; "
    "it says how sure the difference is for this model, not for others of the same kind",
    "H_res = mean: the mean over all tokens of all validation windows, found in a first pass: one matrix for all "
    "tokens, so that no token sees a later one",
    "gains: composite Amax gains of the first validation window, means over its tokens; ds error: each token's largest "
    "|row or column sum - 1| there, its mean over the tokens, largest over layers; as a run's probes record them",
)


def cells(rows: Sequence[Row]) -> list[list[str]]:
    return [
        [
            row["change"],
            "*" if surely(row) else "",
            f"{row['val_loss']:.5f}",
            with_interval(row["difference"], row["half_width"], sign=True),
            number(row["composite_gain_forward"], 5),
            number(row["composite_gain_backward"], 5),
            number(row["ds_error"], 2),
        ]
        for row in rows
    ]


def surely(row: Row) -> bool:
    """Whether the interval excludes 0."""
    half = row["half_width"]
    return half is not None and abs(row["difference"]) > max(half, 1e-7)


def words(rows: Sequence[Row], trained: int, tolerance: float) -> list[str]:
    """What stands out: the smallest t_max that keeps the loss, and the layer whose mixer is missed most."""
    by_algorithm: dict[str, list[Row]] = {}
    for row in rows:
        if row["kind"] == "t_max":
            by_algorithm.setdefault(row["algorithm"], []).append(row)
    lines = [loss_sentence(algorithm, found, trained, tolerance) for algorithm, found in by_algorithm.items()]
    layers = [
        row for row in rows if row["kind"] == "layer" and row["by"] == "identity" and row.get("layer") is not None
    ]
    if layers:
        missed = [row for row in layers if surely(row) and row["difference"] > tolerance]
        most = max(missed, key=lambda row: row["difference"], default=None)
        lines.append(
            f"no single mixer is missed: none is sure to raise val loss by more than {tolerance:g} with H_res = I"
            if most is None
            else f"the mixer that is missed most: layer {most['layer']} ({most['difference']:+.2g} with H_res = I)"
        )
    return lines


def markdown(rows: Sequence[Row], title: str, said: Sequence[str], notes: Sequence[str], made: Row) -> str:
    """table.md; `said`: the answers, above the table."""
    parts = [f"# {title}", "", *(f"- {line}" for line in said), "", markdown_table(HEADS, cells(rows)), ""]
    parts += [f"- {line.replace('*', chr(92) + '*', 1)}" for line in (*notes, *LEGEND)]
    parts += ["", f"`{made['command']}`, {made['created']}, {made['machine']['processor']}."]
    return "\n".join(parts)


def figures(rows: Sequence[Row]) -> list[Plot]:
    """The difference against t_max, where there is one, and by layer."""
    found = [_by_layer(rows)] if any(row.get("layer") is not None for row in rows) else []
    return ([_by_t(rows)] if any(row["kind"] == "t_max" for row in rows) else []) + found


def _by_t(rows: Sequence[Row]) -> Plot:
    with drawing():
        figure, (loss, gain) = panels((1, 1))
        for algorithm, (colour, marker) in LOOK.items():
            own = [row for row in rows if row["kind"] == "t_max" and row["algorithm"] == algorithm]
            if not own:
                continue
            t = [row["t_max"] for row in own]
            loss.errorbar(
                t,
                [row["difference"] for row in own],
                yerr=[row["half_width"] or 0.0 for row in own],
                color=colour,
                marker=marker,
                label=algorithm,
                capsize=2,
            )
            gain.plot(t, [row["composite_gain_backward"] for row in own], color=colour, marker=marker)
        loss.axhline(0, color=MUTED, linewidth=0.8)
        loss.set_ylabel("val loss, difference (nats a token)")
        gain.set_ylabel("composite backward gain")
        loss.legend()
        for panel in (loss, gain):
            panel.set_xscale("log")
            ticks = sorted({row["t_max"] for row in rows if row["kind"] == "t_max"})
            panel.set_xticks(ticks, [str(tick) for tick in ticks])
            panel.set_xticks([], minor=True)
            panel.set_xlabel("t_max")
    return Plot("t_max", "Validation loss under another t_max", "", figure)


def _by_layer(rows: Sequence[Row]) -> Plot:
    with drawing():
        figure, (panel,) = panels()
        for by, colour, marker, shift in (("identity", "#d55e00", "o", -0.1), ("mean", "#0072b2", "s", 0.1)):
            own = [row for row in rows if row.get("by") == by and row.get("layer") is not None]
            if own:
                panel.errorbar(
                    [row["layer"] + shift for row in own],
                    [row["difference"] for row in own],
                    yerr=[row["half_width"] or 0.0 for row in own],
                    color=colour,
                    marker=marker,
                    linestyle="none",
                    capsize=2,
                    label={"identity": "H_res = I", "mean": "H_res = its token mean"}[by],
                )
        panel.axhline(0, color=MUTED, linewidth=0.8)
        panel.set_xlabel("layer")
        panel.set_ylabel("val loss, difference (nats a token)")
        panel.legend()
    return Plot("layers", "Which mixers matter", "", figure)
