"""A constraint with a setting of its own, from a file outside the package: from the command line to the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from mhc_lab import residual, testing
from mhc_lab.config import compose
from mhc_lab.config.listing import entries
from mhc_lab.config.run_id import run_id
from mhc_lab.errors import LabError
from mhc_lab.residual import registry

PLUGIN = Path(__file__).with_name("spectral_ball.py")
TINY = ["data=synthetic", "data.synthetic_vocab=16", "model.blocks=1", "model.dim=16", "model.heads=2",
        "model.sequence_length=16", "data.batch_size=2", "data.val_windows=4", "trainer.max_steps=12",
        "trainer.threads=1", "tracking=none"]  # fmt: skip
ROWS = {
    "identity": ["residual=identity"],
    "ball_1": ["residual=spectral_ball"],
    "ball_1.5": ["residual=spectral_ball", "residual.radius=1.5"],
}


@pytest.fixture(scope="module", autouse=True)
def _loaded(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("registered")
    registry.load_plugin(PLUGIN)


def mhc_lab(*arguments: str, place: Path) -> str:
    done = subprocess.run([sys.executable, "-m", "mhc_lab", *arguments], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_it_is_what_it_says_in_fp64() -> None:
    """Against singular values clipped one matrix at a time."""
    connection = residual.build("spectral_ball", 8, streams=3, radius=1.5).double()
    logits = 2 * torch.randn(50, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = connection.constraint(logits)
    for matrix, given in zip(found, logits.view(-1, 3, 3), strict=True):
        largest = torch.linalg.svdvals(given)[0]
        torch.testing.assert_close(matrix, given * min(1.0, float(1.5 / largest)), rtol=1e-12, atol=1e-14)
    assert torch.linalg.matrix_norm(found, ord=2).max() <= 1.5 + 1e-12


@pytest.mark.parametrize("radius", [1.0, 1.5])
def test_it_keeps_the_laws(radius: float) -> None:
    assert testing.broken(testing.examine("spectral_ball", {"radius": radius})) == []


def test_the_setting_has_a_default_a_domain_and_words() -> None:
    assert compose(["residual=spectral_ball"]).residual.own == {"radius": 1.0}
    assert compose(["residual=mhc"]).residual.own == {}
    listed = next(entry for entry in entries("residual") if entry["name"] == "residual.radius")
    assert listed["default"] == "1.0"
    assert listed["values"] == "from 0.1 to 100"
    assert listed["words"] == "largest spectral norm of H_res"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["residual=spectral_ball", "residual.radius=1000"], "residual.radius=1000.0: must be from 0.1 to 100"),
        (["residual=spectral_ball", "residual.radius=wide"], "residual.radius=wide: must be a number"),
        (["residual=spectral_ball", "residual.radus=2"], "did you mean 'radius'"),
        (["residual=spectral_ball", "residual.own=2"], "no key 'own'"),
        (["residual=mhc", "residual.radius=2"], r"'mhc' has no radius.*variants with radius: spectral_ball"),
        (
            ["residual=spectral_ball", "residual.h_res=fixed", "residual.radius=2"],
            "residual.radius needs residual.h_res=dynamic or static",
        ),
    ],
)
def test_what_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(LabError, match=words):
        compose(overrides)


def test_shared_by_rows_that_lack_it() -> None:
    assert compose(["residual=mhc"], shared=["residual.radius=2"]).residual.own == {}
    assert compose(["residual=spectral_ball"], shared=["residual.radius=2"]).residual.own == {"radius": 2.0}
    with pytest.raises(LabError, match="no setting 'radus'"):
        residual.build("spectral_ball", 8, radus=2)


def test_it_is_in_the_id_where_it_is_used() -> None:
    def identify(*overrides: str) -> str:
        return run_id(compose(["residual=spectral_ball", *overrides]), "c0ffee")

    assert identify() == identify("residual.radius=1") != identify("residual.radius=1.5")
    unused = compose(["residual=spectral_ball", "residual.h_res=fixed"])
    other = compose(["residual=spectral_ball", "residual.h_res=fixed"])
    other.residual.own["radius"] = 2.0
    assert run_id(unused, "c0ffee") == run_id(other, "c0ffee")


def test_a_grid_of_it_is_run_resumed_and_exported(tmp_path: Path) -> None:
    grid = {
        "title": "Balls",
        "baseline": "identity",
        "seeds": [0, 1],
        "rows": {row: {"overrides": own} for row, own in ROWS.items()},
    }
    (tmp_path / "balls.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    command = ["ablate", "balls.yaml", f"residual.plugin={PLUGIN}", *TINY]
    mhc_lab(*command, place=tmp_path)
    records = {file: file.read_text() for file in (tmp_path / "results" / "runs").glob("*/record.json")}
    assert len(records) == 6
    mhc_lab(*command, place=tmp_path)
    assert {file: file.read_text() for file in records} == records
    for text in records.values():
        record = json.loads(text)
        assert record["status"] == "finished"
        assert "connection_parameters_by_formula" not in record["cost"]  # counted, and as the formula says
    table = (tmp_path / "results" / "balls" / "table.md").read_text()
    assert "ball_1.5" in table
    assert "cost()" not in table
    gains = [json.loads(text)["metrics"]["gain_forward"] for text in records.values()]
    assert max(gains) < 1.5 * 2  # a row sum is at most sqrt(n) times the norm


def test_a_sweep_over_it(tmp_path: Path) -> None:
    sweep = {
        "title": "Radius",
        "overrides": ["residual=spectral_ball", f"residual.plugin={PLUGIN}", *TINY],
        "space": {"residual.radius": {"float": [0.5, 2.0]}},
        "sampler": {"name": "tpe", "seed": 0},
        "trials": 2,
    }
    (tmp_path / "radius.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    mhc_lab("sweep", "radius.yaml", place=tmp_path)
    configs = [yaml.safe_load(file.read_text()) for file in (tmp_path / "results" / "runs").glob("*/config.yaml")]
    radii = [config["residual"]["own"]["radius"] for config in configs]
    assert len(set(radii)) == 2
    assert all(0.5 <= radius <= 2 for radius in radii)


ABSTRACT = """
from mhc_lab.residual import Connection, Constraint, Variant, register_constraint, register_variant
class Half(Constraint):
    def birth(self):
        return None
register_constraint("half", Half)
"""
HALF_A_CONNECTION = """
from mhc_lab.residual import Connection, Variant, register_variant
class Half(Connection):
    def compute(self, streams):
        return None
register_variant(Variant("half", Half, "half"))
"""
TAKEN = """
from dataclasses import dataclass
from mhc_lab.config import setting
from mhc_lab.residual import Variant, register_variant
@dataclass
class Own:
    {field}
register_variant(Variant("taken", "mhc_lab.residual.plain:PlainConnection", "", settings=Own))
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ABSTRACT, "'half': Half lacks __call__"),
        (HALF_A_CONNECTION, "'half': Half lacks cost, init_parameter"),
        (TAKEN.format(field="t_max: int = setting(3)"), r"residual\.t_max is a setting already"),
        (TAKEN.format(field="radius: str = setting('a')"), r"residual\.radius is a setting of another type"),
        (TAKEN.format(field="width: int = 3"), r"'width' must be given by mhc_lab\.config\.setting"),
        (TAKEN.replace("@dataclass\n", "").format(field="width = 3"), "must be a dataclass"),
    ],
)
def test_what_a_plugin_may_not_register(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "plugin.py").write_text(text)
    with pytest.raises(LabError, match=words):
        registry.load_plugin(tmp_path / "plugin.py")
