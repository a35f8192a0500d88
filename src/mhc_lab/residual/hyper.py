"""Hyper-Connections as the mHC paper restates them (mHC Eq. 5; HC, arXiv 2409.19606)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mhc_lab import ops
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.residual import registry
from mhc_lab.residual.connection import Connection, ConnectionCost, Mappings
from mhc_lab.residual.constrained import post_birth
from mhc_lab.residual.constraints.base import Constraint


class HyperConnection(Connection):
    """H = alpha tanh(theta RMSNorm(x)^T) + b for each mapping, unconstrained.

    The RMSNorm is over C, each stream by itself, with a weight [C]. theta_pre, theta_post [1, C],
    theta_res [n, C]; so H_res[i, j] = alpha tanh(theta_res[i] . x~[j]) + b[i, j].
    """

    def __init__(self, dim: int, layer_index: int, config: ResidualConfig, constraint: Constraint | None) -> None:
        assert constraint is None
        super().__init__(dim, layer_index, config, config.streams)
        self.rows = _rows(config)
        self.dynamic = [name for name in self.rows if registry.mode(config, f"h_{name}") == "dynamic"]
        n = config.streams
        if self.dynamic:
            self.norm_weight = nn.Parameter(torch.empty(dim))
        for name, rows in self.rows.items():
            self.register_parameter(f"b_{name}", nn.Parameter(torch.empty(n, n) if name == "res" else torch.empty(n)))
            if name in self.dynamic:
                self.register_parameter(f"theta_{name}", nn.Parameter(torch.empty(rows, dim)))
                self.register_parameter(f"alpha_{name}", nn.Parameter(torch.empty(1)))
        self.reset_parameters()

    def compute(self, streams: Tensor) -> Mappings:
        values: dict[str, Tensor] = {name: getattr(self, f"b_{name}") for name in self.rows}
        if self.dynamic:
            theta = torch.cat([getattr(self, f"theta_{name}") for name in self.dynamic])
            # A group of one stream: the statistic is then each stream's own. [..., n, C] -> [..., n, rows]
            eps = self.config.norm_eps
            projected = torch.tanh(ops.coefficients(streams.unsqueeze(-2), (theta * self.norm_weight).T, norm_eps=eps))
            parts = projected.split([self.rows[name] for name in self.dynamic], dim=-1)
            for name, part in zip(self.dynamic, parts, strict=True):
                # Column j of H_res comes from stream j: [..., n (j), n (i)] -> [..., n (i), n (j)]
                shaped = part.transpose(-1, -2) if name == "res" else part.squeeze(-1)
                values[name] = torch.addcmul(values[name], shaped, getattr(self, f"alpha_{name}"))
        return Mappings(values.get("pre"), values.get("post"), values.get("res"))

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator | None) -> None:
        with torch.no_grad():
            if name.startswith("theta_"):
                parameter.normal_(0.0, self.config.phi_std, generator=generator)
            elif name.startswith("alpha_"):
                parameter.fill_(self.config.alpha_init)
            elif name == "norm_weight":
                parameter.fill_(1.0)
            elif name == "b_res":
                parameter.copy_(torch.eye(self.streams))
            else:
                pre = (self.config.b_pre_home, self.config.b_pre_away)
                home, away = pre if name == "b_pre" else post_birth(self.config)
                parameter.fill_(away)
                parameter[self.home] = home

    @classmethod
    def cost(cls, dim: int, config: ResidualConfig, constraint: Constraint | None) -> ConnectionCost:
        n = config.streams
        parameters, flops, any_dynamic = 0, 2 * n * dim + 2 * n * dim, False  # read, and H_post^T F
        for name, rows in _rows(config).items():
            parameters += n * rows
            if registry.mode(config, f"h_{name}") == "dynamic":
                any_dynamic = True
                parameters += rows * dim + 1
                flops += 2 * n * rows * dim
            if name == "res":
                flops += 2 * n * n * dim
        return ConnectionCost(parameters + (dim if any_dynamic else 0), flops)


def _rows(config: ResidualConfig) -> dict[str, int]:
    """Rows of theta for each mapping that is not fixed."""
    rows = {"pre": 1, "post": 1, "res": config.streams}
    return {name: r for name, r in rows.items() if registry.mode(config, f"h_{name}") != "fixed"}
