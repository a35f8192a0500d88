"""config.trainer -> Lightning's accelerator, strategy, devices, precision."""

from __future__ import annotations

import datetime
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from mhc_lab.config.schema import TrainerConfig
from mhc_lab.training.placement import accelerator, ranks, under_slurm, under_torchrun

# A rank that waits for one that never comes ends then; torch's own default is half an hour.
RANK_TIMEOUT = datetime.timedelta(minutes=5)
PRECISION = {"fp32": "32-true", "bf16-mixed": "bf16-mixed"}


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
    if not under_torchrun() and (slurm := under_slurm()):
        arguments["plugins"] = [slurm]
    return arguments
