"""Results of former code, and which changes of it the ledger takes for none."""

from __future__ import annotations

from typing import Any

import pytest

from mhc_lab.identity import ledger as rooms
from mhc_lab.identity.code import Executed, code_of, everything, fingerprint
from mhc_lab.identity.ledger import OF_AN_UNKNOWN_PACKAGE, changed, conflicts, ledger, named, renewed

STACK, OPTIM, HC = "models.stack.Stack:1", "training.optim.build:1", "residual.hyper.HC:1"


def code(*entries: str) -> dict[str, str]:
    return dict(entry.split(":") for entry in entries)


def of(was: dict[str, str], now: dict[str, str]) -> list[str]:
    return changed(fingerprint(was), was, now)


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A ledger in which there is one package, of three definitions, and no change yet."""
    content: dict[str, Any] = {"packages": {"aaa": "commit"}, "start": code(STACK, OPTIM, HC), "changes": []}
    monkeypatch.setattr(rooms, "ledger", lambda: content)
    found: list[dict[str, Any]] = content["changes"]
    return found


@pytest.mark.usefixtures("changes")
def test_without_an_entry() -> None:
    was = code(STACK, OPTIM)
    assert of(was, was) == []
    assert of(was, code("models.stack.Stack:2", OPTIM)) == ["models.stack.Stack"]
    assert of(was, code("elsewhere.Stack:1", OPTIM)) == []
    assert of(was, code(STACK)) == ["training.optim.build"]
    assert of(was, code(STACK, OPTIM, HC)) == ["residual.hyper.HC"]
    assert changed("bbb", None, was) == [OF_AN_UNKNOWN_PACKAGE]
    assert changed("bbb", was, was) != []  # definitions that are not this record's
    assert changed("aaa", None, was) == []
    assert changed("aaa", None, code("models.stack.Stack:2")) == ["models.stack.Stack"]


def test_a_change_that_altered_no_number(changes: list[dict[str, Any]]) -> None:
    changes.append({"was": code(STACK), "is": code("models.stack.Stack:2", "models.steps.Steps:1")})
    now = code("models.stack.Stack:2", "models.steps.Steps:1", OPTIM)
    assert of(code(STACK, OPTIM), now) == []
    assert changed("aaa", None, now) == []
    assert of(code(STACK, OPTIM), code("models.stack.Stack:2", OPTIM)) == []  # this run does not reach all that came
    assert of(code(STACK, OPTIM), code(STACK, OPTIM)) == []
    assert of(code("models.stack.Stack:0", OPTIM), now) == ["models.stack.Stack", "models.steps.Steps"]
    assert of(code(OPTIM), code(OPTIM, "models.steps.Steps:1")) == ["models.steps.Steps"]
    assert renewed(code(STACK, OPTIM)) == now


def test_a_change_of_two_definitions_forgives_no_third_form(changes: list[dict[str, Any]]) -> None:
    changes.append({"was": code(STACK, OPTIM), "is": code("models.stack.Stack:2", "training.optim.build:2")})
    now = code("models.stack.Stack:2", "training.optim.build:2")
    assert of(code(STACK, OPTIM), now) == []
    strange = code("models.stack.Stack:1b", OPTIM)
    assert of(strange, now) == ["models.stack.Stack"]
    assert renewed(strange) == code("models.stack.Stack:1b", "training.optim.build:2")
    assert conflicts(renewed(strange), now, alike=False) == ["models.stack.Stack"]


def test_changes_follow_one_another(changes: list[dict[str, Any]]) -> None:
    changes.append({"was": code(STACK), "is": code("models.stack.Stack:2")})
    changes.append({"was": code("models.stack.Stack:2"), "is": code("models.stack.Stack:3")})
    assert of(code(STACK), code("models.stack.Stack:3")) == []
    assert changed("aaa", None, code("models.stack.Stack:3")) == []
    changes[1]["was"] = code("models.stack.Stack:2b")  # of a state that was never shown to be the same
    assert of(code(STACK), code("models.stack.Stack:3")) == ["models.stack.Stack"]


@pytest.mark.usefixtures("changes")
def test_conflicts_of_two_runs() -> None:
    assert conflicts(code(STACK, OPTIM), code(STACK, HC), alike=False) == []
    assert conflicts(code(STACK, OPTIM), code("models.stack.Stack:2", HC), alike=False) == ["models.stack.Stack"]
    assert conflicts(code(STACK, OPTIM), code(STACK), alike=True) == ["training.optim.build"]


def test_the_package_is_as_the_ledger_has_it() -> None:
    """What every run executes was changed: `nox -s same_numbers -- COMMIT --ledger WHY` takes it for none, if it is."""
    for variant, constraints in (("identity", ()), ("hc", ()), ("mhc", ("doubly_stochastic",))):
        for backend in ("cpu", "gpu", "reference"):
            now = code_of(Executed(variant, constraints, "stdlib", backend))
            assert changed("7297d736b0b2", None, now) == []  # d12d148
    assert conflicts(renewed(ledger()["start"]), everything(), alike=False) == []


def test_a_message_names_a_few() -> None:
    assert named(["a"]) == "a"
    assert named(list("abcde")) == "a, b, c and 2 more"
