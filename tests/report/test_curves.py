"""What runs wrote as they went, as figures read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mhc_lab.errors import LabError
from mhc_lab.report.curves import last_probes, training
from mhc_lab.report.frame import load

GAINS = ("gain_forward", "gain_backward", "composite_gain_forward", "composite_gain_backward", "spread")


def probe(step: int) -> str:
    matrices = [[[1.0, 0.0], [0.0, 1.0]]] * 3
    curves = {name: [float(step)] * 3 for name in GAINS}
    return json.dumps({"step": step, **curves, "ds_error": [0.0] * 3, "h_res": matrices, "h_res_composite": matrices})


@pytest.fixture
def written(study: Any) -> tuple[Any, Path, Path]:
    """A study with a finished and a diverged run."""
    study.row("identity", [2.5, None])
    study.cell("identity", 1, None, status="diverged", reason="loss is nan")
    folders = [study.results / "runs" / cell["run_id"] for cell in study.spec["cells"]]
    return load(study.save(), "demo"), *folders


def test_logged_steps_of_runs_that_ended(written: tuple[Any, Path, Path]) -> None:
    study, finished, diverged = written
    lines = [
        {"step": 10, "train_loss": 3.0, "grad_norm": 1.5},
        {"step": 10, "gain_forward": 1.0},  # a probe's line
        {"step": 20, "train_loss": 2.0},  # its gradient norm was not finite
    ]
    (finished / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30, "tra')
    (diverged / "metrics.jsonl").write_text(json.dumps(lines[0]) + "\n")
    curves = training(study)["identity"]
    assert list(curves[0].steps) == [10, 20]
    assert list(curves[0].train_loss) == [3.0, 2.0]
    assert curves[0].grad_norm[0] == 1.5
    assert np.isnan(curves[0].grad_norm[1])
    assert list(curves[1].steps) == [10]


def test_the_last_probe_of_finished_runs(written: tuple[Any, Path, Path]) -> None:
    study, finished, diverged = written
    for folder in (finished, diverged):
        (folder / "gains.jsonl").write_text("".join(probe(step) + "\n" for step in (10, 20, 30)) + probe(40)[:50])
    probes = last_probes(study)["identity"]
    assert list(probes) == [0]
    assert probes[0].step == 30
    assert list(probes[0].gain_forward) == [30.0] * 3
    assert probes[0].h_res.shape == probes[0].h_res_composite.shape == (3, 2, 2)


def test_a_probe_longer_than_a_block_is_read_whole(written: tuple[Any, Path, Path]) -> None:
    study, finished, _ = written
    padded = {**json.loads(probe(20)), "more": [0.25] * 60_000}
    (finished / "gains.jsonl").write_text(probe(10) + "\n" + json.dumps(padded) + "\n")
    assert last_probes(study)["identity"][0].step == 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"spread": None},
        {"gain_forward": []},
        {"h_res": [], "h_res_composite": []},
        {"h_res": [[1.0, 0.0]] * 3},
        {"h_res": [[[1.0, 0.0]]] * 3},
        {"composite_gain_backward": [[1.0]] * 3},
        {"spread": [1.0, 2.0]},
        {"gain_backward": "x"},
    ],
)
def test_a_probe_without_a_value_for_each_layer_is_damaged(
    wrong: dict[str, Any], written: tuple[Any, Path, Path]
) -> None:
    study, finished, _ = written
    (finished / "gains.jsonl").write_text(json.dumps({**json.loads(probe(20)), **wrong}) + "\n")
    with pytest.raises(LabError, match=r"gains.jsonl: is damaged .*: remove it"):
        last_probes(study)


def test_probes_of_one_row_are_alike(study: Any) -> None:
    study.row("identity", [2.5, 2.6])
    first, second = (study.results / "runs" / cell["run_id"] for cell in study.spec["cells"])
    loaded = load(study.save(), "demo")
    (first / "gains.jsonl").write_text(probe(20) + "\n")
    shorter = {key: value[:2] if isinstance(value, list) else value for key, value in json.loads(probe(20)).items()}
    (second / "gains.jsonl").write_text(json.dumps(shorter) + "\n")
    with pytest.raises(
        LabError, match=r"row identity: .* hold 2 layers of 2 streams and 3 layers of 2 streams: one is"
    ):
        last_probes(loaded)


def test_runs_that_wrote_nothing_have_no_curves(written: tuple[Any, Path, Path]) -> None:
    study, finished, _ = written
    (finished / "gains.jsonl").write_text('{"torn')
    assert training(study) == {"identity": {}}
    assert last_probes(study) == {"identity": {}}
