"""`mhc-lab sinkhorn`: what t_max drawn logits, or those of a trained model, need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhc_lab.analysis import sinkhorn_report as report
from mhc_lab.analysis.enough import run_sentence
from mhc_lab.analysis.logits import captured, drawn
from mhc_lab.analysis.output import print_table, provenance, write
from mhc_lab.analysis.precision import EXACT, ITERATED, PRECISIONS
from mhc_lab.analysis.study import Settings, analyse, exact_rows
from mhc_lab.analysis.trained import open_run
from mhc_lab.analysis.words import chosen, within
from mhc_lab.config.schema import MAX_SEED
from mhc_lab.errors import LabError, shown
from mhc_lab.machine import refuse_unwritable
from mhc_lab.run_folder import FOLDER_NAME

MOST_NUMBERS = 4_000_000  # of logits by default, so that the command takes seconds
DEFAULT_TOKENS = 512


@dataclass(frozen=True)
class Options:
    """As typed; an empty text is the default. `matrices` are tokens, each with one matrix a layer; 0: by size."""

    checkpoint: Path | None = None
    streams: int = 4
    logit_std: float = 1.0
    layers: int = 60
    t_max: int = 40
    bound: float = 1.05
    matrices: int = 0
    windows: int = 4
    algorithms: str = ""
    dtype: str = ""
    seed: int = 0
    name: str = ""
    explain: bool = False
    results: Path = Path("results")


def sinkhorn(options: Options) -> Path:
    """Measure, print, write; the folder written to. Raises LabError for what the user can mend."""
    _check(options)
    refuse_unwritable(options.results)
    precisions = chosen("--dtype", options.dtype or ",".join(PRECISIONS), PRECISIONS)
    found, rows, name, title = (_of_run if options.checkpoint else _of_draws)(options, precisions)
    content = {**found, "rows": rows, "gains_from": _gains_from(found), "provenance": provenance()}
    folder = options.results / "sinkhorn-analysis" / name
    write(
        folder,
        "analysis",
        content,
        rows,
        report.markdown(content, rows, title, options.t_max),
        report.figures(found, rows),
    )
    said = report.words(found, options.t_max)
    if options.checkpoint is not None:
        said.append(run_sentence(options.results, found["run_id"]))
    legend = report.legend(found) if options.explain else ["what the columns mean: --explain, or table.md"]
    below = [*found["notes"], *legend, f"all rows and figures: {folder}"]
    print_table(title, report.HEADS, report.terminal_cells(found, rows), below, above=said)
    return folder


def _gains_from(found: dict[str, Any]) -> int | None:
    """The t_max that the gains of plain Sinkhorn-Knopp in float32 need, for `retarget` to quote."""
    for advice in found["recommendations"]:
        if (advice["algorithm"], advice["precision"]) == ("plain", "float32"):
            return None if advice["t_max"] is None else int(advice["t_max"])
    return None


def _of_draws(options: Options, precisions: list[str]) -> tuple[dict[str, Any], list[Any], str, str]:
    n, layers = options.streams, options.layers
    algorithms = chosen("--algorithms", options.algorithms or ",".join(_applicable(n)), (*ITERATED, *EXACT))
    for name in algorithms:
        if name not in _applicable(n):
            words = "at most 5 streams (n! logits)" if name == "permutations" else "a power of two of streams"
            raise LabError(f"--algorithms {name}: takes {words}, not {n}")
    tokens = options.matrices or max(min(DEFAULT_TOKENS, MOST_NUMBERS // (layers * n * n)), 1)
    settings = Settings(algorithms, precisions, options.t_max, options.bound, options.seed)
    found = analyse(drawn(n, options.logit_std, layers, tokens, options.seed), settings)
    rows = [*found.pop("rows"), *exact_rows(options.logit_std, layers, tokens, n, settings)]
    if any(name in EXACT for name in algorithms):
        found["notes"].append(
            f"permutations, kronecker: of N(0, {options.logit_std:g}^2) logits of their own count, n! and log2 n; the "
            "matrices are distributed otherwise"
        )
    title = f"Sinkhorn on N(0, {options.logit_std:g}^2) logits, n = {n}, {layers} layers"
    name = options.name or f"n{n}-std{options.logit_std:g}-layers{layers}"
    return found | {"drawn": True, "logit_std": options.logit_std, "seed": options.seed}, rows, name, title


def _of_run(options: Options, precisions: list[str]) -> tuple[dict[str, Any], list[Any], str, str]:
    assert options.checkpoint is not None
    algorithms = chosen("--algorithms", options.algorithms or ",".join(ITERATED), (*ITERATED, *EXACT))
    for name in algorithms:
        if name in EXACT:
            raise LabError(f"--algorithms {name}: does not take the logits of a checkpoint; leave out --checkpoint")
    trained = open_run(options.checkpoint)
    logits = captured(trained, options.windows, options.matrices or DEFAULT_TOKENS, options.seed)
    dynamic = trained.config.residual.h_res == "dynamic"
    settings = Settings(algorithms, precisions, options.t_max, options.bound, options.seed, timing=dynamic)
    found = analyse(logits, settings)
    rows = found.pop("rows")
    found["notes"] = [*(f"warning: {line}" for line in trained.warnings), *found["notes"]]
    title = f"Sinkhorn on the logits of {trained.folder.run_id} (trained with t_max = {trained.config.residual.t_max})"
    return found | {"run_id": trained.folder.run_id}, rows, options.name or trained.folder.run_id, title


def _applicable(n: int) -> list[str]:
    exact = [name for name, fits in (("permutations", n <= 5), ("kronecker", n & (n - 1) == 0)) if fits]
    return [*ITERATED, *exact]


def _check(options: Options) -> None:
    within("--streams", options.streams, 2, 64)
    within("--layers", options.layers, 1, 1000)
    within("--t-max", options.t_max, 1, 1000)
    within("--matrices", options.matrices, 0, 1_000_000)
    within("--windows", options.windows, 1, 1_000_000)
    within("--logit-std", options.logit_std, 0, 50)
    within("--seed", options.seed, 0, MAX_SEED)
    if not 1 < options.bound < float("inf"):
        raise LabError(f"--bound {options.bound:g}: must be above 1, the gain of a doubly stochastic matrix")
    if options.name and not FOLDER_NAME.fullmatch(options.name):
        raise LabError(f"--name {shown(options.name)}: use letters, digits, _ . + -, at most 100 characters")
