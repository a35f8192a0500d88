"""What an iteration costs: forward and backward, a token, on the CPU."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

from mhc_lab import ops
from mhc_lab.analysis.precision import enter, leave, projected
from mhc_lab.ops import backends

TOKENS = 2048
REPEATS = 3


def implementation(algorithm: str, precision: str) -> str:
    """Which code is timed: training's own kernel where it runs this, else plain torch."""
    if algorithm in ("plain", "warm") and precision != "bfloat16":
        return f"ops.sinkhorn ({backends.chosen(torch.device('cpu'))})"
    return "torch"


def nanoseconds(logits: Tensor, algorithm: str, t_max: int, convention: str, precision: str) -> float:
    """Median over REPEATS runs, after one that is not counted, of one projection and its backward, ns a token."""
    sample = logits.flatten(0, -3)[:TOKENS].contiguous()
    kernel = implementation(algorithm, precision) != "torch"
    cotangent = torch.ones_like(sample)
    seconds = []
    for _ in range(REPEATS + 1):
        leaf = sample.clone().requires_grad_()
        start = time.perf_counter()
        if kernel:
            out = leave(ops.sinkhorn(enter(leaf, precision), t_max, convention), precision)
        else:
            out = projected(leaf, algorithm, t_max, convention, precision)
        torch.autograd.grad(out, leaf, cotangent.to(out.dtype))
        seconds.append(time.perf_counter() - start)
    return 1e9 * statistics.median(seconds[1:]) / len(sample)
