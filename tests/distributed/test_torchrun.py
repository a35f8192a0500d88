"""`mhc-lab train` under torchrun: two ranks on one machine, two nodes in either order, and what cannot join."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mhc_lab.config import compose
from mhc_lab.errors import LabError
from mhc_lab.run_folder import RunFolder, runs_dir
from mhc_lab.training.joining import join

pytestmark = pytest.mark.survival

TINY = ["tracking=none", "model.blocks=1", "model.dim=16", "model.heads=2", "model.sequence_length=16",
        "data.batch_size=4", "data.val_windows=4", "trainer.max_steps=4"]  # fmt: skip
NODES = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=static"]


def torchrun(results: Path, launch: list[str], *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", *launch, "-m", "mhc_lab.cli", "train", *TINY, *overrides]
    return subprocess.Popen(
        [*command, "--results", str(results)],
        env={**os.environ, "MHC_LAB_THREADS": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def records(results: Path) -> list[str]:
    found = [RunFolder(path).record() for path in runs_dir(results).glob("*-*")]
    return [record["status"] if record else "none" for record in found]


def test_two_ranks_on_one_machine(tmp_path: Path) -> None:
    job = torchrun(tmp_path, ["--standalone", "--nproc-per-node=2"], "trainer=ddp", "trainer.devices=2",
                   "trainer.accelerator=cpu")  # fmt: skip
    said, _ = job.communicate(timeout=240)
    assert job.returncode == 0, said
    assert records(tmp_path) == ["finished"]
    assert said.count("val loss") <= 1


@pytest.mark.parametrize("first", [0, 1])
def test_two_nodes_in_either_order(first: int, tmp_path: Path) -> None:
    port = free_port()
    jobs = []
    for rank in (first, 1 - first):
        launch = [*NODES, f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        jobs.append(torchrun(tmp_path, launch, "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2",
                             "trainer.accelerator=cpu"))  # fmt: skip
        time.sleep(6)
    for job in jobs:
        said, _ = job.communicate(timeout=240)
        assert job.returncode == 0, said
    assert records(tmp_path) == ["finished"]


def test_another_number_of_processes_is_one_line(tmp_path: Path) -> None:
    job = torchrun(tmp_path, ["--standalone", "--nproc-per-node=2"])
    said, _ = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "error: torchrun started 2 processes, but trainer.devices × trainer.num_nodes is 1" in said
    assert not runs_dir(tmp_path).exists()


def test_a_rank_that_cannot_join_says_so_in_time(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="the first rank did not begin this run within 1 s: start all nodes together"):
        join(RunFolder(tmp_path / "nothing"), compose([]), seconds=1)
    # What lies there of another command is not what this one asks for.
    other = RunFolder.create(tmp_path, compose(["trainer=ddp"]), "0" * 16)
    with pytest.raises(LabError, match="did not begin"):
        join(other, compose([]), seconds=0.5)
    join(other, compose(["trainer=ddp"]), seconds=0.5)
