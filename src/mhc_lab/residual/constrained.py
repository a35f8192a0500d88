"""mHC's connection, with any constraint on H_res (mHC Eq. 7, 8)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mhc_lab import ops
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.errors import LabError
from mhc_lab.ops.coefficients import NORM_EPS
from mhc_lab.ops.sinkhorn import V4_EPS
from mhc_lab.residual import registry
from mhc_lab.residual.connection import Connection, ConnectionCost, Mappings, Packed
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
        self.read_eps = config.hc_eps if config.convention == "v4" else 0.0
        for name, width in self.widths.items():
            self.register_parameter(f"b_{name}", nn.Parameter(torch.empty(width)))
            if name in self.dynamic:
                self.register_parameter(f"phi_{name}", nn.Parameter(torch.empty(config.streams * dim, width)))
                self.register_parameter(f"alpha_{name}", nn.Parameter(torch.empty(1)))
        self.reset_parameters()

    def compute(self, streams: Tensor) -> Mappings:
        if not self.dynamic:
            return self._mappings(None)
        phi, alpha, bias = self._projection()
        pre, norm_eps, hc_eps = self._width("pre"), self.config.norm_eps, self.config.hc_eps
        behind = self._behind()
        found = ops.coefficients(streams, phi, alpha, bias, pre=pre, norm_eps=norm_eps, hc_eps=hc_eps, **behind)
        return self._mappings(found)

    def read(self, streams: Tensor) -> tuple[Tensor, Mappings]:
        if not self.fusable:
            return super().read(streams)
        self.check_streams(streams)
        phi, alpha, bias = self._projection()
        hidden, found = ops.coefficients_read(streams, phi, alpha, bias, **self._behind())
        return hidden, self._mappings(found)

    def write_read(
        self, following: Connection, streams: Tensor, output: Tensor, weights: Mappings
    ) -> tuple[Tensor, Tensor, Mappings]:
        """Fused where the next layer's H_pre comes from the streams and nothing is overridden there."""
        if not isinstance(following, ConstrainedConnection) or not following.fusable:
            return super().write_read(following, streams, output, weights)
        self.check_streams(streams)
        *tokens, n, _ = streams.shape
        packed, h_res = weights.packed, weights.h_res
        res_at = None if packed is None else packed.res_at
        if packed is not None and packed.post_at is not None:
            values, post_at = packed.values, packed.post_at
        else:
            h_post = streams.new_ones(n) if weights.h_post is None else weights.h_post
            values, post_at, res_at = h_post.expand(*tokens, n), 0, None
        phi, alpha, bias = following._projection()
        streams, hidden, found = ops.write_read(
            streams,
            output,
            values,
            None if h_res is None or res_at is not None else h_res.expand(*tokens, n, n),
            phi,
            alpha,
            bias,
            post_at=post_at,
            res_at=res_at,
            **following._behind(),
        )
        return streams, hidden, following._mappings(found)

    @property
    def fusable(self) -> bool:
        """Whether H_pre comes from the streams, so that one operation can make it and read with it."""
        return "pre" in self.dynamic and not self._overrides and self._shipped_eps

    @property
    def _shipped_eps(self) -> bool:
        """Whether the eps are those that the fused operations are made for."""
        config = self.config
        return config.norm_eps == NORM_EPS and (config.convention != "v4" or config.hc_eps == V4_EPS)

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
                birth = self.constraint.birth()
                if birth.shape != parameter.shape:
                    raise LabError(
                        f"constraint {type(self.constraint).__name__}: birth() gave shape {list(birth.shape)}, wanted "
                        f"[{len(parameter)}], one for each of its `logits`"
                    )
                parameter.copy_(birth)

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

    def _projection(self) -> tuple[Tensor, Tensor, Tensor]:
        """phi [n C, m], alpha [m] and b [m] of the dynamic mappings, side by side."""
        names = self.dynamic
        return (
            torch.cat([getattr(self, f"phi_{name}") for name in names], dim=1),
            torch.cat([getattr(self, f"alpha_{name}").expand(self.widths[name]) for name in names]),
            torch.cat([self._bias(name) for name in names]),
        )

    def _bias(self, name: str) -> Tensor:
        """A mapping's bias [width], that of H_res as its constraint wants it."""
        bias: Tensor = getattr(self, f"b_{name}")  # a parameter, or what stands for one under functional_call
        return self.constraint.rebased(bias) if name == "res" and self.constraint is not None else bias

    def _width(self, name: str) -> int:
        """Columns of a mapping in the projection."""
        return self.widths[name] if name in self.dynamic else 0

    def _behind(self) -> dict[str, Any]:
        """What `ops.coefficients` does behind the projection, but for H_pre."""
        fused = self.constraint.fused_t_max if self.constraint is not None and "res" in self.dynamic else 0
        post, convention = self._width("post"), self.config.convention
        return {"post": post, "read_eps": self.read_eps, "t_max": fused, "convention": convention}

    def _mappings(self, values: Tensor | None) -> Mappings:
        """From the coefficients [..., m] of the dynamic mappings and the biases of the static ones."""
        post_at = self._width("pre")
        res_at = post_at + self._width("post")
        h_pre, h_post = self._mapping("pre", values, 0), self._mapping("post", values, post_at)
        h_res = self._mapping("res", values, res_at)
        if values is None:
            return Mappings(h_pre, h_post, h_res)
        made = self._behind()["t_max"] > 0
        packed = Packed(values, post_at if "post" in self.dynamic else None, res_at if made else None)
        return Mappings(h_pre, h_post, h_res, packed)

    def _mapping(self, name: str, values: Tensor | None, at: int) -> Tensor | None:
        """One mapping: its columns of the coefficients from `at` on, static, or None where it is fixed."""
        if name not in self.widths:
            return None
        if values is None or name not in self.dynamic:
            return self._static(name)
        part = values[..., at : at + self.widths[name]]
        if name != "res" or self.constraint is None:
            return part
        return self.constraint.as_matrix(part) if self._behind()["t_max"] else self._constrained(part)

    def _static(self, name: str) -> Tensor:
        """A mapping that is the same for all tokens, from its bias alone."""
        bias = self._bias(name)
        if name == "pre":
            return torch.sigmoid(bias) + self.read_eps
        if name == "post":
            return 2 * torch.sigmoid(bias)
        return self._constrained(bias)

    def _constrained(self, logits: Tensor) -> Tensor:
        """H_res of logits [..., k]. LabError where a constraint, a plugin's perhaps, gives something else."""
        assert self.constraint is not None
        found = self.constraint(logits)
        wanted = [*logits.shape[:-1], self.streams, self.streams]
        if not isinstance(found, Tensor) or list(found.shape) != wanted:
            given = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise LabError(f"constraint {type(self.constraint).__name__}: gave {given} for H_res, wanted {wanted}")
        return found


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
