"""mHC-lite's constraint: a mix of all permutations (arXiv 2601.05732)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mhc_lab.ops.sinkhorn.algorithms import mix_of_permutations
from mhc_lab.ops.sinkhorn.exact import permutations
from mhc_lab.residual.constraints.base import Constraint
from mhc_lab.residual.registry import MAX_PERMUTED

_HALVINGS = 100


class Permutations(Constraint):
    """H_res = sum_k softmax(logits)_k P_k: every positive doubly stochastic matrix, exact, for n! logits."""

    promises = frozenset({"rows", "columns", "non_negative", "contraction"})

    @classmethod
    def accepts(cls, streams: int) -> bool:
        return 1 <= streams <= MAX_PERMUTED

    @property
    def logits(self) -> int:
        return math.factorial(self.streams)

    @property
    def flops(self) -> int:
        return 3 * self.logits + 2 * self.logits * self.streams**2

    def birth(self) -> Tensor:
        """c times the number of fixed points: by symmetry all streams stay alike, and so all moves."""
        fixed = torch.tensor([sum(i == j for i, j in enumerate(p)) for p in permutations(self.streams)]).double()
        low, high = -100.0, 100.0
        if self.streams == 1:
            return torch.zeros(1)
        for _ in range(_HALVINGS):
            c = (low + high) / 2
            diagonal = float(torch.softmax(c * fixed, 0) @ fixed) / self.streams
            low, high = (c, high) if diagonal < self.config.res_diagonal else (low, c)
        return (low * fixed).float()

    def __call__(self, logits: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        with torch.autocast(logits.device.type, enabled=False):
            return mix_of_permutations(logits, self.streams)
