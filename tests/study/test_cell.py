from __future__ import annotations

import signal

import fake_runs
import pytest

from mhc_lab.errors import EXIT_INPUT
from mhc_lab.run_folder import RunFolder
from mhc_lab.study import cell, child
from mhc_lab.study.cell import record_end, run_cell


@pytest.mark.parametrize(
    ("code", "words", "kernel", "reason"),
    [
        (-signal.SIGKILL, "", True, "out of memory: killed by the kernel (SIGKILL)"),
        (-signal.SIGKILL, "", False, "killed by SIGKILL (kill -9, or out of memory in a container)"),
        (-signal.SIGSEGV, "step 3\n", False, "killed by SIGSEGV"),
        (-signal.SIGABRT, "std::bad_alloc\n", False, "out of memory: std::bad_alloc"),
        (
            1,
            "x\nRuntimeError: CUDA out of memory. Tried\n\n",
            False,
            "out of memory: RuntimeError: CUDA out of memory. Tried",
        ),
        (EXIT_INPUT, "./books: no such file\n", False, "./books: no such file"),
        (0, "", False, "ended with exit code 0 and no record: it printed nothing"),
        (3, "one\ntwo\n", False, "ended with exit code 3 and no record: two"),
    ],
)
def test_the_reason_of_a_process_that_left_no_record(code, words, kernel, reason):
    assert cell._reason(code, words, kernel) == reason


def test_a_record_that_is_there_stands(lab):
    lab.ablate(seeds=[0])
    run = lab.runs()["mhc", 0]
    before = run.record()
    assert not record_end(run, "failed", "something else")
    assert run.record() == before
    # and the run is not begun again
    assert run_cell(run, "fake_runs:raises", lambda: False) == before


@pytest.mark.slow
def test_a_run_of_two_devices_is_a_command_of_its_own(lab):
    """Lightning starts the second rank by repeating the command line of the first."""
    made = lab.grid([0], "trainer=ddp", "trainer.accelerator=cpu", *SHORT).cells[0]
    run = RunFolder.create(lab.results, made.config, made.corpus_fingerprint)
    record = run_cell(run, child.DEFAULT_TARGET, lambda: False)
    assert record["status"] == "finished"
    assert record["metrics"]["steps"] == 2


def test_a_command_of_a_run_ends_with_its_worker(lab):
    made = lab.grid([0], "trainer=ddp", "trainer.accelerator=cpu").cells[0]
    run = RunFolder.create(lab.results, made.config, made.corpus_fingerprint)
    process = child.start(run, "fake_runs:slow")
    while not fake_runs.begun(run):
        assert process.wait(0.1) is None
    process._process.stdin.close()  # as the kernel does for a worker that dies
    assert process.wait(60) == 1
    assert run.record() is None


SHORT = ["trainer.max_steps=2", "model.blocks=1", "model.dim=16", "trainer.threads=1", "data.val_windows=4"]


def test_a_run_that_hangs_over_its_time_is_ended(lab, monkeypatch):
    monkeypatch.setattr(cell, "_OVERTIME_SECONDS", 0.2)
    made = lab.grid([0], "trainer.time_limit=1").cells[0]
    run = RunFolder.create(lab.results, made.config, made.corpus_fingerprint)
    record = run_cell(run, "fake_runs:slow", lambda: False)
    assert record["status"] == "failed"
    assert record["reason"] == "over trainer.time_limit=1 s, and it did not end by itself"
    assert fake_runs.begun(run) == 1  # not tried again
