"""H_res within the spectral ball ||H_res||_2 <= radius: any matrix, divided by max(1, ||.||_2 / radius).

The question behind it: is a bound on the norm enough, where mHC asks for double stochasticity?
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mhc_lab.config import setting, within
from mhc_lab.residual import Constraint, register_constraint


@dataclass
class Ball:
    """What is typed as residual.radius=1.5."""

    radius: float = setting(1.0, within(0.1, 100), "largest spectral norm of H_res")


class SpectralBall(Constraint):
    """n^2 logits, which are H_res itself where that lies within the ball; starts at I, scaled into it."""

    @property
    def radius(self) -> float:
        return self.config.settings(Ball).radius

    @property
    def flops(self) -> int:
        return 20 * self.streams**3  # singular values

    def birth(self) -> Tensor:
        return torch.eye(self.streams).flatten()

    def __call__(self, logits: Tensor) -> Tensor:
        matrix = self.as_matrix(logits if logits.dtype == torch.float64 else logits.float())
        norm = torch.linalg.matrix_norm(matrix, ord=2).clamp(min=1e-20)
        return matrix / (norm / self.radius).clamp(min=1)[..., None, None]


register_constraint("spectral_ball", SpectralBall, summary="spectral norm at most residual.radius", settings=Ball)
