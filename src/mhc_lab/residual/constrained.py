"""mHC's connection, with any constraint on H_res (mHC Eq. 7, 8)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mhc_lab import ops
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.ops.sinkhorn import V4_EPS
from mhc_lab.residual import registry
from mhc_lab.residual.connection import Connection, ConnectionCost, Mappings
from mhc_lab.residual.constraints.base import Constraint


class ConstrainedConnection(Connection):
    """H_pre = sigmoid, H_post = 2 sigmoid, H_res = constraint, of alpha (RMSNorm(vec(x)) phi) + b.

    Each mapping is dynamic (phi [n C, width], alpha [1], b [width]), static (b alone) or fixed (nothing).
    The RMSNorm has one statistic a token over all n C and no weight. Coefficients are fp32.
    """

    def __init__(self, dim: int, layer_index: int, config: ResidualConfig, constraint: Constraint | None) -> None:
        super().__init__(dim, layer_index, config, config.streams)
        self.constraint = constraint
        self.widths = _widths(config, constraint)
        self.dynamic = [name for name in self.widths if registry.mode(config, f"h_{name}") == "dynamic"]
        self.read_eps = V4_EPS if config.convention == "v4" else 0.0
        for name, width in self.widths.items():
            self.register_parameter(f"b_{name}", nn.Parameter(torch.empty(width)))
            if name in self.dynamic:
                self.register_parameter(f"phi_{name}", nn.Parameter(torch.empty(config.streams * dim, width)))
                self.register_parameter(f"alpha_{name}", nn.Parameter(torch.empty(1)))
        self.reset_parameters()

    def compute(self, streams: Tensor) -> Mappings:
        raw = self._raw(streams)
        pre, post, res = raw.get("pre"), raw.get("post"), raw.get("res")
        h_pre = None if pre is None else torch.sigmoid(pre)
        if h_pre is not None and self.read_eps:
            h_pre = h_pre + self.read_eps
        return Mappings(
            h_pre,
            None if post is None else 2 * torch.sigmoid(post),
            None if res is None or self.constraint is None else self.constraint(res),
        )

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator | None) -> None:
        with torch.no_grad():
            if name.startswith("phi_"):
                parameter.normal_(0.0, self.config.phi_std, generator=generator)
            elif name.startswith("alpha_"):
                parameter.fill_(self.config.alpha_init)
            elif name == "b_pre":
                parameter.fill_(self.config.b_pre_away)
                parameter[self.home] = self.config.b_pre_home
            elif name == "b_post":
                home, away = post_birth(self.config)
                for stream in range(self.streams):
                    parameter[stream] = _inverse_write(home if stream == self.home else away)
            else:
                assert name == "b_res" and self.constraint is not None, name
                parameter.copy_(self.constraint.birth())

    @classmethod
    def cost(cls, dim: int, config: ResidualConfig, constraint: Constraint | None) -> ConnectionCost:
        n = config.streams
        parameters, flops = 0, 2 * n * dim + 2 * n * dim  # read, and H_post^T F
        for name, width in _widths(config, constraint).items():
            parameters += width
            if registry.mode(config, f"h_{name}") == "dynamic":
                parameters += n * dim * width + 1
                flops += 2 * n * dim * width
            if name == "res" and constraint is not None:
                per_token = registry.mode(config, "h_res") == "dynamic"  # a static H_res is made once a step
                flops += 2 * n * n * dim + (constraint.flops if per_token else 0)
        return ConnectionCost(parameters, flops)

    def _raw(self, streams: Tensor) -> dict[str, Tensor]:
        """The logits of each mapping that is not fixed: [..., width], or [width] if static."""
        raw: dict[str, Tensor] = {name: self.get_parameter(f"b_{name}") for name in self.widths}
        if self.dynamic:
            phi = torch.cat([self.get_parameter(f"phi_{name}") for name in self.dynamic], dim=1)
            projected = ops.coefficients(streams, phi)  # [..., sum of widths]
            parts = projected.split([self.widths[name] for name in self.dynamic], dim=-1)
            for name, part in zip(self.dynamic, parts, strict=True):
                raw[name] = torch.addcmul(raw[name], part, self.get_parameter(f"alpha_{name}"))
        return raw


def post_birth(config: ResidualConfig) -> tuple[float, float]:
    """H_post at home and elsewhere at birth; by default 2 - 1/n and 1 - 1/n, whose mean is 1."""
    home = 2 - 1 / config.streams if config.h_post_home is None else config.h_post_home
    away = 1 - 1 / config.streams if config.h_post_away is None else config.h_post_away
    return home, away


def _widths(config: ResidualConfig, constraint: Constraint | None) -> dict[str, int]:
    """Logits of each mapping that is not fixed."""
    all_widths = {"pre": config.streams, "post": config.streams, "res": constraint.logits if constraint else 0}
    return {name: w for name, w in all_widths.items() if w and registry.mode(config, f"h_{name}") != "fixed"}


def _inverse_write(value: float) -> float:
    """The logit whose 2 sigmoid is `value`."""
    assert 0 < value < 2, value
    return math.log(value / (2 - value))
