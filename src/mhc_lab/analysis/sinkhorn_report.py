"""The analysis of t_max in words, as a table and as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mhc_lab.analysis.measures import QUANTILE
from mhc_lab.analysis.output import markdown_table, number
from mhc_lab.analysis.study import SHOWN
from mhc_lab.report.figures.plot import Plot
from mhc_lab.report.figures.style import INK, MUTED, REFERENCE, drawing, panels

Row = Mapping[str, Any]

HEADS = ("algorithm", "precision", "t", "row err", "col err", "gain fwd", "gain bwd", "sigma2", "grad err", "ns/token")
LOOK = {
    "plain": ("#0072b2", "o"),
    "log": ("#56b4e9", "s"),
    "overrelaxed": ("#d55e00", "^"),
    "newton": ("#009e73", "D"),
    "warm": ("#cc79a7", "v"),
}
TOKENS_OF_A_BOUND = 2995  # log(.05) / log(.999)
LINES: dict[str, Any] = {"float32": "-", "mixed": (0, (5, 1.5)), "bfloat16": (0, (1, 1.4))}

# Name, title and panels (column, axis label) of the figures over t.
PANELS = (
    (
        "error",
        "Error against t",
        (("row_error_max", "largest |row sum - 1|"), ("column_error_max", "largest |column sum - 1|")),
    ),
    (
        "composite_gain",
        "Composite gain against t",
        (("forward_gain_q999", "forward, 99.9 %"), ("backward_gain_q999", "backward, 99.9 %")),
    ),
    (
        "gradient_error",
        "Gradient error against t",
        (("gradient_error_median", "median"), ("gradient_error_q999", "99.9 %")),
    ),
    (
        "contraction",
        "Contraction of the streams' differences against t",
        (("sigma2", "sigma2 of H_res, mean"), ("composite_contraction", "over all layers, median")),
    ),
    ("time", "Time against t", (("ns_per_token", "ns a token, forward + backward"),)),
)


def cells(rows: Sequence[Row], shown: Sequence[int] = SHOWN) -> list[list[str]]:
    """The table's rows: maxima of the error sums, 99.9 % of the gains, medians of the gradient error."""
    return [
        [
            row["algorithm"],
            row["precision"],
            str(row["t"]) if row["t"] else "-",
            number(row["row_error_max"], 2),
            number(row["column_error_max"], 2),
            number(row["forward_gain_q999"], 5),
            number(row["backward_gain_q999"], 5),
            number(row["sigma2"]),
            number(row["gradient_error_median"], 2),
            number(row.get("ns_per_token")),
        ]
        for row in rows
        if row["t"] in shown or row["t"] == 0
    ]


def words(found: Row, t_limit: int) -> list[str]:
    """The recommendation, and what it rests on."""
    bound, layers, tokens = found["bound"], len(found["layers"]), found["tokens"]
    lines = [
        f"t_max such that the {QUANTILE:.1%} composite gain over {layers} layers (the larger of forward and backward) "
        f"stays <= {bound:g}; by {tokens:,} tokens, {found['matrices']:,} matrices:"
    ]
    for advice in found["recommendations"]:
        lines.append(f"  {advice['algorithm']}, {advice['precision']}: {sentence(advice, t_limit, found)}")
    if all(advice["t_max_upper"] is None for advice in found["recommendations"]) and tokens < TOKENS_OF_A_BOUND:
        lines.append(
            f"No 95 % upper bound of the quantile from {tokens:,} tokens: it takes {TOKENS_OF_A_BOUND:,} (--matrices)."
        )
    return lines


def sentence(advice: Row, t_limit: int, found: Row) -> str:
    """One recommendation: "t_max = 5 (gain 1.045), gradient error 0.01"."""
    t, upper = advice["t_max"], advice["t_max_upper"]
    if t is None:
        return f"no t up to {t_limit} does it (gain {advice['gain']:.4g} at t = {t_limit})"
    said = f"t_max = {t} (gain {advice['gain']:.4g}"
    if found["tokens"] >= TOKENS_OF_A_BOUND:
        said += f"; t_max = {upper} by the quantile's 95 % upper bound" if upper else "; no t by its 95 % upper bound"
    said += f"), gradient error {advice['gradient_error_median']:.2g}"
    places = [found["layers"][index] for index in advice["demanding"]]
    if places and not found.get("drawn"):
        said += f"; by themselves layers {', '.join(map(str, places))} need more to stay <= {advice['layer_bound']:.5f}"
    return said


def markdown(found: Row, rows: Sequence[Row], title: str, t_limit: int) -> str:
    """table.md."""
    made = found["provenance"]
    parts = [f"# {title}", "", *words(found, t_limit)[:1], ""]
    parts += [f"- {line.strip()}" for line in words(found, t_limit)[1:]]
    parts += ["", markdown_table(HEADS, cells(rows)), "", *(f"- {note}" for note in (*found["notes"], *legend(found)))]
    parts += ["", f"`{made['command']}`, {made['created']}, {made['machine']['processor']}."]
    return "\n".join(parts)


def legend(found: Row) -> list[str]:
    """What the columns mean."""
    return [
        "errors: largest |sum - 1|; gains: 99.9 % over tokens of the composite Amax gain, largest over start layers; "
        "sigma2: mean second singular value of H_res",
        "gradient error: median over matrices, for a random cotangent, against the gradient at the converged fp64 "
        "projection (newton's gradient is that of the limit by construction)",
        "ns/token: forward and backward on this CPU; plain and warm in float32 and mixed by ops.sinkhorn as training "
        "uses it, all else in plain torch",
        f"a layer needs more by itself where its own 99.9 % gain stays <= {found['bound']:g}^(1/L) only from a "
        "larger t on",
    ]


def figures(found: Row, rows: Sequence[Row]) -> list[Plot]:
    """Errors, composite gain, gradient error, contraction, time against t; and what each layer needs."""
    series: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["t"]:
            series.setdefault((row["algorithm"], row["precision"]), []).append(row)
    plots = [_curves(name, title, series, panel, found["bound"]) for name, title, panel in PANELS]
    return [plot for plot in plots if plot] + ([] if found.get("drawn") else [_by_layer(found)])


def _curves(
    name: str, title: str, series: Mapping[tuple[str, str], list[Row]], columns: Any, bound: float
) -> Plot | None:
    if not any(row.get(column) is not None for rows in series.values() for row in rows for column, _ in columns):
        return None
    with drawing():
        figure, axes = panels([1] * len(columns), height=3.4)
        for panel, (column, label) in zip(axes, columns, strict=True):
            for (algorithm, precision), rows in series.items():
                points = [(row["t"], row[column]) for row in rows if row.get(column) is not None]
                if name != "composite_gain":
                    points = [(t, value) for t, value in points if value > 0]
                else:
                    points = [(t, max(value - 1, 1e-8)) for t, value in points]
                colour, marker = LOOK[algorithm]
                panel.plot(
                    *(zip(*points, strict=True) if points else ((), ())),
                    color=colour,
                    marker=marker,
                    markevery=4,
                    markersize=3,
                    linestyle=LINES[precision],
                    linewidth=1.1,
                    label=f"{algorithm} {precision}",
                )
            if name == "composite_gain":
                panel.axhline(bound - 1, color=REFERENCE, linewidth=1)
                panel.annotate(f"bound {bound:g}", (1, bound - 1), color=REFERENCE, fontsize=7, va="bottom")
                label = f"gain - 1: {label}"
            panel.set_yscale("log" if column != "sigma2" else "linear")
            panel.set_xscale("log")
            panel.set_xticks(SHOWN, [str(t) for t in SHOWN])
            panel.set_xticks([], minor=True)
            panel.set_xlabel("t")
            panel.set_ylabel(label)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=6.5)
    return Plot(name, title, title, figure)


def _by_layer(found: Row) -> Plot:
    """Of every algorithm in its first precision: the t that each layer needs by itself."""
    first = found["recommendations"][0]["precision"]
    with drawing():
        figure, (panel,) = panels(height=2.9)
        for advice in found["recommendations"]:
            if advice["precision"] != first:
                continue
            colour, marker = LOOK[advice["algorithm"]]
            points = [(place, t) for place, t in zip(found["layers"], advice["layer_t_max"], strict=True) if t]
            panel.plot(
                *(zip(*points, strict=True) if points else ((), ())),
                color=colour,
                marker=marker,
                linestyle="-",
                label=advice["algorithm"],
            )
            if advice["t_max"]:
                panel.axhline(advice["t_max"], color=colour, linewidth=0.6, linestyle=(0, (2, 2)))
        panel.set_xlabel("layer", color=INK)
        panel.set_ylabel(f"t that the layer needs ({first})", color=INK)
        panel.tick_params(color=MUTED)
        panel.legend()
    return Plot("layers", "What each layer needs", "", figure)
