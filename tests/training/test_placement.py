import subprocess
import sys

import pytest
import torch

from mhc_lab.config.schema import TrainerConfig
from mhc_lab.errors import LabError
from mhc_lab.training.placement import accelerator, global_rank, threads


def test_a_gpu_that_is_not_there_is_the_users_to_mend(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert accelerator(TrainerConfig(accelerator="auto")) == "cpu"
    with pytest.raises(LabError, match="no CUDA GPU; take trainer=cpu"):
        accelerator(TrainerConfig(accelerator="gpu"))


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert accelerator(TrainerConfig(accelerator="gpu", devices=1)) == "gpu"
    with pytest.raises(LabError, match=r"this machine has 1 GPU$"):
        accelerator(TrainerConfig(accelerator="auto", devices=2, strategy="ddp"))


def test_threads_by_config_then_environment_then_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("MHC_LAB_THREADS", raising=False)
    assert threads(TrainerConfig()) == 8
    assert threads(TrainerConfig(devices=2, strategy="ddp")) == 4
    monkeypatch.setenv("MHC_LAB_THREADS", "3")
    assert threads(TrainerConfig()) == 3
    assert threads(TrainerConfig(threads=2)) == 2
    monkeypatch.setenv("MHC_LAB_THREADS", "many")
    with pytest.raises(LabError, match="MHC_LAB_THREADS=many"):
        threads(TrainerConfig())


def test_the_rank_of_a_single_device_run_is_0_whatever_its_job_says(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("NODE_RANK", "2")
    assert global_rank(TrainerConfig()) == 0
    assert global_rank(TrainerConfig(devices=2, num_nodes=3, strategy="ddp")) == 5


def test_a_run_in_processes_of_its_own_begins_without_importing_lightning():
    code = (
        "import sys; import mhc_lab.training.launch, mhc_lab.training.joining; "
        "assert not {'lightning', 'numba'} & {*sys.modules}"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
