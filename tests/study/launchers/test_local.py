from __future__ import annotations

import pytest

from mhc_lab.config.compose import compose
from mhc_lab.errors import LabError
from mhc_lab.study.launchers import local
from mhc_lab.study.launchers.local import Slot, slots


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Eight cores, and the GPUs that a test names."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("MHC_LAB_THREADS")

    def with_gpus(*names: str) -> None:
        monkeypatch.setattr(local, "_visible_devices", lambda: list(names))

    with_gpus()
    return with_gpus


def test_on_the_cpu_workers_share_the_cores():
    assert slots(compose(["launcher.workers=3"])) == [Slot(None, 2)] * 3
    assert slots(compose(["launcher.workers=20"]))[0].threads == 1
    two_ranks = ["launcher.workers=2", "trainer=ddp", "trainer.accelerator=cpu"]
    assert slots(compose(two_ranks)) == [Slot(None, 2)] * 2


def test_threads_as_the_environment_has_them(monkeypatch):
    monkeypatch.setenv("MHC_LAB_THREADS", "5")
    assert slots(compose(["launcher.workers=3"])) == [Slot(None, 5)] * 3


def test_each_device_in_turn_until_runs_per_device_share_it(machine):
    machine("4", "5", "6")
    gpu = ["trainer=gpu", "launcher.devices=[0,2]"]
    assert [slot.devices for slot in slots(compose(gpu))] == ["4", "6"]
    assert [slot.devices for slot in slots(compose([*gpu, "launcher.runs_per_device=2"]))] == ["4", "6", "4", "6"]
    fewer = [*gpu, "launcher.runs_per_device=2", "launcher.workers=3"]
    assert [slot.devices for slot in slots(compose(fewer))] == ["4", "6", "4"]


def test_without_devices_the_workers_spread_over_all_that_are_visible(machine):
    machine("0", "1")
    assert [slot.devices for slot in slots(compose(["trainer=gpu"]))] == ["0"]
    assert [slot.devices for slot in slots(compose(["trainer=gpu", "launcher.workers=2"]))] == ["0", "1"]
    assert [slot.devices for slot in slots(compose(["trainer=cpu", "launcher.workers=2"]))] == [None, None]


def test_a_run_of_several_devices_gets_a_group_of_them(machine):
    machine("0", "1", "2", "3", "4")
    ddp = ["trainer=ddp", "trainer.devices=2", "launcher.devices=[0,1,2,3,4]"]
    assert [slot.devices for slot in slots(compose(ddp))] == ["0,1", "2,3"]


@pytest.mark.parametrize(
    ("gpus", "overrides", "words"),
    [
        ([], ["trainer=gpu"], "no GPU is visible; use trainer=cpu"),
        ([], ["launcher.devices=[0]"], "GPU 0 is not there .no GPU is visible"),
        (["0"], ["trainer=gpu", "launcher.devices=[0,1]"], "GPU 1 is not there .there are 1, counted from 0"),
        (["0"], ["trainer=gpu", "launcher.devices=[-1]"], "GPU -1 is not there"),
        (["0", "1"], ["trainer=gpu", "launcher.workers=4"], "2 runs fit .*launcher.runs_per_device=2"),
        (["0"], ["trainer=ddp"], "trainer.devices=2: only 1 GPU"),
    ],
)
def test_what_is_not_there_is_refused(machine, gpus, overrides, words):
    machine(*gpus)
    with pytest.raises(LabError, match=words):
        slots(compose(overrides))
