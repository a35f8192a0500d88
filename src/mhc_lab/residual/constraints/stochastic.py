"""One-sided stochastic matrices: a softmax along one axis."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mhc_lab.residual.constraints.base import Constraint


class _OneSided(Constraint):
    """A softmax along `dim` of H_res."""

    dim: ClassVar[int]

    @property
    def flops(self) -> int:
        return 3 * self.streams**2

    def birth(self) -> Tensor:
        return self.softmax_birth()

    def __call__(self, logits: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return torch.softmax(self.as_matrix(logits), self.dim, dtype=dtype)


class RowStochastic(_OneSided):
    """Rows sum to 1: the forward gain is exactly 1, the backward gain at most n."""

    promises = frozenset({"rows", "non_negative"})
    dim = -1


class ColumnStochastic(_OneSided):
    """Columns sum to 1: the backward gain is exactly 1, the forward gain at most n."""

    promises = frozenset({"columns", "non_negative"})
    dim = -2
