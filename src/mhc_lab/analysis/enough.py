"""Which t_max is enough for a trained model, in one sentence that `retarget` and `sinkhorn` share.

Two questions have two answers: from which t_max on the *loss* of a trained model is that of its own t_max, within a
tolerance (`retarget`), and from which on the *gains* over all layers stay below a bound (`sinkhorn`). Each command says
its own, and the other's where that has been asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mhc_lab.errors import LabError
from mhc_lab.run_folder import read_json

Row = Mapping[str, Any]

TOLERANCE = 1e-3  # nats a token: a tenth of the smallest gap that papers call a gain


def keeps_loss(rows: Sequence[Row], tolerance: float) -> Row | None:
    """Of one algorithm's evaluations, `rows` by t_max, the one of the smallest t_max from which on the loss is within
    `tolerance` nats a token of the model as trained, interval included. None where even the last is not."""
    found: Row | None = None
    for row in reversed(rows):
        if not abs(row["difference"]) + (row["half_width"] or 0.0) <= tolerance:
            break
        found = row
    return found


def loss_sentence(algorithm: str, rows: Sequence[Row], trained: int, tolerance: float) -> str:
    """What `keeps_loss` found, beside the t_max that the model was trained with."""
    enough = keeps_loss(rows, tolerance)
    within = f"within {tolerance:g} nats a token"
    if enough is None:
        last = rows[-1]
        return f"{algorithm}: no t_max up to {last['t_max']} keeps val loss {within} ({last['difference']:+.2g} there)"
    below = [row for row in rows if row["t_max"] < enough["t_max"]]
    if not below and enough["t_max"] >= trained:
        return f"{algorithm}: no t_max below the trained {trained} was tried: give --t-max"
    if enough["t_max"] >= trained:
        return (
            f"{algorithm}: no t_max below the trained {trained} is enough: t_max = {below[-1]['t_max']} moves val loss "
            f"by {below[-1]['difference']:+.2g}, and {tolerance:g} nats a token are allowed"
        )
    half = enough["half_width"]
    sure = "too few windows for an interval" if half is None else f"\u00b1 {half:.1g}"
    return (
        f"{algorithm}: t_max = {enough['t_max']} is enough to run this model: val loss stays {within} of "
        f"t_max = {trained}, as trained ({enough['difference']:+.2g}, {sure})"
    )


def gain_sentence(results: Path, run_id: str) -> str:
    """What `sinkhorn` says of a run's gains, for `retarget`."""
    said = _number(results / "sinkhorn-analysis" / run_id / "analysis.json", "gains_from")
    if said is None:
        return "To train, bounded gains count too: mhc-lab sinkhorn --checkpoint with this run says which t_max."
    return f"To train, bounded gains count too: by mhc-lab sinkhorn this run's stay bounded from t_max = {said} on."


def run_sentence(results: Path, run_id: str) -> str:
    """What `retarget` says of a run's loss, for `sinkhorn`."""
    said = _number(results / "retarget" / run_id / "retarget.json", "loss_from")
    if said is None:
        return "This is the t_max to train with. mhc-lab retarget with this run says what keeps its loss."
    return f"This is the t_max to train with. To run the trained model t_max = {said} is enough, by mhc-lab retarget."


def _number(file: Path, name: str) -> int | None:
    """A number of another command's result; None where there is none, or none that can be read."""
    try:
        value = (read_json(file) or {}).get(name)
    except LabError:  # a damaged file of another command costs a half-sentence here
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
