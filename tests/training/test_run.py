import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mhc_lab.errors import EXIT_INPUT, EXIT_OK, EXIT_RUNS_FAILED, LabError
from mhc_lab.training import module as training_module
from mhc_lab.training.launch import launch
from mhc_lab.training.run import EXIT_INTERRUPTED, failure_reason, main, run

COMMAND = [sys.executable, "-m", "mhc_lab.training.run"]


def fails(error):
    def step(*_):
        raise error

    return step


def test_a_finished_run_has_all_there_is_to_know(folder):
    here = folder("residual=mhc", "trainer.max_steps=12", "trainer.log_every=5", "trainer.val_every=8")
    record = run(here)
    assert record == here.record()
    assert record["status"] == "finished"
    assert record["reason"] is None
    assert record["run_id"] == here.run_id
    metrics = record["metrics"]
    assert metrics["steps"] == 12
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in metrics.values())
    assert metrics["bits_per_byte"] == pytest.approx(metrics["val_loss"] / math.log(2))
    assert metrics["max_grad_norm"] >= metrics["grad_norm"]
    assert metrics["tokens_per_second"] == pytest.approx(4 * 32 * 1000 / metrics["ms_per_step"])
    lines = here.metrics()
    assert [line["step"] for line in lines if "train_loss" in line] == [5, 10, 12]
    assert [line["step"] for line in lines if "val_loss" in line] == [8, 12]
    assert lines[-1]["val_loss"] == metrics["val_loss"]
    assert lines[0]["learning_rate"] == 3e-3
    assert 0 < record["probe_fraction"] < 1
    assert here.checkpoint_file.is_file()
    assert sorted(file.name for file in here.path.iterdir() if file.suffix != ".lock") == [
        "checkpoint.pt",
        "code.json",
        "config.yaml",
        "gains.jsonl",
        "metrics.jsonl",
        "record.json",
    ]


def test_train_loss_is_the_mean_over_the_last_steps(folder):
    here = folder("trainer.log_every=1")
    losses = [line["train_loss"] for line in (run(here), here.metrics())[1] if "train_loss" in line]
    assert here.record()["metrics"]["train_loss"] == pytest.approx(sum(losses) / 4)


def test_a_repeated_run_gives_the_same_numbers_and_forgets_the_former_attempt(folder):
    here = folder("residual=mhc")
    first = run(here)
    lines = len(here.metrics())
    second = launch(here)
    assert second["metrics"]["val_loss"] == first["metrics"]["val_loss"]
    assert len(here.metrics()) == lines


def test_logging_does_not_change_the_result(folder):
    losses = []
    for log_every, val_every in ((1, 2), (3, 0)):
        here = folder("trainer.max_steps=5", f"trainer.log_every={log_every}", f"trainer.val_every={val_every}")
        losses.append(run(here)["metrics"]["val_loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("variant", ["identity", "mhc"])
def test_bf16_mixed_runs(variant, folder):
    record = run(folder(f"residual={variant}", "trainer.precision=bf16-mixed"))
    assert record["status"] == "finished"
    assert record["metrics"]["val_loss"] < 6


def test_synthetic_data_has_no_bits_per_byte(folder):
    here = folder("data=synthetic")
    record = run(here)
    assert record["metrics"]["bits_per_byte"] is None
    assert record["metrics"]["val_loss"] > 0
    assert not any("bits_per_byte" in line for line in here.metrics())


@pytest.mark.parametrize("log_every", [1, 7])
def test_divergence_is_a_result_that_names_its_step(log_every, folder, capfd):
    here = folder(
        "residual=hc", "optim.learning_rate=1e18", "optim.clip_norm=0", "optim.warmup_steps=0",
        "trainer.max_steps=40", f"trainer.log_every={log_every}",
    )  # fmt: skip
    assert main([str(here.path)]) == EXIT_OK
    record = here.record()
    assert record["status"] == "diverged"
    step = record["metrics"]["steps"] + 1
    assert record["reason"] in (f"training loss NaN at step {step}", f"training loss infinite at step {step}")
    assert record["metrics"]["val_loss"] is None
    assert "NaN" not in here.metrics_file.read_text()
    assert not here.checkpoint_file.exists()
    assert "Traceback" not in capfd.readouterr().err


def test_a_validation_loss_that_is_not_finite_is_divergence(folder, monkeypatch):
    broken = training_module.ResidualLM.on_validation_epoch_end

    def end(self):
        broken(self)
        self.val_loss = math.inf

    monkeypatch.setattr(training_module.ResidualLM, "on_validation_epoch_end", end)
    record = run(folder())
    assert (record["status"], record["reason"]) == ("diverged", "validation loss infinite at step 4")
    assert record["metrics"]["val_loss"] is None


def test_an_exception_is_recorded_with_its_reason(folder, monkeypatch, capfd):
    monkeypatch.setattr(training_module.ResidualLM, "training_step", fails(ValueError("no such luck\nat all")))
    here = folder()
    assert main([str(here.path)]) == EXIT_RUNS_FAILED
    assert here.record()["status"] == "failed"
    assert here.record()["reason"] == "ValueError: no such luck"
    assert here.record()["metrics"]["val_loss"] is None
    assert "failed: ValueError: no such luck" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "out of memory"),
        (ValueError(), "ValueError"),
    ],
)
def test_reasons(error, reason):
    assert failure_reason(error) == reason


def test_a_failure_before_the_model_stands_is_recorded(folder, monkeypatch):
    monkeypatch.setattr(training_module, "build_model", fails(MemoryError()))
    record = run(folder())
    assert (record["status"], record["reason"]) == ("failed", "out of memory")


def test_what_the_user_can_mend_costs_no_former_result(folder, monkeypatch, capsys):
    here = folder("trainer.accelerator=auto")
    before = run(here)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    here.config_file.write_text(here.config_file.read_text().replace("devices: 1", "devices: 2"))
    assert main([str(here.path)]) == EXIT_INPUT
    assert "this machine has 1 GPU" in capsys.readouterr().err
    assert here.record() == before
    assert here.checkpoint_file.is_file()


def test_a_held_folder_is_left_alone(folder):
    here = folder()
    with here.lock(), pytest.raises(LabError, match="another process works on this run"):
        run(here)
    assert here.record() is None


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["nowhere"]])
def test_a_call_without_a_run_folder(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == EXIT_INPUT
    assert capsys.readouterr().err.startswith("error: ")


def test_sigterm_leaves_a_killed_record(folder):
    here = folder("trainer.max_steps=100000", "trainer.log_every=1")
    with subprocess.Popen([*COMMAND, str(here.path)]) as process:
        deadline = time.monotonic() + 120
        while not here.metrics() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == EXIT_INTERRUPTED
    assert (here.record()["status"], here.record()["reason"]) == ("killed", "interrupted by SIGTERM")
    assert here.record()["metrics"]["steps"] > 0


BLOCKER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("optuna", "mlflow"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
from mhc_lab.training.run import main
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_run_needs_neither_optuna_nor_mlflow(folder):
    here = folder()
    done = subprocess.run([sys.executable, "-c", BLOCKER, str(here.path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(here.record_file.read_text())["status"] == "finished"


PLUGIN = """
from mhc_lab.residual.registry import register_constraint
register_constraint("mine", "mhc_lab.residual.constraints.unconstrained:Unconstrained")
"""


def test_a_run_brings_its_plugin_along(tiny, tmp_path):
    """The folder's own copy is enough, in a process that never saw the original."""
    from mhc_lab.data.corpus import corpus_fingerprint
    from mhc_lab.run_folder import RunFolder

    plugin = tmp_path / "my_variant.py"
    plugin.write_text(PLUGIN)
    config = tiny(f"residual.plugin={plugin}", "residual=mine")
    here = RunFolder.create(tmp_path, config, corpus_fingerprint(config))
    plugin.unlink()
    done = subprocess.run([*COMMAND, str(here.path)], capture_output=True, text=True, env={**os.environ})
    assert (done.returncode, done.stderr) == (0, "")
    assert here.record()["variant"] == "mine"


def test_progress_in_plain_lines(folder, capsys):
    here = folder()
    run(here, progress=True)
    out = capsys.readouterr().out
    assert f"{here.run_id}  step 4/4  loss" in out.replace("\n", "")
    run(here)
    assert capsys.readouterr().out == ""
