from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import fake_runs
import pytest
from optuna.trial import TrialState

from mhc_lab.errors import LabError, RunsFailed
from mhc_lab.run_folder import write_json
from mhc_lab.study import engine


def test_four_workers_run_forty_cells_once_each(lab):
    assert lab.ablate(seeds=range(10), workers=4) == []
    runs = lab.runs(lab.grid(range(10)))
    assert len(runs) == 40
    assert {fake_runs.begun(run) for run in runs.values()} == {1}
    trials = lab.trials()
    assert Counter(trial.user_attrs["run_id"] for trial in trials) == {run.run_id: 1 for run in runs.values()}
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert {trial.value for trial in trials} == {fake_runs.LOSS + seed for seed in range(10)}


def test_repeating_runs_nothing_and_a_seed_can_be_added(lab):
    assert lab.ablate(seeds=[0]) == []
    assert lab.ablate(seeds=[0]) == []
    assert len(lab.trials()) == 4
    assert lab.ablate(seeds=[0, 5]) == []
    runs = lab.runs(lab.grid([0, 5]))
    assert {fake_runs.begun(run) for run in runs.values()} == {1}
    study = lab.folder().content()
    assert [(cell["row"], cell["seed"]) for cell in study["cells"]] == list(runs)
    assert study["timing_config"] == {row: runs[row, 0].run_id for row, _ in runs}


def test_fewer_seeds_keep_the_others_in_the_study_and_do_not_run_them(lab):
    lab.ablate("killed_twice_at_1", seeds=[0, 1])
    assert lab.ablate(seeds=[0]) == []
    assert {cell["seed"] for cell in lab.folder().content()["cells"]} == {0, 1}
    assert {fake_runs.begun(lab.runs()[row, 1]) for row in ("identity", "mhc")} == {2}


def test_a_killed_run_is_failed_with_its_reason_and_the_grid_goes_on(lab):
    failures = lab.ablate("killed_twice_at_1", seeds=[0, 1], workers=2)
    runs = lab.runs(lab.grid([0, 1]))
    assert failures[0].startswith("4 of 8 cells have no result")
    assert len(failures) == 5
    assert failures[1] == (
        f"  identity seed 1: killed by SIGKILL (kill -9, or out of memory in a container); "
        f"see {runs['identity', 1].log_file}"
    )
    assert {seed: run.record()["status"] for (_, seed), run in runs.items()} == {
        0: "finished",
        1: "failed",
    }
    assert lab.ablate("killed_twice_at_1", seeds=[0, 1], workers=2) == []
    assert {seed: fake_runs.begun(run) for (_, seed), run in runs.items()} == {0: 1, 1: 3}


def test_a_run_that_is_killed_once_is_tried_again_at_once(lab):
    assert lab.ablate("killed_once_at_1", seeds=[0, 1]) == []
    runs = lab.runs(lab.grid([0, 1]))
    assert {seed: fake_runs.begun(run) for (_, seed), run in runs.items()} == {0: 1, 1: 2}


def test_an_exception_without_a_record_is_told_by_its_last_words(lab):
    failures = lab.ablate("raises", seeds=[0])
    reason = lab.runs()["mhc", 0].record()["reason"]
    assert reason == "out of memory: MemoryError: no room for the streams"
    assert any(reason in line for line in failures)
    assert "Traceback" in lab.runs()["mhc", 0].log_file.read_text()


def test_diverged_is_a_result(lab):
    for _ in range(2):
        assert lab.ablate("diverges_at_1", seeds=[0, 1]) == []
    assert {fake_runs.begun(run) for run in lab.runs(lab.grid([0, 1])).values()} == {1}
    values = {trial.user_attrs["seed"]: trial.value for trial in lab.trials()}
    assert values == {0: 2.0, 1: float("inf")}


def test_a_grid_in_which_all_diverged_has_nothing_to_compare(lab, monkeypatch):
    monkeypatch.setattr(engine, "DEFAULT_TARGET", "fake_runs:diverges_at_1")
    for _ in range(2):
        with pytest.raises(RunsFailed, match="no run finished: all 4 diverged; NaN loss at step 3") as error:
            engine.ablate(str(lab.file), seeds=[1], results=lab.results, overrides=["tracking=none"])
        assert error.value.exit_code == 3


def test_rows_that_come_to_one_configuration_share_their_runs(lab):
    lab.file.write_text(lab.file.read_text() + "  twin: {overrides: [residual=identity, model.blocks=4]}\n")
    grid = lab.grid([0])
    assert grid.cells[0].run_id == grid.cells[-1].run_id
    assert lab.ablate(seeds=[0]) == []
    assert len(lab.trials()) == 4
    assert fake_runs.begun(lab.runs()["twin", 0]) == 1


def test_other_shared_overrides_are_refused_with_the_difference(lab):
    lab.ablate(seeds=[0], overrides=["trainer.max_steps=5"])
    before = lab.folder().study_file.read_text()
    message = r"then trainer.max_steps=5, now trainer.max_steps=6 model.dim=32.*--study NAME"
    with pytest.raises(LabError, match=message):
        lab.ablate(seeds=[3], overrides=["trainer.max_steps=6", "model.dim=32"])
    assert lab.folder().study_file.read_text() == before
    # What cannot change a result is free.
    assert lab.ablate(seeds=[0], overrides=["trainer.max_steps=5", "trainer.log_every=3", "trainer.threads=1"]) == []
    assert {fake_runs.begun(run) for run in lab.runs(lab.grid([0], "trainer.max_steps=5")).values()} == {1}


def test_a_row_that_changed_is_refused(lab):
    lab.ablate(seeds=[0])
    lab.file.write_text(lab.file.read_text().replace("residual=orthogonal", "residual=orthogonal, residual.streams=2"))
    lab.file.write_text(lab.file.read_text().replace("- residual=orthogonal, ", "- residual=orthogonal\n    - "))
    with pytest.raises(LabError, match="row 'orthogonal' or the corpus has changed"):
        lab.ablate(seeds=[0])


def test_results_of_other_code_ask_for_a_choice(lab):
    lab.ablate(seeds=[0])
    run = lab.runs()["mhc", 0]
    write_json(run.record_file, {**run.record(), "code_fingerprint": "older"})
    with pytest.raises(LabError, match=r"1 of 4 runs were made with other code.*--rerun.*--keep"):
        lab.ablate(seeds=[0])
    assert lab.ablate(seeds=[0], keep=True) == []
    assert fake_runs.begun(run) == 1
    assert lab.ablate(seeds=[0], rerun=True) == []
    assert {name: fake_runs.begun(run) for (name, seed), run in lab.runs().items() if seed == 0} == {
        "identity": 1,
        "hc": 1,
        "mhc": 2,
        "orthogonal": 1,
    }
    assert run.record()["code_fingerprint"] != "older"


def test_plain_lines_tell_of_each_cell(lab, capfd):
    lab.ablate("diverges_at_1", seeds=[0, 1])
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "study grid: 8 cells, 0 done, 8 to run"
    assert len(lines) == 9
    assert lines[1] == "[1/8] identity seed 0  val_loss 2.0000  (0.1 s)"
    assert sum("seed 1  diverged: NaN loss at step 3" in line for line in lines) == 4


def test_study_json_has_what_reports_read(lab):
    lab.ablate(seeds=[0], overrides=["trainer.max_steps=5", "launcher.runs_per_device=2"])
    content = json.loads(Path(lab.folder().study_file).read_text())
    assert content["storage"] == "sqlite:///{results}/runs/studies.db"
    assert content["overrides"] == ["data=synthetic", "trainer.max_steps=5"]
    assert content["baseline"] == "identity"
    assert content["rows"][0] == {
        "row": "identity",
        "overrides": ["residual=identity"],
        "baseline": "identity",
        "control": False,
        "variant": "identity",
        "h_res": "fixed",
        "h_pre": "fixed",
        "h_post": "fixed",
        "streams": 1,
        "paper_loss_gap": None,
        "tuned": None,
    }
    assert content["rows"][2]["h_res"] == "dynamic"
