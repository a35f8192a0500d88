"""The plain residual: one stream, x' = x + F(x) (mHC Eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab.config.schema import ResidualConfig
from mhc_lab.residual.connection import Connection, ConnectionCost, Mappings
from mhc_lab.residual.constraints.base import Constraint


class PlainConnection(Connection):
    """Reads the stream as it is and adds the layer's output."""

    def __init__(self, dim: int, layer_index: int, config: ResidualConfig, constraint: Constraint | None) -> None:
        assert constraint is None
        super().__init__(dim, layer_index, config, streams=1)

    def compute(self, streams: Tensor) -> Mappings:
        return Mappings()

    def read(self, streams: Tensor) -> tuple[Tensor, Mappings]:
        """[..., 1, C] -> [..., C]: a view."""
        return streams.squeeze(-2), Mappings()

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator | None) -> None:
        raise AssertionError(f"a plain residual has no parameters, not even {name}")

    @classmethod
    def cost(cls, dim: int, config: ResidualConfig, constraint: Constraint | None) -> ConnectionCost:
        return ConnectionCost(parameters=0, flops=dim)
