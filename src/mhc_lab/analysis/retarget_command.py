"""`mhc-lab retarget`: a trained run under another Sinkhorn, and without its mixers one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mhc_lab.analysis import retarget_report as report
from mhc_lab.analysis.output import print_table, provenance, write
from mhc_lab.analysis.precision import ITERATED, PRECISIONS
from mhc_lab.analysis.retarget import retarget as evaluations
from mhc_lab.analysis.trained import open_run
from mhc_lab.analysis.words import chosen, iterations

T_MAX = "1,2,3,5,8,13,20,40"


def retarget(
    run: Path,
    t_max: str = "",
    algorithms: str = "",
    dtype: str = "",
    results: Path = Path("results"),
    say: Callable[[str], None] = print,
) -> Path:
    """Evaluate, print, write; the folder written to. Empty texts are the defaults. Raises LabError as `open_run`
    does, and where t_max, algorithms or dtype are asked for and nothing iterates."""
    t_maxes = iterations("--t-max", t_max or T_MAX)
    precisions = chosen("--dtype", dtype or ",".join(PRECISIONS), PRECISIONS)
    asked = chosen("--algorithms", algorithms, ITERATED) if algorithms else []
    trained = open_run(run)
    if t_max or asked or dtype:
        trained.require_sinkhorn()
    own = [trained.config.residual.sinkhorn] if trained.iterated else []
    rows = evaluations(trained, t_maxes, asked or own, precisions, say)
    notes = [f"warning: {line}" for line in trained.warnings]
    recorded = (trained.record.get("metrics") or {}).get("val_loss")
    if recorded is not None:
        notes.append(f"the run's own record says val loss {recorded:.5f}")
    title = f"{trained.folder.run_id} ({trained.config.residual.variant}) without retraining"
    made = provenance()
    content = {
        "run_id": trained.folder.run_id,
        "recorded_val_loss": recorded,
        "rows": rows,
        "notes": [*notes, *report.LEGEND],
        "provenance": made,
    }
    folder = results / "retarget" / trained.folder.run_id
    write(folder, "retarget", content, rows, report.markdown(rows, title, notes, made), report.figures(rows))
    below = [*report.words(rows), *notes, *report.LEGEND, f"written to {folder}"]
    print_table(title, report.HEADS, report.cells(rows), below)
    return folder
