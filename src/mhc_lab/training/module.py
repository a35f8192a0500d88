"""The LightningModule: a GPT with its loss, its validation and its optimizer."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torchmetrics import SumMetric

from mhc_lab.config.schema import RunConfig
from mhc_lab.data.synthetic import NOT_SCORED
from mhc_lab.models.gpt import GPT
from mhc_lab.training.optim import build_optimizer, learning_rate_factor

Batch = tuple[Tensor, Tensor]


def init_key(config: RunConfig) -> str:
    """What initial values are drawn from, beside each parameter's name: the seed, and the arm."""
    return f"{config.seed}/control" if config.control else f"{config.seed}"


def build_model(config: RunConfig, vocab_size: int) -> GPT:
    """The model at its birth, on the CPU."""
    model = GPT(config.model, config.residual, vocab_size)
    model.init_weights(init_key(config))
    return model


def next_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross entropy in nats over the scored targets, from fp32 logits."""
    inputs, targets = batch
    logits: Tensor = model(inputs)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=NOT_SCORED)


def clip_gradients(model: nn.Module, clip_norm: float) -> Tensor:
    """Scale the gradients down to a total norm of `clip_norm` (0: leave them). Returns the norm before that."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm or math.inf)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


class ResidualLM(LightningModule):
    """A language model with its residual variant, as one run trains it.

    After each step `last_loss` (this rank's, 0-d) and `last_grad_norm` (before clipping, 0-d) are there to read;
    after a validation `val_loss`: nats a token over all ranks, fp32.
    """

    def __init__(self, config: RunConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.model = build_model(config, vocab_size)
        # fp64 sums: the mean must not depend on how windows are spread over batches and ranks. Two sums, as
        # torchmetrics' MeanMetric drops either NaNs or, where told to keep them (1.9.0), the weights.
        self.val_nll = SumMetric(nan_strategy="disable").set_dtype(torch.float64)
        self.val_tokens = SumMetric(nan_strategy="disable").set_dtype(torch.float64)
        self.val_loss = math.nan
        self.last_loss = torch.tensor(math.nan)
        self.last_grad_norm = torch.tensor(math.nan)

    def configure_model(self) -> None:
        """Under FSDP2: shard the layers block by block; connections, embedding and head stay in the root group.

        A connection reads streams between the layers, so it must be whole whenever the model runs.
        """
        if self.device_mesh is None or isinstance(self.model, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        layers = list(self.model.stack.layers)
        for start in range(0, len(layers), 2):  # a block is two layers
            fully_shard(layers[start : start + 2], mesh=mesh)
        fully_shard(self.model, mesh=mesh, reshard_after_forward=False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = next_token_loss(self.model, batch)
        self.last_loss = loss.detach()
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scored = (batch[1] != NOT_SCORED).sum()
        # fp32 whatever the training precision, so that rows compare.
        with torch.autocast(self.device.type, enabled=False):
            self.val_nll.update(next_token_loss(self.model, batch).double() * scored)
        self.val_tokens.update(scored)

    def on_validation_epoch_end(self) -> None:
        self.val_loss = float(self.val_nll.compute() / self.val_tokens.compute())
        self.val_nll.reset()
        self.val_tokens.reset()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        self.last_grad_norm = clip_gradients(self.model, self.config.optim.clip_norm)

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = build_optimizer(self.model, config.optim)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, config.optim, config.trainer.max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
