"""A sweep file's sampler and pruner as Optuna's, with every argument given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from mhc_lab.study.space import Parameter


class SeededByTrial(BaseSampler):
    """Draws anew for each trial from (seed, trial number): which worker takes a trial does not matter.

    With one worker a sweep so repeats itself exactly; with several, what a sampler has learnt when it proposes depends
    on which trials were finished by then.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._sampler = make(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        drawn = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
        self._sampler = self._make(drawn)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def build_sampler(spec: Mapping[str, Any]) -> BaseSampler:
    """The sampler of a SweepSpec. A grid's points are all enqueued: nothing is left to sample."""
    arguments = {key: value for key, value in spec.items() if key not in ("name", "seed")}
    seed = int(spec["seed"])
    if spec["name"] == "qmc":
        # One sequence for all trials and workers, so one seed.
        return optuna.samplers.QMCSampler(
            seed=seed,
            independent_sampler=optuna.samplers.RandomSampler(seed=seed),
            warn_independent_sampling=False,
            **arguments,
        )
    kinds: dict[str, Callable[..., BaseSampler]] = {
        "tpe": optuna.samplers.TPESampler,
        "gp": optuna.samplers.GPSampler,
        "nsga2": optuna.samplers.NSGAIISampler,
        "grid": optuna.samplers.RandomSampler,
    }
    make = kinds[spec["name"]]
    return SeededByTrial(lambda drawn: make(seed=drawn, **arguments), seed)


def build_pruner(spec: Mapping[str, Any], max_steps: int) -> BasePruner:
    """The pruner of a SweepSpec for runs of `max_steps`."""
    if spec["name"] == "hyperband":
        return HyperbandPruner(
            min_resource=spec["min_steps"], max_resource=max_steps, reduction_factor=spec["factor"], bootstrap_count=0
        )
    if spec["name"] == "wilcoxon":
        return WilcoxonPruner(p_threshold=spec["p_threshold"], n_startup_steps=spec["n_startup_steps"])
    return NopPruner()


def suggest(trial: optuna.Trial, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """A trial's point, one parameter after the other, those that hang on others where these want them."""
    point: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.wanted(point):
            point[parameter.key] = _value(trial, parameter)
    return point


def _value(trial: optuna.Trial, parameter: Parameter) -> Any:
    if parameter.kind == "choices":
        return trial.suggest_categorical(parameter.key, parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    if parameter.kind == "int":
        return trial.suggest_int(parameter.key, int(parameter.low), int(parameter.high), log=parameter.log)
    return trial.suggest_float(parameter.key, parameter.low, parameter.high, log=parameter.log)
