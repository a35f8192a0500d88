"""What there is to choose from, for `mhc-lab list`: grids, sweeps, variants, constraints, options, settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from mhc_lab.config.compose import options, read_yaml
from mhc_lab.config.schema import GROUPS, Domain, RunConfig, default_of
from mhc_lab.config.values import hint_of
from mhc_lab.errors import LabError, nearest
from mhc_lab.residual import registry

Entry = dict[str, str]


def kinds(config_dir: Path | None = None) -> Mapping[str, Callable[[], list[Entry]]]:
    """What can be listed, each a function that gives its entries: "name", and what is to be said of it."""
    return {
        "grids": lambda: _titled(options("grid", config_dir)),
        "sweeps": lambda: _titled(_sweeps()),
        "variants": lambda: [{"name": name, "words": registry.variant(name).summary} for name in registry.variants()],
        "constraints": lambda: [
            {"name": name, "words": registry.constraint(name).summary} for name in registry.constraints()
        ],
        "options": lambda: [{"name": group, "words": ", ".join(options(group, config_dir))} for group in GROUPS],
        "settings": settings,
    }


def entries(kind: str, config_dir: Path | None = None) -> list[Entry]:
    """The entries of one kind; `settings.GROUP` or a group's name gives the settings of one group.

    Raises LabError for what is none.
    """
    known = kinds(config_dir)
    if kind in known:
        return known[kind]()
    if kind in GROUPS:
        return [entry for entry in settings() if entry["name"].startswith(f"{kind}.")]
    raise LabError(f"list {kind}: {nearest(kind, [*known, *GROUPS])}")


def settings() -> list[Entry]:
    """Every setting: its name as it is typed, its default, the values it takes, and what it means."""
    found = []
    for f in dataclasses.fields(RunConfig):
        if f.name in GROUPS:
            inner: Any = f.default_factory
            found += [_setting(f"{f.name}.{one.name}", one) for one in dataclasses.fields(inner) if one.name != "own"]
            if f.name == "residual":
                found += [_setting(f"residual.{name}", one) for name, one in _brought().items()]
        else:
            found.append(_setting(f.name, f))
    return found


def _brought() -> dict[str, Any]:
    """The settings that registered variants and constraints bring themselves."""
    kinds: list[Any] = list(registry.own_settings().values())
    return {f.name: f for kind in kinds for f in dataclasses.fields(kind)}


def _setting(key: str, field: Any) -> Entry:
    default = default_of(field)
    domain: Domain | None = field.metadata["domain"]
    choices = _choices(hint_of(key))
    return {
        "name": key,
        "default": "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default),
        "values": choices or (domain.words if domain else ""),
        "words": field.metadata["words"],
    }


def _choices(hint: Any) -> str:
    if hint is bool:
        return "true, false"
    return ", ".join(get_args(hint)) if get_origin(hint) is Literal else ""


def _titled(files: Mapping[str, Path]) -> list[Entry]:
    return [{"name": name, "words": str(read_yaml(file).get("title", ""))} for name, file in sorted(files.items())]


def _sweeps() -> Mapping[str, Path]:
    from mhc_lab.study.sweep_file import sweeps

    return sweeps()


def print_entries(title: str, found: list[Entry], write: Callable[[str], None]) -> None:
    """Names in a column, what is said of each beside or, where that is more than a line holds, below them."""
    write(f"{title}:")
    width = max((len(entry["name"]) for entry in found), default=0)
    for entry in found:
        facts = [f"[{entry['default']}]"] if "default" in entry else []
        facts += [entry["words"]] if entry["words"] else []
        facts += [f"({entry['values']})"] if entry.get("values") else []
        write("\n".join(_wrapped(f"  {entry['name']:{width}}  ", " ".join(facts))))


def _wrapped(head: str, text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 79, initial_indent=head, subsequent_indent=" " * len(head)) or [head.rstrip()]
