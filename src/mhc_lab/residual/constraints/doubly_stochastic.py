"""mHC's constraint: the Birkhoff polytope, by Sinkhorn-Knopp (mHC Eq. 6, 8, 9)."""

from __future__ import annotations

from torch import Tensor

from mhc_lab import ops
from mhc_lab.residual.constraints.base import Constraint


class DoublyStochastic(Constraint):
    """Rows sum to 1 after every iteration; column sums only as far as t_max has converged.

    Under convention v4 a row that summed to s before its last division ends at s / (s + 1e-6).
    """

    promises = frozenset({"rows", "columns_converge", "non_negative"})

    @property
    def flops(self) -> int:
        return 4 * self.config.t_max * self.streams**2

    @property
    def fused_t_max(self) -> int:
        return self.config.t_max

    def birth(self) -> Tensor:
        return self.softmax_birth()

    def __call__(self, logits: Tensor) -> Tensor:
        return ops.sinkhorn(self.as_matrix(logits), self.config.t_max, self.config.convention)
