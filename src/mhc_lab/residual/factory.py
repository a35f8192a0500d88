"""From a config to modules: one connection, or expand, connections and collapse of a whole stack."""

from __future__ import annotations

from typing import Any

from mhc_lab.config.compose import residual_config
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.errors import LabError
from mhc_lab.residual import registry
from mhc_lab.residual.connection import Connection
from mhc_lab.residual.constraints.base import Constraint
from mhc_lab.residual.ends import Collapse, Expand

_ENDS = "it belongs to residual.build_all, or to what you expand and collapse with"
_OF_A_STACK = {
    "expand": _ENDS,
    "expand_base": _ENDS,
    "collapse": _ENDS,
    "collapse_eps": _ENDS,
    "recompute": "it belongs to a ResidualStack; torch.utils.checkpoint does it for a layer",
}


def build(variant: str, dim: int, layer_index: int = 0, **settings: Any) -> Connection:
    """One connection by the name of its variant.

    Args:
        variant: a registered name, see `residual.variants()`.
        dim: C, the width of a stream.
        layer_index: which sublayer it serves; its home stream is layer_index mod n.
        settings: fields of ResidualConfig that the variant has (streams, t_max, h_pre, ...). A plain residual takes
            `streams` too, and any n: a loop over variants need not treat it apart.

    Raises:
        LabError: unknown variant or setting, a value outside its domain, or a setting that a single connection does not
            read (those of a whole stack: how streams are expanded, collapsed and recomputed).
    """
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise LabError(f"dim={dim!r}: must be a whole number, at least 1")
    if not isinstance(layer_index, int) or isinstance(layer_index, bool) or layer_index < 0:
        raise LabError(f"layer_index={layer_index!r}: must be a whole number, at least 0")
    for name, where in _OF_A_STACK.items():
        if name in settings:
            raise LabError(f"{name}: has no effect in a single connection; {where}")
    if registry.variant(variant).plain and "streams" not in registry.variant(variant).fields:
        settings = {name: value for name, value in settings.items() if name != "streams"}
    return connection(residual_config(variant, settings), dim, layer_index)


def build_all(config: ResidualConfig, dim: int, layers: int) -> tuple[Expand, list[Connection], Collapse]:
    """expand, one connection a layer, collapse; constraints may differ from layer to layer."""
    n = registry.stream_count(config)
    connections = [connection(config, dim, index) for index in range(layers)]
    return Expand(config, n), connections, Collapse(config, n, dim)


def connection(config: ResidualConfig, dim: int, layer_index: int) -> Connection:
    """The connection of one layer."""
    entry = registry.variant(config.variant)
    built = registry.resolve_whole(entry)(dim, layer_index, config, layer_constraint(config, layer_index))
    assert isinstance(built, Connection)
    return built


def layer_constraint(config: ResidualConfig, layer_index: int) -> Constraint | None:
    """The constraint of one layer, or None where H_res is not constrained or not learned."""
    names = registry.variant(config.variant).layer_constraints(config)
    if not names or registry.mode(config, "h_res") == "fixed":
        return None
    name = names[layer_index % len(names)]
    found: type[Constraint] = registry.resolve_whole(registry.constraint(name))
    cls = found.under(config)
    if not cls.accepts(config.streams):
        raise LabError(f"residual.streams={config.streams}: constraint '{name}' is not defined for this n")
    return cls(config.streams, config)
