"""What every constraint says of itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mhc_lab.config.schema import ResidualConfig

Promise = Literal["rows", "columns", "columns_converge", "non_negative", "contraction"]


class Constraint(ABC):
    """Free logits -> H_res. Holds no parameters: those are the connection's.

    `promises`, for every finite logits: rows / columns sum to 1; columns_converge: column sums approach 1
    with t_max; non_negative: no entry below 0; contraction: spectral norm at most 1.
    """

    promises: ClassVar[frozenset[Promise]] = frozenset()
    starts_near_identity: ClassVar[bool] = True  # at birth; tests hold it to that

    def __init__(self, streams: int, config: ResidualConfig) -> None:
        self.streams = streams
        self.config = config

    @classmethod
    def under(cls, config: ResidualConfig) -> type[Constraint]:
        """The class that the settings choose: this one, where they leave no choice."""
        return cls

    @classmethod
    def accepts(cls, streams: int) -> bool:
        """Whether it is defined for this n."""
        return streams >= 1

    @property
    def logits(self) -> int:
        """How many logits it takes for n streams; with 0, H_res is I and nothing is learned."""
        return self.streams**2

    @property
    def flops(self) -> int:
        """Floating-point operations of the map for one token, forward."""
        return 0

    @property
    def fused_t_max(self) -> int:
        """Sinkhorn iterations that `ops.coefficients` makes in this constraint's place; 0: none, call it."""
        return 0

    def rebased(self, bias: Tensor) -> Tensor:
        """[logits] -> [logits]: the bias as the logits are to be made with it; H_res's limit is that of `bias`."""
        return bias

    @abstractmethod
    def birth(self) -> Tensor:
        """[logits]: the logits at initialisation."""

    @abstractmethod
    def __call__(self, logits: Tensor) -> Tensor:
        """[..., logits] -> [..., n, n], fp32 (fp64 for fp64 logits)."""

    def as_matrix(self, logits: Tensor) -> Tensor:
        """[..., n^2] -> [..., n, n], row-major; rows are outputs."""
        return logits.reshape(*logits.shape[:-1], self.streams, self.streams)

    def softmax_birth(self) -> Tensor:
        """[n^2]: diagonal 0 and the off-diagonal that gives `res_diagonal` under softmax and Sinkhorn alike."""
        n, diagonal = self.streams, self.config.res_diagonal
        if n == 1:
            return torch.zeros(1)
        off = -math.log((n - 1) * diagonal / (1 - diagonal))
        return torch.full((n, n), off).fill_diagonal_(0.0).flatten()
