"""The plain residual: one stream, x' = x + F(x) (mHC Eq. 1).

Given n equal streams, as `residual.expand(hidden, streams=n)` makes them, it is the same plain residual n times over:
so a loop over connections runs with it as with any other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab import ops
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.residual.connection import Connection, ConnectionCost, Mappings
from mhc_lab.residual.constraints.base import Constraint


class PlainConnection(Connection):
    """Reads the stream as it is (of several, their mean) and adds the layer's output to each."""

    def __init__(self, dim: int, layer_index: int, config: ResidualConfig, constraint: Constraint | None) -> None:
        assert constraint is None
        super().__init__(dim, layer_index, config, streams=1)
        self.any_streams = True

    def compute(self, streams: Tensor) -> Mappings:
        return Mappings()

    def read(self, streams: Tensor) -> tuple[Tensor, Mappings]:
        """[..., n, C] -> [..., C]: of one stream a view."""
        self.check_streams(streams)
        return streams.squeeze(-2) if streams.shape[-2] == 1 else ops.read(streams, None), Mappings()

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator | None) -> None:
        raise AssertionError(f"a plain residual has no parameters, not even {name}")

    @classmethod
    def cost(cls, dim: int, config: ResidualConfig, constraint: Constraint | None) -> ConnectionCost:
        return ConnectionCost(parameters=0, flops=dim)
