"""One-sided stochastic matrices: a softmax along one axis."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab.residual.constraints.base import Constraint


class RowStochastic(Constraint):
    """Rows sum to 1: the forward gain is exactly 1, the backward gain at most n."""

    promises = frozenset({"rows", "non_negative"})

    @property
    def flops(self) -> int:
        return 3 * self.streams**2

    def birth(self) -> Tensor:
        return self.softmax_birth()

    def __call__(self, logits: Tensor) -> Tensor:
        return _softmax(self.as_matrix(logits), -1)


class ColumnStochastic(Constraint):
    """Columns sum to 1: the backward gain is exactly 1, the forward gain at most n."""

    promises = frozenset({"columns", "non_negative"})

    @property
    def flops(self) -> int:
        return 3 * self.streams**2

    def birth(self) -> Tensor:
        return self.softmax_birth()

    def __call__(self, logits: Tensor) -> Tensor:
        return _softmax(self.as_matrix(logits), -2)


def _softmax(matrix: Tensor, dim: int) -> Tensor:
    return torch.softmax(matrix, dim, dtype=torch.promote_types(matrix.dtype, torch.float32))
