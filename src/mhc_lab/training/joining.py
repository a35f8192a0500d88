"""The ranks of one `train` that torchrun or srun starts: the first makes the folder, the others join it."""

from __future__ import annotations

import os
import time
from typing import Any

from mhc_lab.config.compose import to_dict
from mhc_lab.config.schema import RunConfig
from mhc_lab.errors import LabError
from mhc_lab.run_folder import RunFolder
from mhc_lab.training.placement import ranks, under_torchrun

JOIN_SECONDS = 60.0  # nodes of one job are seconds apart, and a shared file system may lag
_POLL_SECONDS = 0.2


def check_started(config: RunConfig) -> None:
    """LabError where torchrun has started another number of processes than the run has ranks."""
    if not under_torchrun():
        return
    started, wanted = int(os.environ["WORLD_SIZE"]), ranks(config.trainer)
    if started != wanted:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", started))
        raise LabError(
            f"torchrun started {started} processes, but trainer.devices × trainer.num_nodes is {wanted}: take "
            f"trainer=ddp trainer.devices={here} trainer.num_nodes={max(1, started // here)}"
        )


def join(folder: RunFolder, config: RunConfig, seconds: float = JOIN_SECONDS) -> None:
    """Wait until the first rank has written the folder for this very config; LabError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not _written(folder, config):
        if time.monotonic() > deadline:
            raise LabError(
                f"{folder.path}: the first rank did not begin this run within {seconds:.0f} s: start all nodes "
                f"together, with the same command and a results folder that they share"
            )
        time.sleep(_POLL_SECONDS)


def _written(folder: RunFolder, config: RunConfig) -> bool:
    return folder.config_file.is_file() and _comparable(folder.config()) == _comparable(config)


def _comparable(config: RunConfig) -> dict[str, Any]:
    content = to_dict(config)
    content["residual"].pop("plugin", None)  # in the folder it is the copy that lies there
    return content
