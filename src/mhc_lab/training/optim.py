"""AdamW's parameter groups, and the learning-rate schedule as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mhc_lab.config.schema import OptimConfig

# mHC Table 5: factors of the base rate from 0.8 and 0.9 of training on.
STEP_DROPS = ((0.8, 0.316), (0.9, 0.1))


def learning_rate_factor(step: int, config: OptimConfig, max_steps: int) -> float:
    """What the base learning rate is multiplied by at `step` (0 is the first of `max_steps`).

    Linear warm-up to 1 at step `warmup_steps`, times `step`: the paper's drops (mHC Table 5); `cosine`: a half wave
    from the end of the warm-up to `min_ratio` at the last step; `constant`: 1.
    """
    warmup = config.warmup_steps
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if config.schedule == "step":
        return warm * next((factor for start, factor in reversed(STEP_DROPS) if step >= start * max_steps), 1.0)
    if config.schedule == "cosine":
        progress = min(1.0, max(0.0, (step - warmup) / max(1, max_steps - 1 - warmup)))
        return warm * (config.min_ratio + (1 - config.min_ratio) * (1 + math.cos(math.pi * progress)) / 2)
    return warm


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether weight decay pulls at a parameter: matrices only; not biases (b_res is one), alphas and norms."""
    return parameter.ndim >= 2 and not name.rpartition(".")[2].startswith("b_")


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Two AdamW groups, decayed and not, of all parameters that learn."""
    learning = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    decayed = [parameter for name, parameter in learning if decays(name, parameter)]
    others = [parameter for name, parameter in learning if not decays(name, parameter)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the model's parameters, at the base learning rate."""
    return torch.optim.AdamW(
        parameter_groups(model.named_parameters(), config.weight_decay),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
