"""Pruning with two processes a run: the ranks stop at the same step, and the sweep knows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.residual.registry import TRUST_ALL, TRUST_VARIABLE
from mhc_lab.run_folder import RunFolder
from mhc_lab.study.child import JUDGED_TARGET

pytestmark = pytest.mark.survival

DDP = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
ENVIRONMENT = {**os.environ, "MHC_LAB_THREADS": "1", "OMP_NUM_THREADS": "1"}

# Each rank writes the steps it has trained: a plugin is what both import.
WITNESS = """
import os
from pathlib import Path
from mhc_lab.training.callbacks.pruning import Pruning

batch, ask = getattr(Pruning, "on_train_batch_end"), Pruning.on_validation_end

def note(self, trainer, what):
    with (Path(__file__).parent / f"rank{trainer.global_rank}.txt").open("a") as out:
        out.write(f"{what} {trainer.global_step}\\n")

def trained(self, trainer, *rest):
    note(self, trainer, "trained")
    return batch(self, trainer, *rest)

def asked(self, trainer, module):
    try:
        ask(self, trainer, module)
    except BaseException as error:
        note(self, trainer, type(error).__name__)
        raise
    note(self, trainer, "went on")

Pruning.on_train_batch_end, Pruning.on_validation_end = trained, asked
"""
SWEEP = """
title: A good learning rate and an absurd one
overrides: [residual=mhc, model.blocks=1, model.dim=16, model.heads=2, model.sequence_length=32, data.batch_size=4,
            trainer.threads=1, data=synthetic, data.val_windows=4, trainer.max_steps=9, trainer=ddp, trainer.devices=2,
            trainer.accelerator=cpu]
space: {optim.learning_rate: {float: [1e-4, 10.0], log: true}}
sampler: {name: tpe, seed: 0}
pruner: {name: hyperband, min_steps: 6, factor: 3}
trials: 2
enqueue: [{optim.learning_rate: 3e-3}, {optim.learning_rate: 5.0}]
"""


@pytest.mark.parametrize("stop_at", [4, None])
def test_both_ranks_do_as_they_are_told(stop_at, tiny, tmp_path):
    plugin = tmp_path / "witness.py"
    plugin.write_text(WITNESS)
    steps = ("trainer.max_steps=6", "trainer.log_every=1", "trainer.val_every=2", "trainer.probe_every=2")
    config = tiny("residual=mhc", f"residual.plugin={plugin}", *steps, *DDP)
    folder = RunFolder.create(tmp_path, config, corpus_fingerprint(config))
    done = threading.Event()
    asked = []

    def answer():
        while not done.wait(0.01):
            question = folder.question()
            if question is not None and question not in asked:
                asked.append(question)
                folder.answer(question[0], question[0] == stop_at)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        command = [sys.executable, "-m", "mhc_lab.study.child", str(folder.path), JUDGED_TARGET]
        trusting = {**ENVIRONMENT, TRUST_VARIABLE: TRUST_ALL}
        # stdin stays open: a child ends with its parent.
        with subprocess.Popen(
            command, env=trusting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child:
            printed = child.stdout.read()
            code = child.wait(100)
    finally:
        done.set()
        thread.join()
    assert code == 0, printed
    assert "Traceback" not in printed
    last = stop_at or 6
    record = folder.record()
    assert (record["status"], record["metrics"]["steps"]) == ("finished" if stop_at is None else "pruned", last)
    assert [step for step, _ in asked] == [2, 4]
    assert {line["step"] for line in folder.metrics()} == set(range(1, last + 1))
    assert folder.checkpoint_file.is_file() == (stop_at is None)
    assert not folder.question_file.exists()
    ranks = [(folder.path / f"rank{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert ranks[0][-1] == ("went on 6" if stop_at is None else "Pruned 4")
    assert [line for line in ranks[0] if line.startswith("trained")] == [f"trained {n}" for n in range(1, last + 1)]


def test_a_sweep_of_two_process_runs_prunes_and_says_so(tmp_path):
    (tmp_path / "rates.yaml").write_text(SWEEP)
    command = [str(Path(sys.executable).parent / "mhc-lab"), "sweep", "./rates.yaml"]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = tmp_path / "results" / "runs"
    study = optuna.load_study(study_name="rates", storage=f"sqlite:///{runs}/studies.db")
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED]
    pruned = study.trials[1]
    (run_id,) = pruned.user_attrs["runs"].values()
    record = json.loads((runs / run_id / "record.json").read_text())
    assert (record["status"], record["metrics"]["steps"]) == ("pruned", max(pruned.intermediate_values))
    assert "Traceback" not in (runs / run_id / "log.txt").read_text()

    client = MlflowClient(tracking_uri=f"sqlite:///{runs}/mlflow.db")
    experiment = client.get_experiment_by_name("mhc_lab").experiment_id
    found = client.search_runs([experiment])
    (run,) = [run for run in found if run.data.tags.get("run_id") == run_id]
    assert (run.info.status, run.data.tags["pruned"], run.data.tags["status"]) == ("KILLED", "true", "pruned")
    assert run.data.tags["trial"] == str(pruned.number)
    (parent,) = [run for run in found if "run_id" not in run.data.tags]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.status == "FINISHED"
    finished = [run for run in found if run.data.tags.get("status") == "finished"]
    assert len(finished) == states.count(TrialState.COMPLETE)
