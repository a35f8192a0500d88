"""Which laws are tried on a variant: those of connections, and of its constraint where it has one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mhc_lab.config.compose import residual_config
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.errors import LabError
from mhc_lab.residual import registry
from mhc_lab.testing import connections, constraints
from mhc_lab.testing.connections import ConnectionCase
from mhc_lab.testing.constraints import ConstraintCase
from mhc_lab.testing.law import Broken, Finding, Law

STREAMS = (1, 2, 3, 4, 8)


@dataclass(frozen=True)
class Case:
    """One law and what it is tried on."""

    law: Law[Any]
    subject: ConnectionCase | ConstraintCase

    def __str__(self) -> str:
        return f"{self.law.name}, {self.subject}"

    def find(self) -> Finding:
        return self.law.of(self.subject)

    def hold(self) -> None:
        """For a test: raises Broken with the rule and what was found, DoesNotApply where the law says nothing."""
        try:
            self.law.check(self.subject)
        except Broken as found:
            raise Broken(f"{self.subject}: {found}; the rule: {self.law.rule}") from found


def laws(variant: str, settings: Mapping[str, Any] | None = None) -> list[Case]:
    """The laws of a registered variant, for every n of STREAMS that it accepts, under settings of `residual`.

    Raises LabError for a variant that is not registered, settings that it has not, and one that accepts no n.
    """
    given = dict(settings or {})
    residual_config(variant, given)
    found = [case for n in _streams(variant, given) for case in _cases(variant, n, given)]
    if not found:
        raise LabError(f"'{variant}': not defined for any n of {', '.join(map(str, STREAMS))}")
    return found


def examine(variant: str, settings: Mapping[str, Any] | None = None) -> list[Finding]:
    """What becomes of each law."""
    return [case.find() for case in laws(variant, settings)]


def broken(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.status == "broken"]


def _cases(variant: str, n: int, settings: dict[str, Any]) -> Iterator[Case]:
    if _constrained(residual_config(variant, {**settings, **_n(variant, n)})):
        yield from (Case(law, ConstraintCase(variant, n, settings)) for law in constraints.LAWS)
    yield from (Case(law, ConnectionCase(variant, n, settings)) for law in connections.LAWS)


def _streams(variant: str, settings: dict[str, Any]) -> Iterator[int]:
    """Those n that its settings and its constraint take."""
    for n in STREAMS:
        if registry.variant(variant).plain and n > 1:
            continue
        try:
            config = residual_config(variant, {**settings, **_n(variant, n)})
        except LabError:
            continue
        if all(_class(name).under(config).accepts(n) for name in _constrained(config)):
            yield n


def _n(variant: str, n: int) -> dict[str, int]:
    return {} if registry.variant(variant).plain else {"streams": n}


def _constrained(config: ResidualConfig) -> list[str]:
    names = registry.variant(config.variant).layer_constraints(config)
    return names if registry.mode(config, "h_res") != "fixed" else []


def _class(name: str) -> Any:
    return registry.resolve_whole(registry.constraint(name))
