"""The registry: torch-free, and open to plugins."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mhc_lab.config import compose
from mhc_lab.config.run_id import run_id
from mhc_lab.errors import LabError
from mhc_lab.residual import registry

PLUGIN = '''
import torch
from mhc_lab.residual import Constraint, register_constraint

class Averaging(Constraint):
    """One logit: how far H_res lies between I and the mean of the streams."""
    promises = frozenset({"rows", "columns", "non_negative"})
    logits = 1
    def birth(self):
        return torch.full((1,), -3.0)
    def __call__(self, logits):
        mix = torch.sigmoid(logits.float()).unsqueeze(-1)
        n = self.streams
        return (1 - mix) * torch.eye(n) + mix / n

register_constraint("averaging", Averaging, fields=set())
'''


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget what plugins have registered, before and after a test; call it to forget in between."""
    built_in = {name: dict(getattr(registry, name)) for name in ("_VARIANTS", "_CONSTRAINTS")}

    def forget() -> None:
        for name, table in built_in.items():
            monkeypatch.setattr(registry, name, dict(table))
        monkeypatch.setattr(registry, "_loaded_plugins", set())

    forget()
    return forget


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "my_variant.py"
    file.write_text(PLUGIN)
    return file


def test_all_variants_are_there() -> None:
    expected = [
        "identity",
        "identity_wide",
        "identity_hc",
        "hc",
        "mhc",
        "orthogonal",
        "row_stochastic",
        "column_stochastic",
    ]
    assert set(expected) <= set(registry.variants())


def test_the_registry_does_not_import_torch() -> None:
    code = "import sys, mhc_lab.residual, mhc_lab.config.compose, mhc_lab.run_folder; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_a_plugin_file_adds_a_variant_that_trains(plugin: Path) -> None:
    import torch

    from mhc_lab.models.cost import cost
    from mhc_lab.models.gpt import GPT

    config = compose(["residual=averaging", f"residual.plugin={plugin}", "residual.streams=3"])
    model = GPT(config.model, config.residual, 256)
    logits = model(torch.zeros(1, 8, dtype=torch.long))
    logits.square().mean().backward()
    gradient = model.stack.connections[0].get_parameter("b_res").grad
    assert gradient is not None and gradient.shape == (1,)
    assert sum(p.numel() for p in model.parameters()) == cost(config, 256).parameters


def test_the_content_of_a_plugin_is_in_the_run_id_and_its_place_is_not(
    plugin: Path, tmp_path: Path, fresh: Callable[[], None]
) -> None:
    moved = tmp_path / "elsewhere.py"
    moved.write_text(PLUGIN)
    edited = tmp_path / "edited.py"
    edited.write_text(PLUGIN.replace("-3.0", "-2.0"))
    ids = []
    for file in (plugin, moved, edited):
        fresh()
        ids.append(run_id(compose(["residual=averaging", f"residual.plugin={file}"]), "corpus"))
    assert ids[0] == ids[1] != ids[2]


def test_a_plugin_that_is_not_used_changes_no_id(plugin: Path) -> None:
    with_plugin = compose(["residual=identity", f"residual.plugin={plugin}"])
    assert run_id(with_plugin, "corpus") == run_id(compose(["residual=identity"]), "corpus")


def test_a_name_stands_for_one_implementation(plugin: Path, tmp_path: Path) -> None:
    compose(["residual=averaging", f"residual.plugin={plugin}"])
    other = tmp_path / "other.py"
    other.write_text(PLUGIN.replace("-3.0", "+3.0"))
    with pytest.raises(LabError, match="'averaging' is registered already"):
        compose(["residual=averaging", f"residual.plugin={other}"])
    copy = tmp_path / "copy.py"
    copy.write_text(PLUGIN)
    compose(["residual=averaging", f"residual.plugin={copy}"])
    thief = tmp_path / "thief.py"
    thief.write_text(PLUGIN.replace('"averaging"', '"mhc"'))
    with pytest.raises(LabError, match="'mhc' is registered already"):
        compose([f"residual.plugin={thief}"])


def test_a_broken_plugin_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import no_such_module")
    with pytest.raises(LabError, match="no_such_module"):
        compose(["residual=mhc", f"residual.plugin={file}"])
    with pytest.raises(LabError, match="no such file"):
        compose([f"residual.plugin={tmp_path / 'missing.py'}"])


def test_an_installed_plugin_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = importlib.metadata.EntryPoint("mine", "no_such_module:register", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: (broken,))
    monkeypatch.setattr(registry, "_entry_points_loaded", False)
    with pytest.raises(LabError, match="plugin 'mine'"):
        registry.variants()


def test_constraints_may_differ_from_layer_to_layer() -> None:
    from mhc_lab.residual.factory import build_all

    config = compose(["residual=mhc", "residual.constraints=[doubly_stochastic,orthogonal]"]).residual
    _, connections, _ = build_all(config, dim=8, layers=4)
    names = [type(c.constraint).__name__ for c in connections]  # type: ignore[attr-defined]
    assert names == ["DoublyStochastic", "Orthogonal"] * 2


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        (["residual.sinkhorn=newton", "residual.convention=v4"], "residual.convention=eq9"),
        (["residual.sinkhorn=warm", "residual.convention=v4"], "residual.convention=eq9"),
        (["residual.sinkhorn=permutations", "residual.streams=6"], "at most 5, not 6"),
        (["residual.sinkhorn=kronecker", "residual.streams=6"], "residual.streams=6 must be a power of 2"),
        (["residual.sinkhorn=fast"], "residual.sinkhorn"),
    ],
)
def test_an_algorithm_refuses_what_it_cannot_do(settings: list[str], mend: str) -> None:
    with pytest.raises(LabError, match=mend) as found:
        compose(["residual=mhc", *settings])
    assert "\n" not in str(found.value)


def test_an_algorithm_that_is_not_used_refuses_nothing() -> None:
    compose(["residual=mhc", "residual.h_res=fixed", "residual.streams=6"], shared=["residual.sinkhorn=kronecker"])
    with pytest.raises(LabError, match="variant 'hc' has no sinkhorn"):
        compose(["residual=hc", "residual.sinkhorn=log"])


@pytest.mark.parametrize(("name", "logits"), [("newton", 16), ("warm", 16), ("permutations", 24), ("kronecker", 2)])
def test_the_predicted_parameters_follow_the_algorithm(name: str, logits: int) -> None:
    from mhc_lab.models.cost import cost
    from mhc_lab.models.gpt import GPT

    config = compose(["residual=mhc", f"residual.sinkhorn={name}"])
    model = GPT(config.model, config.residual, 256)
    assert model.stack.connections[0].get_parameter("b_res").shape == (logits,)
    assert sum(p.numel() for p in model.parameters()) == cost(config, 256).parameters
