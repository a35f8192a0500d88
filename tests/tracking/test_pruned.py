"""A pruned run in MLflow: stopped on purpose, and no result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mhc_lab.tracking.mlflow import adopt, push, start_run
from mhc_lab.tracking.store import default_uri

MakeRun = Callable[..., Any]
REASON = "pruned at step 3 with validation loss 2.9700"


def test_a_pruned_run_is_killed_and_tagged(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=mhc")
    start_run(results, folder, folder.config().tracking)
    folder.log(1, 3)
    assert push(folder)
    assert store_at(default_uri(results)).child(folder).info.status == "RUNNING"
    folder.end("pruned", REASON)
    assert push(folder)
    store = store_at(default_uri(results))
    run = store.child(folder)
    assert run.info.status == "KILLED"
    assert (run.data.tags["pruned"], run.data.tags["status"], run.data.tags["reason"]) == ("true", "pruned", REASON)
    assert run.data.tags["diverged"] == "false"
    assert [step for step, _ in store.history(run, "train_loss")] == [1, 2, 3]


def test_other_ends_are_not_tagged_pruned(results: Path, make_run: MakeRun, store_at: Any) -> None:
    for status, shown in (("finished", "FINISHED"), ("killed", "KILLED")):
        folder = make_run("residual=mhc", f"residual.t_max={len(status)}")
        folder.log(1, 1)
        folder.end(status, None)
        assert push(folder)
        run = store_at(default_uri(results)).child(folder)
        assert run.info.status == shown
        assert "pruned" not in run.data.tags


def test_a_trials_run_is_a_child_of_its_sweep(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=mhc")
    tags = {"row": "trial 7", "trial": "7", "seed": "0", "point": "learning_rate=0.003, t_max=20"}
    adopt(results, "sinkhorn", folder.config().tracking, [folder], {folder.run_id: tags})
    folder.log(1, 3)
    folder.end("pruned", REASON)
    assert push(folder)
    store = store_at(default_uri(results))
    run = store.child(folder)
    assert (run.data.tags["study"], run.data.tags["trial"]) == ("sinkhorn", "7")
    assert run.info.run_name == "trial 7 seed 0: learning_rate=0.003, t_max=20"
    assert run.data.tags["mlflow.parentRunId"] == store.parent().info.run_id


def test_a_pruned_run_that_is_taken_up_again_is_another_run(results: Path, make_run: MakeRun, store_at: Any) -> None:
    """It is no result, so that whoever asks for it later has it run."""
    folder = make_run("residual=mhc")
    folder.log(1, 3)
    folder.end("pruned", REASON)
    assert push(folder)
    folder.clear()
    folder.log(1, 8)
    folder.end()
    assert push(folder)
    pruned, whole = sorted(store_at(default_uri(results)).children(folder), key=lambda run: run.info.status != "KILLED")
    assert (pruned.data.tags["superseded"], pruned.data.tags["pruned"]) == ("true", "true")
    assert whole.info.status == "FINISHED"
    assert "pruned" not in whole.data.tags
