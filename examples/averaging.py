"""A plugin: H_res between I and the mean of the streams, with a bound on the mix as a setting of its own.

mhc-lab check examples/averaging.py
mhc-lab train residual=averaging residual.plugin=examples/averaging.py residual.largest_mix=0.5
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mhc_lab.config import setting, within
from mhc_lab.residual import Constraint, register_constraint


@dataclass
class Mix:
    """Typed as residual.largest_mix=0.5."""

    largest_mix: float = setting(1.0, within(0.01, 1), "what the mean of the streams may take up of H_res")


class Averaging(Constraint):
    """(1 - m) I + m J, J = 1/n everywhere, m = largest_mix sigmoid(logit): one logit a layer and token."""

    promises = frozenset({"rows", "columns", "non_negative", "contraction"})

    @property
    def logits(self) -> int:
        return 1

    def birth(self) -> Tensor:
        return torch.full((1,), -3.0)

    def __call__(self, logits: Tensor) -> Tensor:
        mix, n = self.config.settings(Mix).largest_mix * torch.sigmoid(logits).unsqueeze(-1), self.streams
        return (1 - mix) * torch.eye(n, dtype=mix.dtype, device=mix.device) + mix / n


register_constraint("averaging", Averaging, summary="between I and the mean of the streams", settings=Mix)
