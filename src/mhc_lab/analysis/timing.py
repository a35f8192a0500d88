"""What an iteration costs: forward and backward, a matrix, on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from mhc_lab.ops import backends

MATRICES = 2048
REPEATS = 5
QUICK_SECONDS = 0.05  # what is quick is repeated for so long


def implementation(algorithm: str, precision: str) -> str:
    """Which code is timed: training's own kernel where it runs this, else plain torch."""
    if algorithm in ("plain", "warm") and precision != "bfloat16":
        return f"ops.sinkhorn ({backends.chosen(torch.device('cpu'))})"
    return "torch"


def nanoseconds(logits: Tensor, run: Callable[[Tensor], Tensor]) -> float:
    """Time of `run` and its backward, ns a matrix: the least of REPEATS and more, after one that is not counted.

    What else the machine does can only add to a time, and bursts of it last longer than a few repeats: a median jumped
    by 20 times between neighbouring t.

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
    return 1e9 * min(seconds[1:]) / MATRICES
