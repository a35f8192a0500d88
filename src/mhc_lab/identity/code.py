"""The code that a run executes: every definition that the core and what the run names reach."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from mhc_lab.config.schema import RunConfig
from mhc_lab.identity.definitions import PACKAGE
from mhc_lab.identity.reach import counted, reached
from mhc_lab.machine import BACKENDS
from mhc_lab.residual import registry

CORE = (f"{PACKAGE}.training.run:_Attempt",)  # what trains and measures
_LOADERS = {name: f"{PACKAGE}.data.corpus:_{name}" for name in ("stdlib", "text", "installed", "synthetic")}
# Of an entry: words, claims, and what the run's settings say.
_NO_NUMBERS = {"name", "summary", "fields", "defaults", "settings", "plain_at_birth"}

Code = Mapping[str, str]  # "models.stack.ResidualStack" -> 8 hex digits of what it says


@dataclass(frozen=True)
class Executed:
    """What decides which code a run executes.

    `backend` is as records have it: "cpu", "gpu", "reference", or "cpu (write_read: reference)" where an operation gave
    way. A plugin's code is in the run id, by its content.
    """

    variant: str
    constraints: tuple[str, ...]
    source: str
    backend: str

    @classmethod
    def by(cls, config: RunConfig, backend: str = "") -> Executed:
        """By a run of `config`; `backend`: what its record says, by default what its accelerator has."""
        constraints = registry.variant(config.residual.variant).layer_constraints(config.residual)
        backend = backend or ("gpu" if config.trainer.accelerator == "gpu" else "cpu")
        return cls(config.residual.variant, tuple(dict.fromkeys(constraints)), config.data.source, backend)

    @classmethod
    def said(cls, content: Mapping[str, Any]) -> Executed:
        """From a file."""
        return cls(**{**content, "constraints": tuple(content["constraints"])})


@cache
def code_of(run: Executed) -> Code:
    """The definitions behind a run. LabError for a variant that is not registered here."""
    name, _, gave_way = run.backend.partition(" (")
    name = name if name in BACKENDS else "reference"  # a file's word, which is no path
    fallen = gave_way.partition(":")[0].split(", ") if gave_way else []
    entries, constraints = [registry.variant(run.variant)], list(run.constraints)
    if entries[0].matches:  # its size is the other one's
        entries.append(registry.variant(entries[0].matches))
        constraints += filter(None, [entries[1].constraint])
    targets = [*(entry.target for entry in entries), *(registry.constraint(name).target for name in constraints)]
    found = reached(
        [*CORE, *map(_spelled, targets)],
        lambda operation: {name, "reference"} if operation in fallen else {name},
        without=[loader for source, loader in _LOADERS.items() if source != run.source],
    )
    said = {f"variant.{entry.name}": _digest(entry) for entry in entries}
    return {definition.key: definition.digest for definition in found} | said


@cache
def code_fingerprint(run: Executed) -> str:
    """The fingerprint of the code behind a run, as it is now."""
    return fingerprint(code_of(run))


def fingerprint(code: Code) -> str:
    """12 hex digits: of what the definitions are named and say, not of where they lie."""
    said = sorted({f"{key.rpartition('.')[2]}:{digest}" for key, digest in code.items()})
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]


def together(codes: Iterable[Code]) -> Code:
    """The definitions behind several runs."""
    return {key: digest for code in codes for key, digest in code.items()}


def everything() -> Code:
    """All definitions that some run may execute."""
    entries = {f"variant.{name}": _digest(registry.variant(name)) for name in registry.variants()}
    return {definition.key: definition.digest for definition in counted()} | entries


def stamp(run: Executed) -> dict[str, Any]:
    """The content of a run folder's code.json: what was executed, and its definitions."""
    return {"executed": dataclasses.asdict(run), "definitions": dict(code_of(run))}


def _spelled(target: str | type) -> str:
    return f"{target.__module__}:{target.__name__}" if isinstance(target, type) else target


def _digest(entry: registry.Variant) -> str:
    """What a variant's entry says that its settings do not; a field that is new says nothing at its default."""
    said = [
        f"{f.name}={_spelled(value) if isinstance(value, type) else value!r}"
        for f in dataclasses.fields(entry)
        if f.name not in _NO_NUMBERS and (value := getattr(entry, f.name)) != f.default
    ]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:8]
