"""Degenerate cells: equal streams that stay equal, so that the row is the baseline whatever it learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mhc_lab.config.schema import ResidualConfig
from mhc_lab.models.gpt import GPT
from mhc_lab.residual import registry
from mhc_lab.training.callbacks.probes import largest_spread, trace

PERTURBATION = 0.5  # standard deviation
THRESHOLD = 1e-4  # of the relative spread, largest over layers


def perturbed_spread(model: GPT, residual: ResidualConfig, window: Tensor, seed: int) -> float | None:
    """Spread of the streams on `window` [1, T] with all connection parameters drawn from N(init, 0.5^2).

    None for a single stream. The model is left as it was, and so is torch's generator. A look at the model's birth
    alone would flag healthy cells, whose streams separate as they learn.
    """
    if registry.stream_count(residual) == 1:
        return None
    connections = list(model.stack.connections.parameters())
    generator = torch.Generator().manual_seed(seed)
    before = [parameter.detach().clone() for parameter in connections]
    with torch.no_grad():
        for parameter in connections:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=PERTURBATION)
    spread = largest_spread(trace(model, window))
    with torch.no_grad():
        for parameter, value in zip(connections, before, strict=True):
            parameter.copy_(value)
    return spread


def verdict(spread_perturbed: float | None, spread_early: float | None) -> dict[str, Any]:
    """The record's `degenerate`: every look that was taken (after 10 steps there may be none) saw equal streams."""
    looks = [spread for spread in (spread_perturbed, spread_early) if spread is not None]
    several = spread_perturbed is not None
    return {
        "spread_perturbed": spread_perturbed,
        "spread_step10": spread_early if several else None,
        "degenerate": several and all(spread < THRESHOLD for spread in looks),
    }
