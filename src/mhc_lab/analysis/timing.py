"""What an iteration costs: forward and backward, a matrix, on the CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mhc_lab.ops import backends

MATRICES = 2048
REPEATS = 3
QUICK_SECONDS = 0.05  # what is quick is repeated for so long


def implementation(algorithm: str, precision: str) -> str:
    """Which code is timed: training's own kernel where it runs this, else plain torch."""
    if algorithm in ("plain", "warm") and precision != "bfloat16":
        return f"ops.sinkhorn ({backends.chosen(torch.device('cpu'))})"
    return "torch"


def nanoseconds(logits: Tensor, run: Callable[[Tensor], Tensor]) -> float:
    """Time of `run` and its backward, ns a matrix: median over REPEATS and more, after one that is not counted.

    `logits` [M, ...], one matrix each; taken again where they are fewer than MATRICES, as fewer would show the cost of
    the calls.
    """
    sample = logits[torch.arange(MATRICES) % len(logits)].contiguous()
    seconds: list[float] = []
    while len(seconds) <= REPEATS or sum(seconds) < QUICK_SECONDS:
        leaf = sample.clone().requires_grad_()
        start = time.perf_counter()
        out = run(leaf)
        torch.autograd.grad(out, leaf, torch.ones_like(out))
        seconds.append(time.perf_counter() - start)
    return 1e9 * statistics.median(seconds[1:]) / MATRICES
