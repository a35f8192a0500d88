"""Where a run trains: on what, in how many processes, which of them this is. Told before Lightning is imported, which
takes seconds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from mhc_lab.config.schema import TrainerConfig
from mhc_lab.errors import LabError
from mhc_lab.machine import processor, threads_each

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment


def accelerator(config: TrainerConfig) -> str:
    """ "cpu" or "gpu"; LabError where the GPUs or nodes that were asked for are not there."""
    if config.num_nodes > 1 and not (under_torchrun() or under_slurm()):
        raise LabError(
            f"trainer.num_nodes={config.num_nodes}: start the run on every node, with torchrun or SLURM's srun"
        )
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.accelerator == "cpu" or (config.accelerator == "auto" and not present):
        return "cpu"
    if not present:
        raise LabError("trainer.accelerator=gpu: this machine has no CUDA GPU; take trainer=cpu")
    if config.devices > present:
        raise LabError(f"trainer.devices={config.devices}: this machine has {present} GPU{'s' if present > 1 else ''}")
    return "gpu"


def ranks(config: TrainerConfig) -> int:
    """Processes of a run: one a device, over all nodes."""
    return config.devices * config.num_nodes


def threads(config: TrainerConfig) -> int:
    """CPU threads of one process: trainer.threads, else MHC_LAB_THREADS, else this rank's part of the cores."""
    return config.threads or threads_each(config.devices)


def device_name(config: TrainerConfig) -> str:
    """The device in words, for records."""
    if accelerator(config) == "gpu":
        return str(torch.cuda.get_device_name())
    return processor()


def global_rank(config: TrainerConfig) -> int:
    """This process's rank in its run."""
    if ranks(config) == 1:
        return 0
    if under_torchrun():
        return int(os.environ["RANK"])
    if slurm := under_slurm():
        return int(slurm.global_rank())
    return int(os.environ.get("NODE_RANK", 0)) * config.devices + int(os.environ.get("LOCAL_RANK", 0))


def under_torchrun() -> bool:
    """Whether torchrun started this process, as one of several."""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def under_slurm() -> SLURMEnvironment | None:
    """What Lightning knows of the SLURM job whose srun started this process; None where none did."""
    if "SLURM_NTASKS" not in os.environ:
        return None
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    return SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None
