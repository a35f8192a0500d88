"""Final weights, gathered from all ranks."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from mhc_lab.config.compose import to_dict
from mhc_lab.run_folder import RunFolder
from mhc_lab.training.module import ResidualLM

PREFIX = "model."


class Checkpoint(Callback):
    """Writes checkpoint.pt, loadable with weights_only: {"model", "config", "vocab_size", "run_id"}."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ResidualLM)
        state: dict[str, Any] = trainer.strategy.lightning_module_state_dict()  # a collective under FSDP2
        if not trainer.is_global_zero:
            return
        weights = {name.removeprefix(PREFIX): tensor.cpu() for name, tensor in state.items() if name.startswith(PREFIX)}
        content = {
            "model": weights,
            "config": to_dict(pl_module.config),
            "vocab_size": weights["embedding.weight"].shape[0],
            "run_id": self.folder.run_id,
        }
        scratch = self.folder.checkpoint_file.with_suffix(f".{os.getpid()}")
        try:
            with scratch.open("wb") as file:  # for a full disk torch has other words than Python
                torch.save(content, file)
            scratch.replace(self.folder.checkpoint_file)
        except (OSError, RuntimeError):  # no room on the disk: nothing half-written stays
            scratch.unlink(missing_ok=True)
            raise
