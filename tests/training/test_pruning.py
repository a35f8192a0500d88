"""A run that its worker may prune: it asks at its validations, and goes on or ends as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mhc_lab.run_folder import RunFolder
from mhc_lab.training.callbacks import pruning
from mhc_lab.training.run import run, run_judged

ASKING = (
    "residual=mhc",
    "trainer.max_steps=8",
    "trainer.log_every=1",
    "trainer.val_every=2",
    "trainer.probe_every=4",
    "trainer.threads=1",
)


@contextmanager
def worker(folder: RunFolder, judge: Callable[[int, float], bool]) -> Iterator[list[tuple[int, float]]]:
    """What a worker does while its child runs: answers each question. Gives the questions."""
    asked: list[tuple[int, float]] = []
    done = threading.Event()

    def answer() -> None:
        while not done.wait(0.005):
            question = folder.question()
            if question is not None and question not in asked:
                asked.append(question)
                folder.answer(question[0], judge(*question))

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield asked
    finally:
        done.set()
        thread.join()


def curve(folder: RunFolder, key: str) -> list[tuple[int, float]]:
    return [(line["step"], line[key]) for line in folder.metrics() if key in line]


@pytest.fixture
def unjudged(folder):
    here = folder(*ASKING, "trainer.keep_checkpoint=none")
    assert run(here)["status"] == "finished"
    return {key: curve(here, key) for key in ("train_loss", "grad_norm", "val_loss")}


def test_a_run_that_may_go_on_ends_as_if_nobody_had_asked(unjudged, folder):
    here = folder(*ASKING)
    with worker(here, lambda *_: False) as asked:
        assert run_judged(here)["status"] == "finished"
    assert [step for step, _ in asked] == [2, 4, 6]  # the last step is the result, no question
    assert asked == unjudged["val_loss"][:3]
    assert {key: curve(here, key) for key in unjudged} == unjudged
    assert here.ended()
    assert here.checkpoint_file.is_file()


def test_a_pruned_run_keeps_what_it_has_measured(unjudged, folder):
    here = folder(*ASKING)
    with worker(here, lambda step, _: step >= 4) as asked:
        record = run_judged(here)
    assert [step for step, _ in asked] == [2, 4]
    assert record == here.record()
    assert (record["status"], record["reason"]) == (
        "pruned",
        f"pruned at step 4 with validation loss {asked[-1][1]:.4f}",
    )
    assert not here.ended()  # who asks for this run alone gets it whole
    assert not here.checkpoint_file.exists()
    assert not here.question_file.exists()
    assert not here.verdict_file.exists()
    for key, values in unjudged.items():
        assert curve(here, key) == [(step, value) for step, value in values if step <= 4], key
    assert record["metrics"]["steps"] == 4
    assert record["metrics"]["val_loss"] == asked[-1][1]
    assert max(line["step"] for line in here.gains()) == 4


def test_a_pruned_run_is_run_again_where_it_is_asked_for(folder):
    here = folder(*ASKING)
    with worker(here, lambda *_: True):
        assert run_judged(here)["status"] == "pruned"
    assert run(here)["status"] == "finished"
    assert here.record()["metrics"]["steps"] == 8
    assert [step for step, _ in curve(here, "val_loss")] == [2, 4, 6, 8]


def test_a_run_that_is_not_judged_never_asks(folder, monkeypatch):
    here = folder(*ASKING)

    def ask(*_):
        raise AssertionError("nobody would answer")

    monkeypatch.setattr(RunFolder, "ask", ask)
    assert run(here)["status"] == "finished"
    assert not here.question_file.exists()


def test_the_wait_for_an_answer_is_no_training_time(folder):
    here = folder(*ASKING)
    waited = threading.Event()

    def slowly(*_: float) -> bool:
        waited.wait(1.0)
        return False

    with worker(here, slowly) as asked:
        record = run_judged(here)
    assert len(asked) == 3
    assert record["metrics"]["ms_per_step"] < 300  # 3 s of waiting in 8 steps are 375 a step


def test_answers_of_another_step_are_not_taken(folder):
    here = folder(*ASKING)
    here.answer(2, True)
    assert here.verdict(4) is None
    assert here.verdict(2) is True
    here.answer(4, False)
    assert (here.verdict(2), here.verdict(4)) == (None, False)
    here.end_questions()
    assert here.verdict(4) is None


def test_what_a_former_attempt_was_told_is_forgotten(folder):
    """Killed between question and end, its files stand."""
    here = folder(*ASKING)
    here.ask(2, 9.9)
    here.answer(2, True)
    losses = {}
    with worker(here, lambda step, loss: losses.setdefault(step, loss) > 9.0) as asked:
        asked.append((2, 9.9))  # answered in its time
        assert run_judged(here)["status"] == "finished"
    assert asked[1][0] == 2
    assert asked[1][1] < 9.0


def test_a_pruned_exception_says_where_and_how_far_it_was():
    outcome = pruning.Pruned(30, 2.34567)
    assert outcome.step == 30
    assert str(outcome) == "pruned at step 30 with validation loss 2.3457"
