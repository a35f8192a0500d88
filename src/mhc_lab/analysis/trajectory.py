"""H_res after 1, 2, 3, ... iterations, at the price of the last one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mhc_lab.analysis.precision import convention_of, inner, leave
from mhc_lab.ops.sinkhorn import V4_EPS
from mhc_lab.ops.sinkhorn.algorithms import OMEGA, SMALLEST
from mhc_lab.ops.sinkhorn.cpu import FP32_SPREAD
from mhc_lab.ops.sinkhorn.newton import _step as newton_step


@torch.no_grad()  # the decorator, as a `with` would hold between the yields too
def trajectory(logits: Tensor, algorithm: str, t_max: int, convention: str, precision: str) -> Iterator[Tensor]:
    """[..., n, n] logits -> H_res [..., n, n] after t = 1 ... t_max iterations, what `projected` gives for each t.

    Algorithms that do not depend on t_max go on from where they were; any strides, and faster where n, n come first
    in memory. Without gradients. A state that no longer changes is given again.
    """
    start = inner(logits.detach(), algorithm, precision)
    if algorithm in ("plain", "warm"):
        iterate = _plain if precision == "bfloat16" else _as_the_kernels
        found = iterate(start, t_max, convention_of(algorithm, convention))
    else:
        found = {"log": _log, "overrelaxed": _overrelaxed, "newton": newton_states}[algorithm](start, t_max)
    for matrix in found:
        yield leave(matrix, precision)


def _as_the_kernels(logits: Tensor, t_max: int, convention: str) -> Iterator[Tensor]:
    """fp32, and fp64 for the matrices whose logits are too far apart for it."""
    far = logits.amax((-2, -1)) - logits.amin((-2, -1)) > FP32_SPREAD
    if not far.any():
        yield from _plain(logits, t_max, convention)
        return
    exact = _plain(logits[far].double(), t_max, convention)
    for matrix, wide in zip(
        _plain(logits.masked_fill(far[..., None, None], 0.0), t_max, convention), exact, strict=True
    ):
        whole = matrix.clone()
        whole[far] = wide.float()
        yield whole


def _plain(logits: Tensor, t_max: int, convention: str) -> Iterator[Tensor]:
    eps = V4_EPS if convention == "v4" else 0.0
    if convention == "v4":
        matrix = torch.softmax(logits, dim=-2) + eps
    else:
        matrix = torch.exp(logits - logits.amax(dim=-2, keepdim=True))
    for step in range(t_max):
        if step or convention == "eq9":  # v4's softmax is the first division of columns
            matrix = matrix / (matrix.sum(-2, keepdim=True) + eps)
        matrix = matrix / (matrix.sum(-1, keepdim=True) + eps)
        yield matrix


def _log(logits: Tensor, t_max: int) -> Iterator[Tensor]:
    for _ in range(t_max):
        logits = logits - logits.logsumexp(-2, keepdim=True)
        yield torch.softmax(logits, dim=-1)
        logits = logits - logits.logsumexp(-1, keepdim=True)


def _overrelaxed(logits: Tensor, t_max: int) -> Iterator[Tensor]:
    for step in range(t_max):
        omega = OMEGA if step else 1.0
        logits = _relaxed(logits, -2, omega)
        yield torch.softmax(logits, dim=-1)  # the last division is plain
        logits = _relaxed(logits, -1, omega)


def _relaxed(logits: Tensor, axis: int, omega: float) -> Tensor:
    log_sum = logits.logsumexp(axis, keepdim=True)
    return logits - (log_sum + (omega - 1) * log_sum.clamp(min=math.log(SMALLEST)))


def newton_states(logits: Tensor, t_max: int) -> Iterator[Tensor]:
    """[..., n, n] logits -> what `ops.sinkhorn.newton` gives for t = 1 ... t_max, in the logits' dtype."""
    scaled = logits - logits.logsumexp(-2, keepdim=True)
    matrix, still = torch.empty(0), False
    for _ in range(t_max):
        if not still:
            before, scaled = scaled, newton_step(scaled)
            still = torch.equal(before, scaled)
            matrix = torch.softmax(scaled, dim=-1)
        yield matrix
