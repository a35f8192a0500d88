"""The seam between a residual stream and its layers: read, write, and the mappings behind them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mhc_lab import ops
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.errors import LabError
from mhc_lab.ops import check
from mhc_lab.residual import registry
from mhc_lab.residual.constraints.base import Constraint

Replacement = Tensor | Literal["fixed", "mean"]


@dataclass(frozen=True)
class Packed:
    """Coefficients [..., k] as one operation made them, and where H_post and H_res begin in them, if they are there."""

    values: Tensor
    post_at: int | None
    res_at: int | None


@dataclass(frozen=True)
class Mappings:
    """H_pre [..., n], H_post [..., n], H_res [..., n, n]; None is the fixed one (1/n, ones, I).

    A static mapping has no leading dimensions. `packed` is where they are views of, for a fused operation.
    """

    h_pre: Tensor | None = None
    h_post: Tensor | None = None
    h_res: Tensor | None = None
    packed: Packed | None = None


@dataclass(frozen=True)
class ConnectionCost:
    """Learned parameters of one connection, and its forward FLOPs a token (a multiply-add counts 2)."""

    parameters: int
    flops: int


class Connection(nn.Module, ABC):
    """One layer's residual connection: x' = H_res x + H_post^T F(H_pre x) (mHC Eq. 3).

    A subclass says how its mappings come about (`compute`), how its parameters start (`init_parameter`)
    and what it costs (`cost`); one that leaves any of them out is refused when it is registered.
    """

    def __init__(self, dim: int, layer_index: int, config: ResidualConfig, streams: int) -> None:
        super().__init__()
        self.dim = dim
        self.layer_index = layer_index
        self.config = config
        self.streams = streams
        self.home = layer_index % streams
        self.any_streams = False  # whether any n is taken
        self._overrides: dict[str, Replacement] = {}

    @abstractmethod
    def compute(self, streams: Tensor) -> Mappings:
        """[..., n, C] -> this layer's mappings."""

    @abstractmethod
    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator | None) -> None:
        """Fill one parameter, named by its leaf name, with its initial value."""

    @classmethod
    @abstractmethod
    def cost(cls, dim: int, config: ResidualConfig, constraint: Constraint | None) -> ConnectionCost:
        """What one connection costs, by formula."""

    def reset_parameters(self) -> None:
        """Initial values from torch's default generator (a GPT draws them by name instead)."""
        for name, parameter in self.named_parameters(recurse=False):
            self.init_parameter(name, parameter, None)

    def read(self, streams: Tensor) -> tuple[Tensor, Mappings]:
        """[..., n, C] -> hidden [..., C], and the mappings that `write` needs."""
        self.check_streams(streams)
        mappings = self._overridden(self.compute(streams))
        return ops.read(streams, mappings.h_pre), mappings

    def write(self, streams: Tensor, output: Tensor, weights: Mappings) -> Tensor:
        """[..., n, C] streams from before the layer, [..., C] its output -> [..., n, C]."""
        self.check_streams(streams)
        return ops.write(streams, output, weights.h_post, weights.h_res)

    def write_read(
        self, following: Connection, streams: Tensor, output: Tensor, weights: Mappings
    ) -> tuple[Tensor, Tensor, Mappings]:
        """This layer's write, then the next layer's read: streams, hidden, weights. The seam of a fused kernel."""
        streams = self.write(streams, output, weights)
        return (streams, *following.read(streams))

    def forward(self, streams: Tensor, layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Read, run the layer, write: [..., n, C] -> [..., n, C].

        Of a layer that returns a tuple (attention with its weights or cache) the first is its output; the rest is
        handed on behind the streams. Raises TypeError and ValueError, in words, for what is no [..., C].
        """
        hidden, weights = self.read(streams)
        output = layer(hidden, *args, **kwargs)
        if not isinstance(output, tuple):
            return self.write(streams, self._output(output, hidden, layer), weights)
        if not output:
            raise TypeError(f"{_name(layer)} returned an empty tuple, wanted its output first")
        return (self.write(streams, self._output(output[0], hidden, layer), weights), *output[1:])

    def check_streams(self, streams: Any) -> None:
        """TypeError or ValueError, in words, for what are no streams of this connection."""
        check.floating("streams", streams)
        given = list(streams.shape)
        n = self.streams if not self.any_streams or len(given) < 2 else given[-2]
        if given[-2:] != [n, self.dim] or n < 1:
            wanted = f"[..., {'n' if self.any_streams else n}, {self.dim}]"
            raise ValueError(
                f"streams: shape {given}, wanted {wanted}: residual.expand(hidden, streams={n}) makes them"
            )

    def extra_repr(self) -> str:
        config, n = self.config, "any" if self.any_streams else self.streams
        modes = ", ".join(f"{name}={registry.mode(config, name)}" for name in registry.TOGGLES)
        return f"{config.variant}, dim={self.dim}, streams={n}, layer_index={self.layer_index}, {modes}"

    def _output(self, output: Any, hidden: Tensor, layer: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise TypeError(
                f"{_name(layer)} returned {type(output).__name__}, wanted a tensor, or a tuple with it first"
            )
        if output.shape != hidden.shape:
            raise ValueError(
                f"{_name(layer)} returned shape {list(output.shape)}, wanted that of its input, {list(hidden.shape)}"
            )
        return output

    def mappings(self, streams: Tensor) -> Mappings:
        """All three mappings as tensors with the token dimensions of `streams`: what probes and tests look at."""
        self.check_streams(streams)
        *tokens, n, _ = streams.shape
        found = self._overridden(self.compute(streams))
        eye = torch.eye(n, device=streams.device)
        ones = torch.ones(n, device=streams.device)
        return Mappings(
            (ones / n if found.h_pre is None else found.h_pre).expand(*tokens, n),
            (ones if found.h_post is None else found.h_post).expand(*tokens, n),
            (eye if found.h_res is None else found.h_res).expand(*tokens, n, n),
        )

    @contextmanager
    def override(
        self,
        h_pre: Replacement | None = None,
        h_post: Replacement | None = None,
        h_res: Replacement | None = None,
    ) -> Iterator[None]:
        """Replace mappings while the context lasts: an ablation without retraining.

        "fixed" is Table 1's "off" (1/n, ones, I), "mean" the mean over the tokens at hand, a tensor itself.
        """
        before = self._overrides
        chosen = {"h_pre": h_pre, "h_post": h_post, "h_res": h_res}
        for name, value in chosen.items():
            if isinstance(value, str) and value not in ("fixed", "mean"):
                raise LabError(f"override of {name} by '{value}': give 'fixed', 'mean' or a tensor")
            if isinstance(value, Tensor):
                self._check_override(name, value)
        self._overrides = {**before, **{name: value for name, value in chosen.items() if value is not None}}
        try:
            yield
        finally:
            self._overrides = before

    def _check_override(self, name: str, value: Tensor) -> None:
        """The last dimensions; those before are the tokens', which `read` and `write` look at."""
        wanted = [self.streams] * (2 if name == "h_res" else 1)
        check.floating(name, value)
        if not self.any_streams and list(value.shape[-len(wanted) :]) != wanted:
            raise ValueError(
                f"override of {name}: shape {list(value.shape)}, wanted [..., {', '.join(map(str, wanted))}]"
            )

    def _overridden(self, mappings: Mappings) -> Mappings:
        if not self._overrides:
            return mappings
        values: dict[str, Tensor | None] = {"h_pre": mappings.h_pre, "h_post": mappings.h_post, "h_res": mappings.h_res}
        for name, replacement in self._overrides.items():
            value = values[name]
            if isinstance(replacement, Tensor):
                values[name] = replacement
            elif replacement == "fixed":
                values[name] = None
            elif value is not None:
                own = 2 if name == "h_res" else 1  # dimensions that are not tokens
                values[name] = value.flatten(0, -1 - own).mean(0) if value.dim() > own else value
        return Mappings(values["h_pre"], values["h_post"], values["h_res"])


def _name(layer: Any) -> str:
    return getattr(layer, "__name__", type(layer).__name__)
