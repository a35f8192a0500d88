"""How much each parameter matters: fANOVA and PED-ANOVA over the trials, on the scales that were searched."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mhc_lab.report.sweep.data import Parameter, Sweep, SweepTrial, count, value

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

MIN_TRIALS = 8
FORESTS = (0, 1, 2, 3, 4)  # their seeds
SHUFFLES = 20  # of the objective among the trials: what importances come to where nothing matters
_TREES, _TREES_SHUFFLED = 32, 16
_TOP, _TOP_TRIALS = 0.1, 5  # PED-ANOVA: the best tenth, but at least so many trials
_MOST_TRIALS = 200  # that a forest sees: its cost grows faster than they do


@dataclass(frozen=True)
class Importance:
    """Of one parameter. `fanova`: share of the variance over the space that it explains alone, mean over the forests,
    `low` and `high` the lowest and highest of them. `ped_anova`: share among the parameters of what sets the best
    trials apart. `fanova_chance`, `ped_anova_chance`: what all but one of SHUFFLES shufflings of the objective stay
    below. `trials` entered."""

    parameter: Parameter
    fanova: float
    low: float
    high: float
    fanova_chance: float
    ped_anova: float
    ped_anova_chance: float
    trials: int


@dataclass(frozen=True)
class Importances:
    """The parameters, the most important first, or `none`: why there are no numbers. `left_out` has a sentence for
    every parameter without any; `top`: how many trials PED-ANOVA took as the best."""

    parameters: tuple[Importance, ...]
    left_out: tuple[str, ...]
    none: str = ""
    top: int = 0
    seen: int = 0


def importances(sweep: Sweep, objective: int = 0) -> Importances:
    """Of the comparable trials: complete and finite. A parameter that is asked for only under a condition is judged
    on the trials that have it, beside the parameters that these all have.

    Sources: Hutter et al. (2014), An efficient approach for assessing hyperparameter importance, ICML; Watanabe et al.
    (2023), PED-ANOVA, arXiv 2304.10255; both as Optuna implements them.
    """
    trials, text = sweep.finite, sweep.objectives[objective].name
    if len(trials) < MIN_TRIALS:
        return Importances(
            (), (), f"{count(len(trials), 'comparable trial')} with a finite {text}; it takes {MIN_TRIALS}"
        )
    if np.ptp([value(trial, objective) for trial in trials]) == 0:
        return Importances((), (), f"the {text} is the same in every trial")
    found: list[Importance] = []
    left_out: list[str] = []
    groups: dict[tuple[int, ...], list[Parameter]] = {}
    for parameter in sweep.parameters:
        having = [trial for trial in trials if parameter.key in trial.params]
        name = sweep.names[parameter.key]
        if not having:
            left_out.append(f"{name}: no comparable trial has it")
        elif len({trial.params[parameter.key] for trial in having}) == 1:
            left_out.append(f"{name}: it never varied ({having[0].params[parameter.key]})")
        elif len(having) < MIN_TRIALS:
            left_out.append(f"{name}: {count(len(having), 'comparable trial')} with it; it takes {MIN_TRIALS}")
        else:
            groups.setdefault(tuple(trial.number for trial in having), []).append(parameter)
    top = 0
    for numbers, parameters in groups.items():
        members = set(numbers)
        having = [trial for trial in trials if trial.number in members]
        judged, top_here = _judge(sweep, having, objective)
        if np.ptp([value(trial, objective) for trial in having]) == 0:
            left_out += [f"{sweep.names[p.key]}: the {text} is the same wherever it is asked for" for p in parameters]
            continue
        top = max(top, top_here)
        found += [judged[parameter.key] for parameter in parameters]
    none = "" if found else "no parameter has enough trials: " + "; ".join(left_out)
    found.sort(key=lambda one: -one.fanova)
    return Importances(tuple(found), tuple(left_out), none, top, min(len(trials), _MOST_TRIALS))


def _judge(sweep: Sweep, trials: Sequence[SweepTrial], objective: int) -> tuple[dict[str, Importance], int]:
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

    varied = [
        parameter
        for parameter in sweep.parameters
        if all(parameter.key in trial.params for trial in trials)
        and len({trial.params[parameter.key] for trial in trials}) > 1
    ]
    if np.ptp([value(trial, objective) for trial in trials]) == 0:
        return {}, 0
    top = max(math.ceil(_TOP * len(trials)), min(_TOP_TRIALS, len(trials) // 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's words for experimental parts
        few = _thinned(trials)
        best = PedAnovaImportanceEvaluator(target_quantile=top / len(trials))

        def forest(values: Sequence[float], trees: int, seed: int) -> dict[str, float]:
            return FanovaImportanceEvaluator(n_trees=trees, seed=seed).evaluate(_study(varied, few, values))

        def apart(values: Sequence[float]) -> dict[str, float]:
            found = best.evaluate(_study(varied, trials, values))
            return {key: share / (sum(found.values()) or 1.0) for key, share in found.items()}

        forests = [forest([value(trial, objective) for trial in few], _TREES, seed) for seed in FORESTS]
        values = [value(trial, objective) for trial in trials]
        ped = apart(values)
        generator = np.random.default_rng(0)
        shuffled = [generator.permutation(values).tolist() for _ in range(SHUFFLES)]
        by_chance = [forest(given[: len(few)], _TREES_SHUFFLED, seed) for seed, given in enumerate(shuffled)]
        ped_by_chance = [apart(given) for given in shuffled]
    result = {}
    for parameter in varied:
        key = parameter.key
        shares = [found[key] for found in forests]
        result[key] = Importance(
            parameter,
            float(np.mean(shares)),
            float(min(shares)),
            float(max(shares)),
            sorted(found[key] for found in by_chance)[-2],
            ped[key],
            sorted(found[key] for found in ped_by_chance)[-2],
            len(trials),
        )
    return result, top


def _thinned(trials: Sequence[SweepTrial]) -> Sequence[SweepTrial]:
    """Evenly over the search, so that early (exploring) and late trials are both in."""
    if len(trials) <= _MOST_TRIALS:
        return trials
    places = np.linspace(0, len(trials) - 1, _MOST_TRIALS).round().astype(int)
    return [trials[place] for place in places]


def _study(parameters: Sequence[Parameter], trials: Sequence[SweepTrial], values: Sequence[float]) -> Study:
    """The trials, worth `values`, as an Optuna study in memory.

    Optuna's fANOVA averages over the linear range whatever the scale searched: a log parameter's upper decade would
    be nearly all of it. So a log range is handed over as its logarithm.
    """
    import optuna

    distributions = {parameter.key: _distribution(parameter) for parameter in parameters}
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    try:
        study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    finally:
        optuna.logging.set_verbosity(said)
    study.add_trials(
        optuna.trial.create_trial(
            params={parameter.key: _handed(parameter, trial.params[parameter.key]) for parameter in parameters},
            distributions=distributions,
            value=worth,
        )
        for trial, worth in zip(trials, values, strict=True)
    )
    return study


def _handed(parameter: Parameter, given: Any) -> Any:
    return math.log(given) if parameter.log else given


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == "choices":
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    if parameter.log:
        return FloatDistribution(math.log(parameter.low), math.log(parameter.high))
    if parameter.kind == "int":
        return IntDistribution(int(parameter.low), int(parameter.high))
    return FloatDistribution(parameter.low, parameter.high)
