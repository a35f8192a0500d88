"""The code behind a run: what counts for which run, tried on a copy of the package that is edited."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mhc_lab
from mhc_lab.config import compose
from mhc_lab.errors import LabError
from mhc_lab.identity.code import Executed, code_of, everything

RUNS = {
    "identity": Executed("identity", (), "synthetic", "cpu"),
    "identity_wide": Executed("identity_wide", (), "synthetic", "cpu"),
    "hc": Executed("hc", (), "stdlib", "cpu"),
    "mhc": Executed("mhc", ("doubly_stochastic",), "stdlib", "cpu"),
    "mhc, gpu": Executed("mhc", ("doubly_stochastic",), "stdlib", "gpu"),
    "mhc, reference": Executed("mhc", ("doubly_stochastic",), "text", "reference"),
    "mhc, gave way": Executed("mhc", ("doubly_stochastic",), "text", "cpu (write_read: reference)"),
    "orthogonal": Executed("orthogonal", ("orthogonal",), "stdlib", "cpu"),
}
ASKED = """
import json, sys
from mhc_lab.identity.code import Executed, code_fingerprint
print(json.dumps({name: code_fingerprint(Executed.said(run)) for name, run in json.loads(sys.argv[1]).items()}))
"""


class Copy:
    """The package beside the installed one, to be edited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "mhc_lab"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(mhc_lab.__file__).parent, self.package, ignore=ignored)

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.package / file).read_text()
        assert old in text, (file, old)
        (self.package / file).write_text(text.replace(old, new))

    def fingerprints(self) -> dict[str, str]:
        runs = json.dumps({name: vars(run) for name, run in RUNS.items()})
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(
            [sys.executable, "-c", ASKED, runs], env=environment, capture_output=True, text=True, check=True
        )
        found: dict[str, str] = json.loads(done.stdout)
        return found


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return Copy(tmp_path_factory.mktemp("untouched")).fingerprints()


def test_kinds_of_runs_have_code_of_their_own(untouched: dict[str, str]) -> None:
    assert len(set(untouched.values())) == len(untouched)
    code = code_of(RUNS["mhc"])
    assert {"models.stack.ResidualStack", "ops.write_read.cpu.forward", "data.sources.read_stdlib"} <= code.keys()
    assert {"training.optim.build_optimizer", "residual.constrained.ConstrainedConnection"} <= code.keys()
    beside = (
        "hyper",
        "orthogonal",
        "read_text",
        "gpu",
        "report",
        "figures",
        "bench",
        "tracking",
        "write_read_reference",
    )
    assert [key for key in code if any(word in key for word in beside)] == []
    assert not any("sinkhorn" in key for key in code_of(RUNS["hc"]) if key.startswith("residual"))
    assert "ops.write_read.reference.forward" in code_of(RUNS["mhc, gave way"])
    assert code_of(RUNS["mhc"]).keys() <= everything().keys()
    assert "residual.constrained.ConstrainedConnection" in code_of(RUNS["identity_wide"])  # whose size it has


def comments(copy: Copy) -> None:
    for file in copy.package.rglob("*.py"):
        file.write_text(file.read_text() + "\n# A comment.\n")


def another_variant(copy: Copy) -> None:
    text = (copy.package / "residual/constraints/orthogonal.py").read_text()
    (copy.package / "residual/constraints/other.py").write_text(text.replace("Orthogonal", "Other"))
    with (copy.package / "residual/registry.py").open("a") as registry:
        registry.write('\nregister_constraint("other", _BUILT_IN + "other:Other", summary="another")\n')


def a_figure(copy: Copy) -> None:
    copy.edit("report/figures/spread.py", "return", "return None or")


def a_moved_constant(copy: Copy) -> None:
    text = (copy.package / "training/degenerate.py").read_text()
    line = next(line for line in text.splitlines() if line.startswith("THRESHOLD"))
    copy.edit("training/degenerate.py", line + "\n", "from mhc_lab.training.limits import THRESHOLD\n")
    (copy.package / "training/limits.py").write_text(line + "\n")


def a_setting(copy: Copy) -> None:
    copy.edit("config/schema.py", "    blocks: int", "    extra: int = setting(0, None, added=0)\n    blocks: int")


def words(copy: Copy) -> None:
    copy.edit("residual/registry.py", "rows sum to 1, by softmax", "each row sums to 1, by softmax")
    copy.edit("residual/constrained.py", "wanted {wanted}", "not {wanted}")


@pytest.mark.parametrize("change", [comments, another_variant, a_figure, a_moved_constant, a_setting, words])
def test_what_alters_no_run(copy: Copy, untouched: dict[str, str], change: Callable[[Copy], None]) -> None:
    change(copy)
    assert copy.fingerprints() == untouched


@pytest.mark.parametrize(
    ("file", "old", "new", "runs"),
    [
        ("models/stack.py", "hidden.to(dtype)", "hidden.to(dtype) * 2", set(RUNS)),
        ("training/optim.py", "weight_decay", "decay_of_weights", set(RUNS)),
        ("residual/hyper.py", "torch.tanh", "torch.sigmoid", {"hc"}),
        ("residual/constraints/orthogonal.py", "return", "return 2 *", {"orthogonal"}),
        ("ops/write_read/cpu.py", "written", "was_written", {"identity_wide", "mhc", "mhc, gave way", "orthogonal"}),
        ("ops/write_read/gpu_tiles.py", "return", "return 2 *", {"mhc, gpu"}),
        ("data/synthetic.py", "FRAGMENT = 4", "FRAGMENT = 5", {"identity", "identity_wide"}),
        ("data/sources.py", "0.99 * len", "0.9 * len", {"mhc, reference", "mhc, gave way"}),
    ],
)
def test_what_alters_whose_code(
    copy: Copy, untouched: dict[str, str], file: str, old: str, new: str, runs: set[str]
) -> None:
    copy.edit(file, old, new)
    found = copy.fingerprints()
    assert {name for name in RUNS if found[name] != untouched[name]} == runs


def test_by_a_config() -> None:
    config = compose(["residual=mhc", "residual.constraints=[orthogonal,doubly_stochastic,orthogonal]", "trainer=gpu"])
    assert Executed.by(config) == Executed("mhc", ("orthogonal", "doubly_stochastic"), "stdlib", "gpu")
    assert Executed.by(config, "reference").backend == "reference"
    with pytest.raises(LabError, match="no such variant"):
        code_of(Executed("gone", (), "stdlib", "cpu"))
