"""Sweep files: the shipped ones load and their corners compose; what is wrong in a file is said in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mhc_lab.errors import LabError
from mhc_lab.study.definition import differences
from mhc_lab.study.space import corners
from mhc_lab.study.sweep_file import PRUNERS, SAMPLERS, load_sweep, sweeps

SHIPPED = {"learning_rate", "sinkhorn", "sinkhorn_pareto", "smoke"}
GOOD = """
title: Two settings
overrides: [residual=mhc, data=synthetic, trainer.max_steps=60, tracking=none]
space:
  residual.t_max: {int: [1, 20], log: true}
  residual.alpha_init: {float: [1e-3, 1], log: true}
trials: 9
"""


def write(folder: Path, *drop: str, **changes: object) -> str:
    content = {**yaml.safe_load(GOOD), **changes}
    file = folder / "two.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in content.items() if key not in drop}))
    return str(file)


def test_the_shipped_sweeps_are_all_known(monkeypatch, tmp_path):
    assert set(sweeps()) >= SHIPPED
    monkeypatch.chdir(tmp_path)  # where there is no ./sweeps
    assert set(sweeps()) == SHIPPED


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_sweeps_load_and_all_their_corners_compose(name):
    spec = load_sweep(name)
    assert spec.name == name
    assert spec.title != name
    points = list(corners(spec.parameters))
    ids = {repr(spec.config(point)) for point in points}
    assert len(ids) == len(points)  # each edge of the space is another configuration
    assert all(spec.config(point, seed).seed == seed for point in points[:1] for seed in (0, 3))
    for point in spec.starting_points:
        spec.config(point)


def test_a_sweep_as_its_file_says(tmp_path):
    spec = load_sweep(write(tmp_path))
    assert (spec.name, spec.title, spec.trials, spec.seeds) == ("two", "Two settings", 9, (0,))
    assert spec.objectives == ("val_loss",)
    assert spec.sampler == {"name": "tpe", "seed": 0, **SAMPLERS["tpe"]}
    assert spec.pruner == {"name": "none"}
    assert (spec.by, spec.enqueue, spec.starting_points) == ("", (), [])
    config = spec.config({"residual.t_max": 7}, 5)
    assert (config.residual.t_max, config.seed, config.trainer.max_steps) == (7, 5, 60)
    assert spec.base.residual.t_max == 1
    assert spec.base.trainer.val_every == 0


def test_the_command_line_wins_over_the_file(tmp_path):
    spec = load_sweep(write(tmp_path), trials=3, seeds=[4, 5], overrides=["trainer.max_steps=7"])
    assert (spec.trials, spec.seeds, spec.base.trainer.max_steps) == (3, (4, 5), 7)
    assert spec.content["overrides"][-1] == "trainer.max_steps=7"  # what workers elsewhere resolve


def test_every_argument_of_sampler_and_pruner_is_pinned(tmp_path):
    spec = load_sweep(write(tmp_path, sampler={"name": "gp", "seed": 3, "n_startup_trials": 4}, pruner="hyperband"))
    assert spec.sampler == {"name": "gp", "seed": 3, "n_startup_trials": 4, "deterministic_objective": False}
    assert spec.pruner == {"name": "hyperband", "min_steps": 50, "factor": 3}
    assert spec.base.trainer.val_every == 50  # the validations are the pruner's questions


def test_a_grid_counts_its_points_and_begins_with_all_of_them(tmp_path):
    space = {"residual.t_max": {"int": [1, 3]}, "residual.streams": {"choices": [2, 4]}}
    spec = load_sweep(write(tmp_path, "trials", space=space, sampler="grid", by="residual.streams"))
    assert spec.trials == len(spec.starting_points) == 6
    assert spec.by == "residual.streams"


MHC = ["residual=mhc", "data=synthetic", "tracking=none"]
RANGE = {"int": [1, 20]}
BAD = [
    ({"spaces": {}}, "no key 'spaces'; did you mean 'space'"),
    ({"space": None}, "space: must map settings"),
    ({"space": {"residual.t_max": {"int": [20, 1]}}}, "space: residual.t_max: the range [20, 1] is inverted"),
    ({"space": {"residual.tmax": RANGE}}, "did you mean 't_max'"),
    ({"space": {"optm.learning_rate": {"float": [0.1, 1]}}}, "did you mean 'optim'"),
    ({"space": {"residual": {"choices": ["mhc", "mhcc"]}}}, "the space holds residual=mhcc, which cannot be run: "),
    ({"space": {"residual.streams": {"int": [0, 4]}}}, "the space holds residual.streams=0, which cannot be run: "),
    (
        {"space": {"residual.sinkhorn": {"choices": ["plain", "kronecker"]}, "residual.streams": {"int": [2, 4]}}},
        "the space holds residual.sinkhorn=kronecker, residual.streams=3, which cannot be run: ",
    ),
    (
        {"overrides": ["residual=identity"], "space": {"residual.t_max": RANGE}},
        "the space holds residual.t_max=1, which cannot be run: ",
    ),
    (
        {"space": {"residual": {"choices": ["mhc", "identity"]}, "residual.t_max": RANGE}},
        "the space holds residual=identity, residual.t_max=1, which cannot be run: ",
    ),
    ({"space": {"seed": RANGE}}, "seeds of a sweep are given with --seeds"),
    ({"overrides": [*MHC, "seed=3"]}, "seeds of a sweep are given with --seeds"),
    ({"overrides": "residual=mhc"}, "overrides must be a list"),
    (
        {"overrides": [*MHC, "residual.t_max=3"]},
        "residual.t_max is fixed by overrides and varied by the space: keep one of them",
    ),
    ({"space": {"residual": {"choices": ["mhc", "hc"]}}}, "residual is fixed by overrides and varied by the space"),
    ({"objectives": []}, "objectives must be one or two metrics"),
    ({"objectives": "val_loss"}, "objectives must be one or two metrics"),
    ({"objectives": ["val_loss", "val_loss"]}, "objectives must be one or two metrics"),
    ({"objectives": ["val_loss", "ms_per_step", "ds_error"]}, "objectives must be one or two metrics"),
    ({"objectives": ["val_los"]}, "no metric 'val_los' to minimise; did you mean 'val_loss'"),
    ({"sampler": "tpee"}, "sampler: no 'tpee'; did you mean 'tpe'"),
    ({"sampler": {"seed": 0}}, "sampler: no 'None'"),
    ({"sampler": ["tpe"]}, "sampler: no "),
    ({"sampler": {"name": "tpe", "startup_trials": 3}}, "tpe has no 'startup_trials'; did you mean 'n_startup_trials'"),
    ({"sampler": {"name": "gp", "multivariate": True}}, "gp has no 'multivariate'"),
    ({"sampler": {"name": "tpe", "seed": -1}}, "seed must be a whole number from 0"),
    ({"sampler": {"name": "tpe", "seed": True}}, "seed must be a whole number from 0"),
    ({"sampler": {"name": "tpe", "seed": 2.0}}, "seed must be a whole number from 0"),
    ({"sampler": {"name": "tpe", "seed": 2**32}}, "seed must be a whole number from 0 to 4294967295"),
    ({"sampler": {"name": ["tpe"]}}, "sampler: no '['tpe']'"),
    ({"pruner": {"name": {}}}, "pruner: no '{}'"),
    ({"sampler": {"name": "tpe", "n_startup_trials": -1}}, "tpe: n_startup_trials must be a whole number from 0"),
    ({"sampler": {"name": "tpe", "n_ei_candidates": 2.5}}, "tpe: n_ei_candidates must be a whole number from 1"),
    ({"sampler": {"name": "tpe", "constant_liar": 1}}, "tpe: constant_liar must be true or false"),
    ({"sampler": {"name": "tpe", "multivariate": False}}, "group needs multivariate: give group: false too"),
    ({"sampler": {"name": "nsga2", "population_size": 1}}, "nsga2: population_size must be a whole number from 2"),
    ({"sampler": {"name": "nsga2", "mutation_prob": 2}}, "nsga2: mutation_prob must be a number from 0 to 1"),
    ({"sampler": {"name": "qmc", "qmc_type": "sobel"}}, "qmc: qmc_type must be sobol or halton"),
    ({"pruner": {"name": "wilcoxon", "p_threshold": "low"}}, "wilcoxon: p_threshold must be a number from 0 to 1"),
    ({"pruner": "hyperbond"}, "pruner: no 'hyperbond'; did you mean 'hyperband'"),
    ({"pruner": {"name": "hyperband", "seed": 0}}, "hyperband has no 'seed'"),
    ({"pruner": {"name": "hyperband", "min_steps": 0}}, "min_steps must be a whole number"),
    ({"pruner": {"name": "hyperband", "min_steps": 5, "factor": 1}}, "factor must be a whole number"),
    ({"pruner": {"name": "hyperband", "min_steps": 60}}, "min_steps=60 must be below trainer.max_steps=60"),
    ({"pruner": "hyperband", "seeds": [0, 1]}, "give one seed, or take wilcoxon"),
    (
        {"pruner": "hyperband", "overrides": MHC, "space": {"trainer.max_steps": {"int": [90, 99]}}},
        "hyperband needs one trainer.max_steps for all trials",
    ),
    ({"pruner": "hyperband", "objectives": ["train_loss"]}, "hyperband judges by val_loss"),
    ({"pruner": "wilcoxon", "seeds": [0, 1, 2], "objectives": ["val_loss", "ms_per_step"]}, "judges by val_loss"),
    ({"pruner": "wilcoxon", "seeds": [0, 1, 2, 3]}, "p_threshold=0.1 never prunes by 4 seeds: give at least 5 seeds"),
    ({"pruner": {"name": "wilcoxon", "n_startup_steps": 6}, "seeds": [0, 1, 2, 3, 4, 5]}, "give at least 7 seeds"),
    ({"pruner": {"name": "wilcoxon", "p_threshold": 0}, "seeds": [0, 1, 2]}, "raise p_threshold"),
    ({"objectives": ["tokens_per_second"]}, "take ms_per_step instead of tokens_per_second"),
    ({"objectives": ["steps"]}, "no metric 'steps' to minimise"),
    (
        {"space": {"residual.recompute": {"choices": ["off", "auto"]}}},
        "space: residual.recompute is no part of what a run is: all its values would share one run",
    ),
    (
        {"space": {"trainer.threads": {"int": [1, 2]}, "residual.t_max": RANGE}},
        "space: trainer.threads is no part of what a run is",
    ),
    ({"seeds": []}, "seeds must be a list"),
    ({"seeds": [0, 0]}, "seed 0 is given twice"),
    ({"seeds": [-1]}, "seeds are whole numbers"),
    ({"trials": 0}, "trials must be a whole number, at least 1"),
    ({"trials": True}, "trials must be a whole number, at least 1"),
    ({"trials": 1_000_000}, "trials=1000000: more than 100000"),
    ({"trials": None}, "trials: how many?"),
    ({"sampler": "grid", "space": {"residual.t_max": RANGE}}, "the grid has 20 points: leave trials out, or give 20"),
    ({"sampler": "grid", "trials": None}, "a grid needs points"),
    ({"enqueue": {"residual.t_max": 3}}, "enqueue must be a list of points"),
    ({"enqueue": [{"residual.t_max": 21}]}, "enqueue: residual.t_max=21 lies outside the space"),
    ({"enqueue": [{"residual.tmax": 2}]}, "did you mean 'residual.t_max'"),
    ({"by": "residual"}, "by=residual must name a parameter with choices"),
    ({"by": "residual.t_max"}, "by=residual.t_max must name a parameter with choices"),
]


@pytest.mark.parametrize(("changes", "says"), BAD, ids=lambda value: str(value)[:70])
def test_what_is_wrong_in_a_file_is_said(tmp_path, changes, says):
    if "space" in changes and "residual" in (changes["space"] or {}) and "fixed" not in says:
        changes = {**changes, "overrides": MHC[1:]}
    with pytest.raises(LabError) as refused:
        load_sweep(write(tmp_path, **changes))
    line = str(refused.value)
    assert "\n" not in line
    assert says in line


def test_names_that_are_no_sweep(tmp_path):
    with pytest.raises(LabError, match="no sweep 'sinkhornn'; did you mean 'sinkhorn'"):
        load_sweep("sinkhornn")
    with pytest.raises(LabError, match="no such sweep file"):
        load_sweep(str(tmp_path / "none.yaml"))


def test_settings_that_belong_to_other_choices_only_can_be_asked_for_there(tmp_path):
    space = {
        "residual": {"choices": ["identity", "mhc"]},
        "residual.t_max": {"int": [1, 20], "when": {"residual": ["mhc"]}},
    }
    spec = load_sweep(write(tmp_path, space=space, overrides=MHC[1:]))
    assert spec.config({"residual": "identity"}).residual.variant == "identity"


def test_two_studies_are_told_apart_key_by_key():
    was = {"space": {"a": "int 1 to 9", "b": "float 0 to 1"}, "seeds": [0], "sampler": {"name": "tpe"}}
    now = {"space": {"a": "int 1 to 8", "c": "float 0 to 1"}, "seeds": [0], "sampler": {"name": "tpe"}}
    assert list(differences(was, was)) == []
    assert list(differences(was, now)) == [
        "space: a: int 1 to 9 then, int 1 to 8 now",
        "space: b: float 0 to 1 then, nothing now",
        "space: c: nothing then, float 0 to 1 now",
    ]
    assert list(differences({"seeds": [0]}, {"seeds": [0, 1]})) == ["seeds: [0] then, [0, 1] now"]


def test_pruners_and_samplers_have_names_that_a_file_can_give():
    assert set(SAMPLERS) == {"tpe", "gp", "qmc", "nsga2", "grid"}
    assert set(PRUNERS) == {"hyperband", "wilcoxon", "none"}


def test_a_sweep_file_is_read_without_torch_and_optuna():
    code = (
        "import sys; from mhc_lab.study.sweep_file import load_sweep; load_sweep('smoke');"
        "sys.exit(str({'torch', 'optuna', 'lightning'} & set(sys.modules)) if "
        "{'torch', 'optuna', 'lightning'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
