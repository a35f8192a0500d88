"""`mhc-lab check`: the laws on what a plugin registers, in plain lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mhc_lab.config.compose import check_key
from mhc_lab.config.values import parse
from mhc_lab.errors import LabError
from mhc_lab.residual import registry
from mhc_lab.testing.examine import laws
from mhc_lab.testing.law import Finding

SHOWN = 3  # cases of a law that are told one by one


def check(what: str, overrides: Sequence[str], say: Callable[[str], None]) -> bool:
    """Try the laws on every variant that the file `what` registers, or on the registered variant of that name.

    `overrides` are settings of `residual` to try them under. Returns whether all hold. Raises LabError for what is
    neither, for a file that registers nothing, and for a setting that is none.
    """
    names = _registered_by(what)
    settings = dict(map(_setting, overrides))
    whole = True
    for name in names:
        findings = []
        say(f"{name}: {registry.variant(name).summary}" if registry.variant(name).summary else name)
        for case in laws(name, settings):
            findings.append(case.find())
        for law in dict.fromkeys(finding.law for finding in findings):
            for line in _told([finding for finding in findings if finding.law == law]):
                say(line)
        counts = [sum(finding.status == status for finding in findings) for status in ("holds", "broken")]
        say(f"{name}: {sum(counts)} cases, {counts[0]} hold, {counts[1]} broken")
        whole &= not counts[1]
    return whole


def _registered_by(what: str) -> list[str]:
    if not what.endswith(".py"):
        return [registry.variant(what).name]
    before = set(registry.variants())
    registry.load_plugin(Path(what))
    found = [name for name in registry.variants() if name not in before]
    if not found:
        raise LabError(f"{what}: registers no variant: call register_constraint or register_variant in it")
    return found


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.startswith("residual."):
        raise LabError(f"'{text}': what is checked is a variant: give its settings as residual.NAME=VALUE")
    check_key(key)
    return key.removeprefix("residual."), parse(key, value)


def _told(findings: list[Finding]) -> Iterable[str]:
    """One law: that it holds, or why not, case by case."""
    wrong = [finding for finding in findings if finding.status == "broken"]
    law, rule = findings[0].law, findings[0].rule
    if not wrong:
        word = "holds" if any(finding.status == "holds" for finding in findings) else "-"
        why = "" if word == "holds" else f" ({findings[0].said})"
        yield f"  {word:8}{law}{why}"
        return
    yield f"  BROKEN  {law}"
    for finding in wrong[:SHOWN]:
        yield f"            {finding.subject}: {finding.said}"
    if len(wrong) > SHOWN:
        yield f"            and {len(wrong) - SHOWN} more of {len(findings)} cases"
    yield f"          The rule: {rule}."
