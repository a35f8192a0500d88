"""The laws that plugin authors run: every variant of ours keeps them, and each finds the design that breaks it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from mhc_lab import cli, testing
from mhc_lab.config.schema import Sinkhorn
from mhc_lab.errors import LabError
from mhc_lab.residual import Constraint, Variant, register_constraint, register_variant, registry
from mhc_lab.residual.connection import ConnectionCost, Mappings
from mhc_lab.residual.constrained import ConstrainedConnection
from mhc_lab.testing import connections, constraints

SETTINGS: list[tuple[str, dict[str, str]]] = [
    *((name, {}) for name in registry.variants()),
    ("mhc", {"convention": "v4"}),
    *(("mhc", {"sinkhorn": name}) for name in get_args(Sinkhorn) if name != "plain"),
    ("mhc", {"h_pre": "static", "h_post": "fixed"}),
    ("hc", {"h_res": "static"}),
    ("orthogonal", {"h_post": "static", "h_res": "fixed"}),
]


@pytest.mark.parametrize(
    ("variant", "settings"), SETTINGS, ids=[f"{name} {' '.join(own.values())}" for name, own in SETTINGS]
)
def test_variants_keep_the_laws(variant: str, settings: dict[str, str]) -> None:
    found = testing.examine(variant, settings)
    assert testing.broken(found) == []
    assert sum(finding.status == "holds" for finding in found) >= 8


def test_every_law_is_tried_on_some_variant() -> None:
    found = [*testing.examine("identity"), *testing.examine("mhc")]
    holding = {finding.law for finding in found if finding.status == "holds"}
    assert holding == {law.name for law in (*constraints.LAWS, *connections.LAWS)}


@pytest.mark.usefixtures("plugged")
def test_a_variant_that_is_defined_for_no_such_n() -> None:
    class Seven(Good):
        @classmethod
        def accepts(cls, streams: int) -> bool:
            return streams == 7

    register_constraint("seven", Seven)
    with pytest.raises(LabError, match="'seven': not defined for any n of 1, 2, 3, 4, 8"):
        testing.laws("seven")
    with pytest.raises(LabError, match="no such variant"):
        testing.laws("eight")


class Good(Constraint):
    """Between I and the mean of the streams, by one logit."""

    promises = frozenset({"rows", "columns", "non_negative", "contraction"})

    @property
    def logits(self) -> int:
        return 1

    def birth(self) -> Tensor:
        return torch.full((1,), -3.0)

    def __call__(self, logits: Tensor) -> Tensor:
        mix, n = torch.sigmoid(logits).unsqueeze(-1), self.streams
        return (1 - mix) * torch.eye(n, dtype=mix.dtype) + mix / n


class Narrow(Good):
    def __call__(self, logits: Tensor) -> Tensor:
        return super().__call__(logits.float())


class Overflows(Good):
    promises = frozenset()

    def __call__(self, logits: Tensor) -> Tensor:
        return super().__call__(logits) + torch.exp(logits.unsqueeze(-1) - 8) * torch.eye(self.streams)


class Promises(Good):
    def __call__(self, logits: Tensor) -> Tensor:
        return super().__call__(logits).tril() + 1e-5


class Deaf(Good):
    @property
    def logits(self) -> int:
        return 2

    def birth(self) -> Tensor:
        return torch.full((2,), -3.0)

    def __call__(self, logits: Tensor) -> Tensor:
        return super().__call__(logits[..., :1] + 0 * logits[..., 1:])


class Looks(Good):
    def __call__(self, logits: Tensor) -> Tensor:
        return super().__call__(logits + logits.mean())


class Far(Good):
    def birth(self) -> Tensor:
        return torch.zeros(1)


class FarOnPurpose(Far):
    starts_near_identity = False


class Reads(ConstrainedConnection):
    def read(self, streams: Tensor) -> tuple[Tensor, Mappings]:
        hidden, weights = super().read(streams)
        return 2 * hidden, weights


class Fuses(ConstrainedConnection):
    def write_read(self, following: Any, streams: Tensor, output: Tensor, weights: Mappings) -> Any:
        return super().write_read(following, streams, 1.01 * output, weights)


class Idle(ConstrainedConnection):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_parameter("idle", torch.nn.Parameter(torch.zeros(1)))

    def reset_parameters(self) -> None:
        pass

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator | None) -> None:
        if name != "idle":
            super().init_parameter(name, parameter, generator)


class Miscounts(ConstrainedConnection):
    @classmethod
    def cost(cls, *arguments: Any) -> ConnectionCost:
        return ConnectionCost(super().cost(*arguments).parameters + 1, 0)


class Draws(ConstrainedConnection):
    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator | None) -> None:
        super().init_parameter(name, parameter, None)


class Rounds(ConstrainedConnection):
    def write(self, streams: Tensor, output: Tensor, weights: Mappings) -> Tensor:
        return super().write(streams, output, weights).float()


class Mixes(ConstrainedConnection):
    def compute(self, streams: Tensor) -> Mappings:
        return super().compute(streams + streams.mean())

    @property
    def fusable(self) -> bool:
        return False


class Drops(ConstrainedConnection):
    def compute(self, streams: Tensor) -> Mappings:
        return super().compute(torch.nn.functional.dropout(streams))

    @property
    def fusable(self) -> bool:
        return False


class Stubborn(ConstrainedConnection):
    def _overridden(self, mappings: Mappings) -> Mappings:
        return mappings


class Bends(ConstrainedConnection):
    def write(self, streams: Tensor, output: Tensor, weights: Mappings) -> Tensor:
        return super().write(streams + torch.tanh(streams), output, weights)


CONSTRAINTS = {
    "shape": Narrow,
    "finite": Overflows,
    "promises": Promises,
    "learned": Deaf,
    "apart": Looks,
    "birth": Far,
}
CONNECTIONS = {
    "equation": Reads,
    "write_read": Fuses,
    "gradients": Idle,
    "counted": Miscounts,
    "initial values": Draws,
    "precisions": Rounds,
    "tokens": Mixes,
    "recomputed": Drops,
    "overridden": Stubborn,
    "gauge": Bends,
    "plain at birth": ConstrainedConnection,
}


PLANTED = [(design, law) for law, design in {**CONSTRAINTS, **CONNECTIONS}.items()]


@pytest.fixture
def design(request: pytest.FixtureRequest) -> str:
    """A registered variant with one thing wrong."""
    request.getfixturevalue("plugged")
    cls = request.param
    if issubclass(cls, Constraint):
        register_constraint("planted", cls)
    else:
        mhc = registry.variant("mhc")
        claims = {"plain_at_birth": cls is ConstrainedConnection}
        register_variant(Variant("planted", cls, "", "doubly_stochastic", fields=mhc.fields, **claims))
    return "planted"


@pytest.mark.parametrize(("design", "law"), PLANTED, indirect=["design"])
def test_a_law_finds_the_design_that_breaks_it(design: str, law: str) -> None:
    found = testing.broken(testing.examine(design))
    assert law in {finding.law for finding in found}
    case = next(case for case in testing.laws(design) if case.law.name == law and case.find().status == "broken")
    with pytest.raises(testing.Broken, match="the rule: "):
        case.hold()


@pytest.mark.parametrize("design", [Good, FarOnPurpose], indirect=True)
def test_a_sound_constraint_keeps_them(design: str) -> None:
    assert testing.broken(testing.examine(design)) == []


FILE = """
import torch
from mhc_lab.residual import Constraint, register_constraint

class Averaging(Constraint):
    promises = frozenset({"rows", "columns", "non_negative"})
    logits = 1
    def birth(self):
        return torch.full((1,), BIRTH)
    def __call__(self, logits):
        mix, n = torch.sigmoid(logits).unsqueeze(-1), self.streams
        return (1 - mix) * torch.eye(n, dtype=mix.dtype, device=mix.device) + mix / n

register_constraint("checked", Averaging)
"""


@pytest.mark.usefixtures("plugged")
def test_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE.replace("BIRTH", "-3.0"))
    assert cli.main(["check", str(file)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("checked: mHC's connection with H_res checked\n  holds   shape\n")
    assert told.endswith("79 cases, 79 hold, 0 broken\n")


@pytest.mark.usefixtures("plugged")
def test_the_command_says_what_is_broken_and_the_rule(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE.replace("BIRTH", "0.0"))
    assert cli.main(["check", str(file)]) == 3
    told = capsys.readouterr().out
    assert "  BROKEN  birth\n            n = 2: H_res against I: off by 2.5e-01\n" in told
    assert "          The rule: birth() gives k logits whose H_res is near I" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mch"], "did you mean 'mhc'"),
        (["none.py"], "no such file"),
        (["mhc", "model.dim=3"], "give its settings as residual.NAME=VALUE"),
        (["mhc", "residual.t_mux=3"], "did you mean 't_max'"),
        (["identity", "residual.t_max=3"], "has no t_max"),
    ],
)
def test_what_cannot_be_checked(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("plugged")
def test_a_file_that_registers_nothing(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert cli.main(["check", str(tmp_path / "empty.py")]) == 2
    assert "registers no variant" in capsys.readouterr().err


@pytest.mark.usefixtures("plugged")
def test_the_example_of_the_readme_keeps_them_as_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "register_constraint(" in block]
    (tmp_path / "averaging.py").write_text(example)
    assert cli.main(["check", str(tmp_path / "averaging.py")]) == 0, capsys.readouterr().out
