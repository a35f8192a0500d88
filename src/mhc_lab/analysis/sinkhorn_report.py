"""The analysis of t_max in words, as a table and as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mhc_lab.analysis.measures import QUANTILE, SINGULAR_MATRICES
from mhc_lab.analysis.output import markdown_table, number
from mhc_lab.analysis.study import GRADIENT_MATRICES, SHOWN
from mhc_lab.report.figures.plot import Plot
from mhc_lab.report.figures.style import PAPER, REFERENCE, drawing, panels

Row = Mapping[str, Any]

HEADS = ("algorithm", "precision", "t", "row err", "col err", "gain fwd", "gain bwd", "sigma2", "grad err", "ns/matrix")
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
    ("time", "Time against t", (("ns_per_matrix", "ns a matrix, forward + backward"),)),
)


def terminal_cells(found: Row, rows: Sequence[Row]) -> list[list[str]]:
    """A row an algorithm in the first precision, at the t that it needs or the last; all others stand in table.md."""
    first = rows[0]["precision"]
    wanted: dict[str, int] = {}
    for row in rows:  # an exact map has one row, t = 0; what iterates takes its last unless less is enough
        if row["precision"] == first:
            wanted[row["algorithm"]] = row["t"]
    for advice in found["recommendations"]:
        if advice["precision"] == first and advice["t_max"] is not None:
            wanted[advice["algorithm"]] = advice["t_max"]
    short = [row for row in rows if row["precision"] == first and row["t"] == wanted[row["algorithm"]]]
    return cells(short, shown=list(wanted.values()))


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
            number(row.get("ns_per_matrix")),
        ]
        for row in rows
        if row["t"] in shown or row["t"] == 0
    ]


def words(found: Row, t_limit: int) -> list[str]:
    """The recommendation, a line an algorithm, and what it rests on."""
    layers, tokens = len(found["layers"]), found["tokens"]
    first = found["recommendations"][0]
    keeps = f"the {QUANTILE:.1%} composite gain over {layers} layers <= {found['bound']:g}"
    answer = (
        f"no t_max up to {t_limit} keeps {keeps} ({first['gain']:.4g} there)"
        if first["t_max"] is None
        else f"t_max = {first['t_max']} is enough to keep {keeps}"
    )
    lines = [
        f"{first['algorithm']}: {answer}, in {first['precision']}.",
        "By algorithm and precision (the larger of forward and backward gain, "
        f"{tokens:,} tokens, {found['matrices']:,} matrices):",
    ]
    by_algorithm: dict[str, list[Row]] = {}
    for advice in found["recommendations"]:
        by_algorithm.setdefault(advice["algorithm"], []).append(advice)
    lines += [f"  {algorithm}: {sentence(advices, t_limit, found)}" for algorithm, advices in by_algorithm.items()]
    if tokens < TOKENS_OF_A_BOUND and found["matrices"] > layers:
        lines.append(
            f"No 95 % upper bound of the quantile from {tokens:,} tokens: it takes {TOKENS_OF_A_BOUND:,} "
            f"(--matrices 3000{'' if found.get('drawn') else ' --windows 24'})."
        )
    return lines


def sentence(advices: Sequence[Row], t_limit: int, found: Row) -> str:
    """One algorithm's recommendations: "float32 5, bfloat16 none up to 40 (gain 1.09); gradient error there 0.01"."""
    said = ", ".join(f"{advice['precision']} {_needed(advice, t_limit, found)}" for advice in advices)
    first = advices[0]
    if first["t_max"] is not None:
        said += f"; gradient error there {first['gradient_error_median']:.2g}"
    places = [found["layers"][index] for index in first["demanding"]]
    if places and not found.get("drawn"):
        said += f"; single layers that need more: {', '.join(map(str, places))}"
    return said


def _needed(advice: Row, t_limit: int, found: Row) -> str:
    t, upper = advice["t_max"], advice["t_max_upper"]
    if t is None:
        return f"none up to {t_limit} (gain {advice['gain']:.4g})"
    if found["tokens"] < TOKENS_OF_A_BOUND or upper == t:
        return str(t)
    return f"{t} ({upper or 'none'} by the quantile's 95 % upper bound)"


def markdown(found: Row, rows: Sequence[Row], title: str, t_limit: int) -> str:
    """table.md."""
    made = found["provenance"]
    answer, intro, *rest = words(found, t_limit)
    parts = [f"# {title}", "", answer, "", intro, "", *(f"- {line.strip()}" for line in rest)]
    parts += ["", markdown_table(HEADS, cells(rows)), "", *(f"- {note}" for note in (*found["notes"], *legend(found)))]
    parts += ["", f"`{made['command']}`, {made['created']}, {made['machine']['processor']}."]
    return "\n".join(parts)


def legend(found: Row) -> list[str]:
    """What the columns mean."""
    return [
        "errors: largest |sum - 1|; gains: 99.9 % over tokens of the composite Amax gain, largest over start layers; "
        f"sigma2: mean second singular value of H_res, of up to {SINGULAR_MATRICES} matrices",
        f"gradient error: median over up to {GRADIENT_MATRICES:,} matrices, for a random cotangent, against the "
        "gradient at the converged fp64 projection (newton's gradient is that of the limit by construction)",
        "ns/matrix: forward and backward on this CPU, one layer of one token; plain and warm in float32 and mixed by "
        "ops.sinkhorn as training uses it, all else in plain torch (newton in fp64 but for bfloat16)",
        f"a layer needs more by itself where its own 99.9 % gain stays <= {found['bound']:g}^(1/L) only from a "
        "larger t on; gradient error and layers are those of the first precision",
    ]


def figures(found: Row, rows: Sequence[Row]) -> list[Plot]:
    """Errors, composite gain, gradient error, contraction, time against t; and what each layer needs."""
    series: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["t"]:
            series.setdefault((row["algorithm"], row["precision"]), []).append(row)
    plots = [_curves(name, title, series, panel, found["bound"]) for name, title, panel in PANELS]
    return [plot for plot in plots if plot] + (
        [] if found.get("drawn") else [_by_layer(found, max(row["t"] for row in rows))]
    )


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


def _by_layer(found: Row, t_limit: int) -> Plot:
    """Of every algorithm in its first precision: the t that each layer needs by itself, hollow where none is enough."""
    first = found["recommendations"][0]["precision"]
    beyond = 1.12 * t_limit
    with drawing():
        figure, (panel,) = panels(height=2.9)
        for advice in found["recommendations"]:
            if advice["precision"] != first:
                continue
            colour, marker = LOOK[advice["algorithm"]]
            needed = [t or beyond for t in advice["layer_t_max"]]
            panel.plot(found["layers"], needed, color=colour, linewidth=0.8, alpha=0.6)
            panel.plot([], [], color=colour, marker=marker, linewidth=0.8, label=advice["algorithm"])
            for place, t in zip(found["layers"], advice["layer_t_max"], strict=True):
                panel.plot([place], [t or beyond], color=colour, marker=marker, markerfacecolor=colour if t else PAPER)
            if advice["t_max"]:
                panel.axhline(advice["t_max"], color=colour, linewidth=0.6, linestyle=(0, (2, 2)))
        ticks = [t for t in (1, 5, 10, 20, 30, 40) if t <= t_limit]
        panel.set_yticks([*ticks, beyond], [*map(str, ticks), f"> {t_limit}"])
        panel.set_xlabel("layer")
        panel.set_ylabel(f"t that the layer needs ({first})")
        figure.legend(loc="outside right upper")
    caption = "Dashed: what the composite over all layers needs. Hollow: no t that was tried is enough."
    return Plot("layers", "What each layer needs", caption, figure)
