"""config.trainer -> Lightning's accelerator, strategy, devices, precision; and the threads of a process."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from mhc_lab.config.schema import TrainerConfig
from mhc_lab.errors import LabError
from mhc_lab.machine import processor, threads_each

# A rank that waits for one that never comes ends then; torch's own default is half an hour.
RANK_TIMEOUT = datetime.timedelta(minutes=5)
PRECISION = {"fp32": "32-true", "bf16-mixed": "bf16-mixed"}


def accelerator(config: TrainerConfig) -> str:
    """ "cpu" or "gpu"; LabError where the GPUs or nodes that were asked for are not there."""
    if config.num_nodes > 1 and not (TorchElasticEnvironment.detect() or SLURMEnvironment.detect()):
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


def trainer_arguments(config: TrainerConfig) -> dict[str, Any]:
    """Arguments of `lightning.Trainer` that say on what it trains; one device needs no strategy, whatever is named."""
    chosen = accelerator(config)
    arguments: dict[str, Any] = {
        "accelerator": chosen,
        "devices": config.devices,
        "num_nodes": config.num_nodes,
        "precision": PRECISION[config.precision],
        "strategy": "auto",
        "use_distributed_sampler": False,
    }
    backend = "gloo" if chosen == "cpu" else "nccl"
    if ranks(config) == 1:
        # A worker inside a SLURM job trains alone, whatever the job's ranks are.
        arguments["plugins"] = [LightningEnvironment()]
        return arguments
    if config.strategy == "ddp":
        arguments["strategy"] = DDPStrategy(
            process_group_backend=backend,
            find_unused_parameters=False,
            gradient_as_bucket_view=True,
            timeout=RANK_TIMEOUT,
        )
    elif config.strategy == "fsdp2":
        arguments["strategy"] = ModelParallelStrategy(
            data_parallel_size=ranks(config),
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
            timeout=RANK_TIMEOUT,
        )
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        arguments["plugins"] = [SLURMEnvironment(auto_requeue=False)]
    return arguments


def threads(config: TrainerConfig) -> int:
    """CPU threads of one process: trainer.threads, else MHC_LAB_THREADS, else this rank's part of the cores."""
    return config.threads or threads_each(config.devices)


def device_name(config: TrainerConfig) -> str:
    """The device in words, for records."""
    if accelerator(config) == "gpu":
        return str(torch.cuda.get_device_name())
    return processor()


def global_rank(config: TrainerConfig) -> int:
    """This process's rank in its run, known before Lightning starts."""
    if ranks(config) == 1:
        return 0
    for environment in (TorchElasticEnvironment, SLURMEnvironment):
        if environment.detect():
            return int(environment().global_rank())
    return int(os.environ.get("NODE_RANK", 0)) * config.devices + int(os.environ.get("LOCAL_RANK", 0))
