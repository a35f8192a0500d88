"""KromHC's constraint: a Kronecker product of 2 x 2 doubly stochastic matrices (arXiv 2601.21579)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mhc_lab.ops.sinkhorn.algorithms import kronecker
from mhc_lab.residual.constraints.base import Constraint


class Kronecker(Constraint):
    """H_res = the product of [[p, 1 - p], [1 - p, p]], p = sigmoid(logit): exact, for log2 n logits.

    The smallest set of all: symmetric, and all such matrices commute.
    """

    promises = frozenset({"rows", "columns", "non_negative", "contraction"})

    @classmethod
    def accepts(cls, streams: int) -> bool:
        return streams >= 1 and streams & (streams - 1) == 0

    @property
    def logits(self) -> int:
        return self.streams.bit_length() - 1

    @property
    def flops(self) -> int:
        return 8 * self.logits + 4 * (self.streams**2 - 1) // 3

    def birth(self) -> Tensor:
        if self.logits == 0:
            return torch.zeros(0)
        stay = self.config.res_diagonal ** (1 / self.logits)
        return torch.full((self.logits,), math.log(stay / (1 - stay)))

    def __call__(self, logits: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return kronecker(logits)
