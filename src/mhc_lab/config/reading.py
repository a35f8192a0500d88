"""Which settings the chosen options read: what is typed for nothing is a mistake, and no part of a run's id.

The condition stands beside the field (`setting(..., read_by=...)`); what a connection reads is known to its variant.
"""

from __future__ import annotations

import dataclasses

from mhc_lab.config.schema import GROUPS, RunConfig, default_of
from mhc_lab.residual import registry


def unread(config: RunConfig, key: str) -> str:
    """Why `config` does not read the setting `key` ("a.b"), with what it would take; "" where it does."""
    group, dot, name = key.partition(".")
    if not dot or group not in GROUPS:
        return ""
    if group == "residual":
        return _unread_by_variant(config, name)
    owner = getattr(config, group)
    field = next(f for f in dataclasses.fields(owner) if f.name == name)
    condition = field.metadata.get("read_by")
    if condition is None:
        return ""
    reader, values = condition
    where, _, what = reader.partition(".")
    now = getattr(getattr(config, where), what)
    return "" if now in values else f"{key} needs {' or '.join(f'{_as_typed(reader)}={value}' for value in values)}"


def reset_unread(config: RunConfig, key: str) -> None:
    """Give a setting that nothing reads its default again, so that a run's own file does not mislead."""
    group, _, name = key.partition(".")
    if group == "residual" and name in config.residual.own:
        field = registry.variant(config.residual.variant).own_fields(config.residual)[name]
        config.residual.own[name] = default_of(field)
        return
    setattr(getattr(config, group), name, getattr(getattr(RunConfig(), group), name))


def _as_typed(reader: str) -> str:
    """`data.source` is chosen as `data=text`, `tracking.backend` as `tracking=mlflow`."""
    group, _, name = reader.partition(".")
    return group if name in ("source", "backend") else reader


def _unread_by_variant(config: RunConfig, name: str) -> str:
    residual = config.residual
    entry = registry.variant(residual.variant)
    if name in entry.used_fields(residual) | registry.EVERYWHERE or name not in entry.accepted_fields(residual):
        return ""  # what a variant lacks is said by compose, with the variants that have it
    for field, needed in (
        ("expand_base", "expand=scaled"),
        ("collapse_eps", "collapse=read"),
        ("hc_eps", "convention=v4"),
    ):
        if name == field:
            return f"residual.{field} needs residual.{needed}"
    for toggle, fields in registry.READ_BY_TOGGLE.items():
        if (
            name in {*fields, *(entry.own_fields(residual) if toggle == "h_res" else ())}
            and registry.mode(residual, toggle) == "fixed"
        ):
            return f"residual.{name} needs residual.{toggle}=dynamic or static"
    if name in ("t_max", "convention"):
        return f"residual.{name}: residual.sinkhorn={residual.sinkhorn} does not iterate; plain, for example, does"
    return f"residual.{name} needs one of {', '.join(f'residual.{t}=dynamic' for t in entry.toggles)}"
