"""Other ways onto the doubly stochastic matrices than Sinkhorn-Knopp as mHC iterates it, in plain torch.

All follow the dtype of their input, every intermediate too, so that a precision can be measured by giving it;
autograd works through them. Those of `exact.py` and `newton.py` are to be imported from here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mhc_lab.ops.sinkhorn.exact import kronecker, mix_of_permutations
from mhc_lab.ops.sinkhorn.newton import newton, warm_shift
from mhc_lab.ops.sinkhorn.reference import sinkhorn_reference

__all__ = ["ALGORITHMS", "OMEGA", "kronecker", "mix_of_permutations", "project", "warm_shift"]

ALGORITHMS: tuple[str, ...] = ("plain", "log", "overrelaxed", "newton")

# Of 1.0, 1.1 ... 1.7, measured at n = 4 in fp64 on N(0, 1), N(0, 2^2) and N(0, 3^2) logits: the least 99.9 % column
# error at std 1 for t_max = 5 and 20 (4e-3, 7e-11), near the least for t_max = 5 at std 2 and 3 (7e-2, 1e-1). At
# t_max = 20 these tails want more (std 3: 2e-2, and 5e-3 at 1.7), at the price of the median (3e-10, and 3e-4).
OMEGA = 1.3
# A sum from here on may be divided by sum^OMEGA without moving away from the limit: x - x^(1 - omega) - omega log x, by
# which the dual objective grows, is negative below 0.0005 only (Thibault et al. 2017 take it as Lyapunov function).
SMALLEST = 0.001


def project(logits: Tensor, algorithm: str = "plain", t_max: int = 20, convention: str = "eq9") -> Tensor:
    """Project logits onto the doubly stochastic matrices.

    plain: `sinkhorn_reference`, the divisions of mHC Eq. 9 or of v4. log: the same on logarithms, for any spread of
    logits. overrelaxed: `overrelaxed`. newton: `newton`, whose gradient is that of the limit.

    Args:
        logits: [..., n, n], any float dtype.
        algorithm: one of ALGORITHMS.
        t_max: iterations, at least 1; columns first, then rows.
        convention: "eq9" or, for plain alone, "v4".

    Returns:
        [..., n, n] in the dtype of `logits`. Rows sum to 1 to rounding; columns to the error of t_max.
    """
    assert t_max >= 1
    assert algorithm in ALGORITHMS, algorithm
    assert convention == "eq9" or (convention == "v4" and algorithm == "plain"), (convention, algorithm)
    if algorithm == "plain":
        return sinkhorn_reference(logits, t_max, convention)
    if algorithm == "newton":
        return newton(logits, t_max)
    return overrelaxed(logits, t_max, OMEGA if algorithm == "overrelaxed" else 1.0)


def overrelaxed(logits: Tensor, t_max: int, omega: float = OMEGA) -> Tensor:
    """Sinkhorn-Knopp that divides by sum^omega (Thibault et al. 2017; Lehmann et al. 2020), on logarithms.

    The first iteration and the last division are plain: the first sums say nothing of how far the limit is, and rows
    are to be exact. The dual objective grows with every division whatever the logits, so that it cannot diverge.

    [..., n, n] -> [..., n, n]; at omega = 1 it is `log`.
    """
    for step in range(t_max):
        logits = logits - _relaxed(logits.logsumexp(-2, keepdim=True), omega if step else 1.0)
        if step < t_max - 1:
            logits = logits - _relaxed(logits.logsumexp(-1, keepdim=True), omega if step else 1.0)
    return torch.softmax(logits, dim=-1)  # not exp: it would give the rounding of the logarithms to the row sums


def _relaxed(log_sum: Tensor, omega: float) -> Tensor:
    """omega log s; below SMALLEST what is beyond log s stays as it is there, so that the map is continuous."""
    if omega == 1:
        return log_sum
    return log_sum + (omega - 1) * log_sum.clamp(min=math.log(SMALLEST))
