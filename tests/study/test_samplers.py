"""Samplers and pruners as Optuna has them: every argument given, the same trial the same point whoever takes it."""

from __future__ import annotations

import math
import multiprocessing
import statistics
import warnings
from concurrent.futures import ProcessPoolExecutor

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from mhc_lab.study.samplers import SeededByTrial, build_pruner, build_sampler, suggest
from mhc_lab.study.space import grid, parse_space
from mhc_lab.study.sweep_file import SAMPLERS

SPACE = """
kind: {choices: [plain, warm, none]}
t_max: {int: [1, 40], log: true, when: {kind: [plain, warm]}}
alpha: {float: [1e-3, 1], log: true}
width: {float: [-1, 3]}
"""
PARAMETERS = parse_space(yaml.safe_load(SPACE), "space")
FEW = parse_space({"t_max": {"int": [1, 3]}, "kind": {"choices": ["plain", "warm"]}}, "space")


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def spec(name, seed=0, **arguments):
    return {"name": name, "seed": seed, **SAMPLERS[name], **arguments}


def quadratic(point):
    """0 at its best: kind plain, t_max 8, alpha 0.05, width 1."""
    depth = abs(math.log(point["t_max"] / 8)) if "t_max" in point else 4.0
    shallow = {"plain": 0.0, "warm": 0.5, "none": 1.0}[point["kind"]]
    return depth**2 + math.log(point["alpha"] / 0.05) ** 2 + (point["width"] - 1) ** 2 + shallow


def searched(sampler, trials, parameters=PARAMETERS, objective=quadratic, directions=1):
    study = optuna.create_study(sampler=sampler, directions=["minimize"] * directions)
    study.optimize(lambda trial: objective(suggest(trial, parameters)), n_trials=trials)
    return study


def inside(params):
    known = {parameter.key: parameter for parameter in PARAMETERS}
    conditional = ("t_max" in params) == (params["kind"] in ("plain", "warm"))
    return (
        conditional
        and set(params) >= {"kind", "alpha", "width"}
        and all(known[key].holds(value) for key, value in params.items())
    )


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"grid"}))
def test_every_point_lies_in_a_mixed_conditional_space(name):
    """`grid` has no sampler of its own: its points are enqueued."""
    arguments = {"nsga2": {"population_size": 4}, "gp": {"n_startup_trials": 8}}.get(name, {})
    pairs = {"objective": lambda point: (quadratic(point), point["alpha"]), "directions": 2} if name == "nsga2" else {}
    study = searched(build_sampler(spec(name, **arguments)), 12, **pairs)
    assert all(inside(trial.params) for trial in study.trials)
    points = {tuple(sorted(trial.params.items())) for trial in study.trials}
    assert len(points) > (6 if name == "nsga2" else 10)  # an evolution repeats what stood the test
    assert {trial.params["kind"] for trial in study.trials} >= {"plain", "warm"}


@pytest.mark.parametrize(("name", "seeds"), [("tpe", 3), ("gp", 1)])
def test_samplers_that_learn_leave_what_is_poor(name, seeds):
    """The first ten of 30 trials are drawn; then they find better ones, where chance goes on as it began."""
    learnt = [searched(build_sampler(spec(name, seed)), 30) for seed in range(seeds)]
    chance = [searched(optuna.samplers.RandomSampler(seed=seed), 30) for seed in range(seeds)]
    later, by_chance = (
        statistics.median(trial.value for study in studies for trial in study.trials[15:])
        for studies in (learnt, chance)
    )
    assert later < 0.5 * by_chance
    assert all(study.best_trial.number >= 10 for study in learnt)


def test_a_grid_takes_its_enqueued_points_and_no_other():
    study = optuna.create_study(sampler=build_sampler(spec("grid")))
    for point in grid(FEW):
        study.enqueue_trial(point)
    study.optimize(lambda trial: suggest(trial, FEW)["t_max"], n_trials=6)
    assert [trial.params for trial in study.trials] == grid(FEW)


def next_point(file: str, sampler: dict, drawn_before: int) -> tuple[int, dict]:
    """What the next trial of a study gets from a process that has drawn `drawn_before` points for another."""
    built = build_sampler(sampler)
    searched(built, drawn_before)
    study = optuna.load_study(study_name="s", storage=file, sampler=built)
    trial = study.ask()
    return trial.number, suggest(trial, PARAMETERS)


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_the_same_trial_has_the_same_point_whichever_process_asks(name, tmp_path):
    points = []
    for drawn_before in (0, 3):
        file = f"sqlite:///{tmp_path}/{drawn_before}.db"
        random = optuna.samplers.RandomSampler(seed=1)
        study = optuna.create_study(study_name="s", storage=file, sampler=random)
        study.optimize(lambda trial: quadratic(suggest(trial, PARAMETERS)), n_trials=12)
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
            points.append(process.submit(next_point, file, spec(name), drawn_before).result(60))
    assert points[0] == points[1]
    assert points[0][0] == 12


def test_the_points_hang_on_trial_and_seed():
    sampler = SeededByTrial(lambda seed: optuna.samplers.RandomSampler(seed=seed), 0)
    first, again = searched(sampler, 4), searched(build_sampler(spec("grid")), 4)
    assert [t.params for t in first.trials] == [t.params for t in again.trials]
    assert len({repr(trial.params) for trial in first.trials}) == 4
    other = searched(build_sampler(spec("grid", seed=1)), 4)
    assert all(ours.params != theirs.params for ours, theirs in zip(first.trials, other.trials, strict=True))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_one_worker_repeats_a_sweep_exactly(name):
    once, twice = ([trial.params for trial in searched(build_sampler(spec(name)), 12).trials] for _ in range(2))
    assert once == twice


# What stands in a sweep file -> where Optuna's sampler keeps it. A new default of Optuna's must not get in.
PRIVATE = {
    "tpe": {
        "n_startup_trials": (7, "_n_startup_trials"),
        "n_ei_candidates": (11, "_n_ei_candidates"),
        "multivariate": (False, "_multivariate"),
        "group": (False, "_group"),
        "constant_liar": (False, "_constant_liar"),
    },
    "gp": {"n_startup_trials": (7, "_n_startup_trials"), "deterministic_objective": (True, "_deterministic")},
    "qmc": {"qmc_type": ("halton", "_qmc_type"), "scramble": (False, "_scramble")},
    "nsga2": {
        "population_size": (6, "_population_size"),
        "mutation_prob": (0.25, "_child_generation_strategy._mutation_prob"),
        "crossover_prob": (0.5, "_child_generation_strategy._crossover_prob"),
        "swapping_prob": (0.125, "_child_generation_strategy._swapping_prob"),
    },
}


def attribute(owner, path):
    for name in path.split("."):
        owner = getattr(owner, name)
    return owner


@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_every_argument_reaches_optuna(name):
    assert set(PRIVATE[name]) == set(SAMPLERS[name])
    for given in ({}, {key: value for key, (value, _) in PRIVATE[name].items()}):
        wanted = spec(name, **given)
        built = build_sampler(wanted)
        built = built._sampler if isinstance(built, SeededByTrial) else built
        assert {key: attribute(built, path) for key, (_, path) in PRIVATE[name].items()} == {
            key: wanted[key] for key in PRIVATE[name]
        }


def test_a_sequence_has_one_seed_for_all_workers():
    built = build_sampler(spec("qmc", seed=5))
    assert isinstance(built, optuna.samplers.QMCSampler)
    assert built._seed == 5


def test_pruners_have_the_numbers_of_the_file():
    band = build_pruner({"name": "hyperband", "min_steps": 9, "factor": 4}, 200)
    assert isinstance(band, optuna.pruners.HyperbandPruner)
    assert (band._min_resource, band._max_resource, band._reduction_factor, band._bootstrap_count) == (9, 200, 4, 0)
    seeds = build_pruner({"name": "wilcoxon", "p_threshold": 0.05, "n_startup_steps": 3}, 200)
    assert isinstance(seeds, optuna.pruners.WilcoxonPruner)
    assert (seeds._p_threshold, seeds._n_startup_steps) == (0.05, 3)
    assert isinstance(build_pruner({"name": "none"}, 200), optuna.pruners.NopPruner)


@pytest.mark.parametrize(("name", "asks_at"), [("hyperband", (4, 8, 12)), ("wilcoxon", (0, 1, 2, 3, 4))])
def test_a_hopeless_trial_is_pruned_and_a_better_one_is_not(name, asks_at):
    arguments = {"min_steps": 4, "factor": 3} if name == "hyperband" else {"p_threshold": 0.1, "n_startup_steps": 2}
    study = optuna.create_study(pruner=build_pruner({"name": name, **arguments}, 16))

    def run(trial, loss):
        for step in asks_at:
            trial.report(loss + step / 100, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    for loss in (2.0, 2.1, 2.2, 2.3, 2.4, 2.5):
        study.optimize(lambda trial, loss=loss: run(trial, loss), n_trials=1)
    for loss in (9.0, 9.0, 9.0, 9.0):
        study.optimize(lambda trial, loss=loss: run(trial, loss), n_trials=1)
    hopeless = [trial.state for trial in study.trials[6:]]
    assert TrialState.PRUNED in hopeless
    study.optimize(lambda trial: run(trial, 1.0), n_trials=3)
    assert {trial.state for trial in study.trials[10:]} == {TrialState.COMPLETE}
