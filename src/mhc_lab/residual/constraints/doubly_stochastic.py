"""mHC's constraint: the Birkhoff polytope (mHC Eq. 6, 8, 9), by the algorithm that `residual.sinkhorn` names."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab import ops
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.ops.sinkhorn.algorithms import project, warm_shift
from mhc_lab.residual.constraints.base import Constraint
from mhc_lab.residual.constraints.kronecker import Kronecker
from mhc_lab.residual.constraints.permutations import Permutations


class DoublyStochastic(Constraint):
    """Sinkhorn-Knopp: rows sum to 1 after every iteration; column sums only as far as t_max has converged.

    Under convention v4 a row that summed to s before its last division ends at s / (s + hc_eps).
    """

    promises = frozenset({"rows", "columns_converge", "non_negative"})

    @classmethod
    def under(cls, config: ResidualConfig) -> type[Constraint]:
        chosen: dict[str, type[Constraint]] = {
            "plain": cls,
            "warm": Warm,
            "log": Log,
            "overrelaxed": Overrelaxed,
            "newton": Newton,
            "permutations": Permutations,
            "kronecker": Kronecker,
        }
        return chosen[config.sinkhorn]

    @property
    def flops(self) -> int:
        return 4 * self.config.t_max * self.streams**2

    @property
    def fused_t_max(self) -> int:
        return self.config.t_max

    def birth(self) -> Tensor:
        return self.softmax_birth()

    def __call__(self, logits: Tensor) -> Tensor:
        config = self.config
        return ops.sinkhorn(self.as_matrix(logits), config.t_max, config.convention, hc_eps=config.hc_eps)


class Warm(DoublyStochastic):
    """Sinkhorn-Knopp that starts where it has converged for b_res: the same limit, the same kernels, nearer to it.

    The gradient of b_res through the shift is left out; it vanishes as t_max converges.
    """

    def rebased(self, bias: Tensor) -> Tensor:
        return bias + warm_shift(self.as_matrix(bias)).flatten()


class _Unfused(DoublyStochastic):
    """Plain torch behind the coefficients, of which autograd keeps several matrices an iteration."""

    algorithm: str
    least: torch.dtype = torch.float32  # precision

    @property
    def fused_t_max(self) -> int:
        return 0

    def __call__(self, logits: Tensor) -> Tensor:
        out = torch.promote_types(logits.dtype, torch.float32)
        logits = logits.to(torch.promote_types(out, self.least))
        with torch.autocast(logits.device.type, enabled=False):
            return project(self.as_matrix(logits), self.algorithm, self.config.t_max).to(out)


class Log(_Unfused):
    """Sinkhorn-Knopp on logarithms: finite for any spread of logits in fp32."""

    algorithm = "log"

    @property
    def flops(self) -> int:
        # A division: maximum, difference, exp, sum, difference.
        return 10 * self.config.t_max * self.streams**2


class Overrelaxed(Log):
    """Sinkhorn-Knopp that divides by more than the sum (`ops.sinkhorn.algorithms.overrelaxed`)."""

    algorithm = "overrelaxed"


class Newton(_Unfused):
    """t_max Newton steps on the dual; the backward is the gradient of the limit (`ops.sinkhorn.newton`).

    In fp64: where logits lie far apart, which steps are taken, and with them an unfinished result, hangs on rounding.
    """

    algorithm = "newton"
    least = torch.float64

    @property
    def flops(self) -> int:
        # P^T P, an LU of n - 1, and four softmaxes (P, its columns, two candidates).
        return self.config.t_max * (2 * self.streams**3 + 2 * (self.streams - 1) ** 3 // 3 + 20 * self.streams**2)
