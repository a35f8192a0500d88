"""Probes: gains, doubly-stochastic error and spread of the streams, on one fixed validation window."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from mhc_lab.models.stack import LayerTrace
from mhc_lab.residual.gains import amax_gains, composites, doubly_stochastic_error
from mhc_lab.run_folder import RunFolder
from mhc_lab.training.callbacks.metrics import append_line
from mhc_lab.training.clock import StepClock
from mhc_lab.training.module import ResidualLM

EARLY_STEP = 10  # where the degeneracy check looks a second time


def trace(model: nn.Module, window: Tensor) -> list[LayerTrace]:
    """The mappings of every layer on `window` [1, T]: eager, without gradients, fp32."""
    layers: list[LayerTrace] = []
    with torch.no_grad(), torch.autocast(window.device.type, enabled=False):
        model(window, trace=layers)
    return layers


def largest_spread(layers: list[LayerTrace]) -> float:
    return max(layer.spread for layer in layers)


def curves(layers: list[LayerTrace]) -> dict[str, Any]:
    """What gains.jsonl holds of one probe: one value a layer, or a start layer; matrices as token means (Fig. 8)."""
    matrices = [layer.h_res for layer in layers]
    products = composites(matrices)
    forward, backward = zip(*map(amax_gains, matrices), strict=True)
    composite_forward, composite_backward = zip(*map(amax_gains, products), strict=True)
    return {
        "gain_forward": list(forward),
        "gain_backward": list(backward),
        "composite_gain_forward": list(composite_forward),
        "composite_gain_backward": list(composite_backward),
        "ds_error": [doubly_stochastic_error(matrix) for matrix in matrices],
        "spread": [layer.spread for layer in layers],
        "h_res": [_token_mean(matrix) for matrix in matrices],
        "h_res_composite": [_token_mean(product) for product in products],
    }


def summary(found: dict[str, Any]) -> dict[str, float]:
    """The maxima over layers that metrics.jsonl and the record hold."""
    names = ("gain_forward", "gain_backward", "composite_gain_forward", "composite_gain_backward", "ds_error")
    return {name: max(found[name]) for name in names} | {"stream_spread": max(found["spread"])}


def _token_mean(matrix: Tensor) -> list[list[float]]:
    """[..., n, n] -> n rows of n."""
    mean: list[list[float]] = matrix.flatten(0, -3).mean(0).tolist()
    return mean


class Probes(Callback):
    """Probes every `probe_every` steps, at step 10 and at the last step.

    All ranks take part (a sharded model gathers its weights), rank 0 writes.
    """

    def __init__(self, folder: RunFolder, window: Tensor, clock: StepClock) -> None:
        self.folder = folder
        self.window = window
        self.clock = clock
        self.seconds = 0.0
        self.last: dict[str, float] | None = None
        self.early_spread: float | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ResidualLM)
        settings, step = pl_module.config.trainer, trainer.global_step
        regular = settings.probe_every and step % settings.probe_every == 0
        if not (regular or step in (EARLY_STEP, settings.max_steps)):
            return
        with self.clock.pause():
            start = time.perf_counter()
            pl_module.eval()
            layers = trace(pl_module.model, self.window.to(pl_module.device))
            pl_module.train()
            found = curves(layers)
            self.last = summary(found)
            if step == EARLY_STEP:
                self.early_spread = self.last["stream_spread"]
            if trainer.is_global_zero:
                append_line(self.folder.gains_file, {"step": step, **found})
                append_line(self.folder.metrics_file, {"step": step, **self.last})
            self.seconds += time.perf_counter() - start
