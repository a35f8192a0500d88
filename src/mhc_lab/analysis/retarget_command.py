"""`mhc-lab retarget`: a trained run under another Sinkhorn, and without its mixers one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mhc_lab.analysis import retarget_report as report
from mhc_lab.analysis.enough import TOLERANCE, gain_sentence, keeps_loss
from mhc_lab.analysis.output import print_table, provenance, write
from mhc_lab.analysis.precision import ITERATED, PRECISIONS
from mhc_lab.analysis.retarget import retarget as evaluations
from mhc_lab.analysis.trained import open_run
from mhc_lab.analysis.words import chosen, iterations
from mhc_lab.errors import LabError
from mhc_lab.machine import refuse_unwritable

T_MAX = "1,2,3,5,8,13,20,40"


def retarget(
    run: Path,
    t_max: str = "",
    algorithms: str = "",
    dtype: str = "",
    results: Path = Path("results"),
    tolerance: float = TOLERANCE,
    explain: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Evaluate, print, write; the folder written to. Empty texts are the defaults; `tolerance` is nats a token within
    which a loss counts as kept; `explain` prints what the columns mean. Raises LabError as `open_run` does, and where
    t_max, algorithms or dtype are asked for and nothing iterates."""
    if not 0 < tolerance < float("inf"):
        raise LabError(f"--tolerance {tolerance:g}: must be above 0, in nats a token")
    t_maxes = iterations("--t-max", t_max or T_MAX)
    precisions = chosen("--dtype", dtype or ",".join(PRECISIONS), PRECISIONS)
    asked = chosen("--algorithms", algorithms, ITERATED) if algorithms else []
    refuse_unwritable(results)
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
    said = report.words(rows, trained.config.residual.t_max, tolerance)
    if trained.iterated:
        said.append(gain_sentence(results, trained.folder.run_id))
    enough = keeps_loss([row for row in rows if row["kind"] == "t_max" and row["algorithm"] in own], tolerance)
    content = {
        "run_id": trained.folder.run_id,
        "recorded_val_loss": recorded,
        "tolerance": tolerance,
        "loss_from": None if enough is None else enough["t_max"],
        "said": said,
        "rows": rows,
        "notes": [*notes, *report.LEGEND],
        "provenance": made,
    }
    folder = results / "retarget" / trained.folder.run_id
    write(folder, "retarget", content, rows, report.markdown(rows, title, said, notes, made), report.figures(rows))
    legend = report.LEGEND if explain else ("what the columns mean: --explain, or table.md",)
    print_table(title, report.HEADS, report.cells(rows), [*notes, *legend, f"written to {folder}"], above=said)
    return folder
