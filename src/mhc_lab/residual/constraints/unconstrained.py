"""No constraint: the logits are H_res."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab.residual.constraints.base import Constraint


class Unconstrained(Constraint):
    """Any real matrix, starting at I: what mHC's reads and writes do without its constraint."""

    def birth(self) -> Tensor:
        return torch.eye(self.streams).flatten()

    def __call__(self, logits: Tensor) -> Tensor:
        return self.as_matrix(logits.to(torch.promote_types(logits.dtype, torch.float32)))
