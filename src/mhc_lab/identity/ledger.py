"""Changes of code that were shown to alter no number: a result of the former code is one of the present one.

`ledger.json` holds

- `packages`: hashes of whole packages, as records had them before they had definitions, and the commit of each;
- `start`: the definitions of the package when records got theirs, of which those packages' runs had the same;
- `changes`, in order: `why`, `shown` (the command that showed equal numbers), and the definitions as they `was` and as
  they `is`; a definition that came or went stands on one side alone.

`nox -s same_numbers -- COMMIT --ledger "why"` enters what has changed since a commit, if all numbers are equal.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from mhc_lab.identity.code import Code, fingerprint

FILE = Path(__file__).with_name("ledger.json")
SHOWN = 3  # definitions that a message names
OF_AN_UNKNOWN_PACKAGE = "the package, in a form that the ledger does not know"


@cache
def ledger() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def changed(recorded: str, definitions: Code | None, now: Code) -> list[str]:
    """The definitions in which the code behind a result differs from that of `now`; empty: it is the same.

    Args:
        recorded: the result's code fingerprint.
        definitions: what was recorded with it, None for a record of the whole package's hash.
        now: the code that would make the result now.
    """
    if recorded == fingerprint(now):
        return []
    if definitions is not None and fingerprint(definitions) != recorded:
        definitions = None  # they are another result's
    if definitions is None and recorded not in ledger()["packages"]:
        return [OF_AN_UNKNOWN_PACKAGE]
    made = ledger()["start"] if definitions is None else definitions
    gone, come = difference(renewed(made), now)
    # What the ledger or a whole package has beyond this run is no difference: a run reaches a part of it.
    own = {} if definitions is None else _pairs(definitions)
    return sorted({key for key, digest in gone.items() if _pair(key, digest) in own} | come.keys())


def named(differing: list[str]) -> str:
    """For a message: a few of them, and how many more."""
    more = len(differing) - SHOWN
    return ", ".join(differing[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def conflicts(one: Code, other: Code, *, alike: bool) -> list[str]:
    """The definitions in which the code of two runs differs; two runs of one state of the package have none.

    `alike` runs execute the same of it. Others share a part, which is compared by where it lies.
    """
    if alike:
        return sorted({key for side in difference(one, other) for key in side})
    return sorted(key for key in one.keys() & other.keys() if one[key] != other[key])


def difference(was: Code, now: Code) -> tuple[Code, Code]:
    """The definitions of each side that the other has not, wherever they lie: an entry's `was` and `is`."""
    before, after = _pairs(was), _pairs(now)
    return (
        {key: was[key] for pair, key in before.items() if pair not in after},
        {key: now[key] for pair, key in after.items() if pair not in before},
    )


def renewed(code: Code) -> Code:
    """The definitions with every change of the ledger made."""
    for change in ledger()["changes"]:
        former = _pairs(change["was"])
        if former.keys() & _pairs(code).keys():
            kept = {key: digest for key, digest in code.items() if _pair(key, digest) not in former}
            code = {**change["is"], **kept}  # a definition in a form that the change does not know stays as it is
    return code


def _pairs(code: Code) -> dict[str, str]:
    """By name and digest, wherever they lie: the key of each."""
    return {_pair(key, digest): key for key, digest in code.items()}


def _pair(key: str, digest: str) -> str:
    return f"{key.rpartition('.')[2]}:{digest}"
