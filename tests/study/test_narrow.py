"""A sweep narrowed from the command line."""

from __future__ import annotations

import pytest

from mhc_lab.errors import LabError
from mhc_lab.study.narrow import narrowed
from mhc_lab.study.sweep_file import load_sweep

CONTENT = {
    "space": {
        "residual": {"choices": ["identity", "hc", "mhc"]},
        "optim.learning_rate": {"float": [0.001, 0.016], "log": True, "points": 5},
        "residual.t_max": {"int": [1, 40], "when": {"residual": ["mhc"]}},
    },
    "enqueue": [{"residual.t_max": 20}, {"residual.t_max": 2}],
}


def test_choices_and_ranges_are_narrowed_and_the_rest_stays() -> None:
    content, rest = narrowed(
        CONTENT, ["residual=mhc,identity", "model=nano", "residual.t_max=1..5", "optim.learning_rate=0.002"], "f"
    )
    assert rest == ["model=nano"]
    assert content["space"] == {
        "residual": {"choices": ["mhc", "identity"]},
        "optim.learning_rate": {"choices": [0.002]},
        "residual.t_max": {"int": [1, 5], "when": {"residual": ["mhc"]}},
    }
    assert content["enqueue"] == [{"residual.t_max": 2}]
    assert CONTENT["space"]["residual"]["choices"] == ["identity", "hc", "mhc"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("residual=mch", "did you mean 'mhc'"),
        ("residual=", "the sweep tries identity, hc, mhc"),
        ("residual.t_max=0..5", r"tries 1 to 40: give part of that as low..high"),
        ("residual.t_max=5..1", "part of that"),
        ("residual.t_max=1.5", "'1.5' is no number"),
        ("optim.learning_rate=fast", "'fast' is no number"),
    ],
)
def test_what_the_space_does_not_hold_is_refused(override: str, says: str) -> None:
    with pytest.raises(LabError, match=says):
        narrowed(CONTENT, [override], "f")


def test_a_shipped_sweep_is_a_quarter_of_itself() -> None:
    spec = load_sweep("learning_rate", overrides=["residual=mhc,identity"])
    assert spec.trials == 10
    assert spec.overrides == load_sweep("learning_rate").overrides
