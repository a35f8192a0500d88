"""Rotations by the Cayley transform (as in JPmHC, arXiv 2602.18308)."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab.residual.constraints.base import Constraint


class Orthogonal(Constraint):
    """Q = (I + A)^-1 (I - A) with A skew: every rotation without the eigenvalue -1; A = 0 gives I.

    I + A is never singular (its symmetric part is I), so the map is defined for all logits.
    """

    promises = frozenset({"contraction"})

    @property
    def logits(self) -> int:
        return self.streams * (self.streams - 1) // 2

    @property
    def flops(self) -> int:
        return 8 * self.streams**3 // 3

    def birth(self) -> Tensor:
        return torch.zeros(self.logits)

    def __call__(self, logits: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        with torch.autocast(logits.device.type, enabled=False):
            return self._cayley(logits)

    def _cayley(self, logits: Tensor) -> Tensor:
        n = self.streams
        skew = self.as_matrix(logits @ self._basis(logits))
        identity = torch.eye(n, dtype=logits.dtype, device=logits.device)
        rotation: Tensor = torch.linalg.solve(identity + skew, identity - skew)
        return rotation

    def _basis(self, like: Tensor) -> Tensor:
        """[n(n-1)/2, n^2]: a logit stands above the diagonal as it is and below it negated."""
        n, index = self.streams, torch.arange(self.logits, device=like.device)
        row, column = torch.triu_indices(n, n, offset=1, device=like.device)
        basis = like.new_zeros(self.logits, n, n)
        basis[index, row, column] = 1.0
        basis[index, column, row] = -1.0
        return basis.flatten(1)
