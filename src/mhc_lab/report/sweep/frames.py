"""The tables of a sweep in full precision, for other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from mhc_lab.report.stats import PairedGap
from mhc_lab.report.sweep.data import Sweep, SweepTrial
from mhc_lab.report.sweep.importance import Importances
from mhc_lab.report.sweep.marginal import marginal
from mhc_lab.report.sweep.ranking import Ranked, best_of_each, edges, estimate, non_dominated, rank


def trials_frame(sweep: Sweep) -> pd.DataFrame:
    """One line a trial: how it went, its parameters, every objective with the half width of its interval, every metric
    of every seed, and what the pruner was told (JSON)."""
    metrics = dict.fromkeys(metric for trial in sweep.trials for values in trial.by_seed.values() for metric in values)
    seeds = sorted({*sweep.seeds, *(seed for trial in sweep.trials for seed in trial.by_seed)})
    lines = []
    for trial in sweep.trials:
        line: dict[str, Any] = {
            "trial": trial.number,
            "state": "diverged" if trial.diverged else trial.state,
            "reason": trial.reason,
            "enqueued": trial.enqueued,
            "started": trial.started,
            "seconds": trial.seconds,
        }
        line |= {parameter.key: trial.params.get(parameter.key) for parameter in sweep.parameters}
        for number, objective in enumerate(sweep.objectives):
            line[objective.metric] = trial.values[number] if trial.values else math.nan
            found = estimate(sweep, trial, number) if trial.finite else None
            line[f"{objective.metric}_ci95"] = found.half_width if found else None
        for metric in metrics:
            for seed in seeds:
                line[f"{metric}_seed{seed}"] = trial.by_seed.get(seed, {}).get(metric)
        line["intermediate"] = json.dumps(dict(trial.intermediate)) if trial.intermediate else ""
        lines.append(line)
    return pd.DataFrame(lines)


def best_frame(sweep: Sweep) -> pd.DataFrame:
    """Every comparable trial in order, beside the best and the starting point; with `by`, the best of each value."""
    ranking = rank(sweep)
    if ranking is None:
        return pd.DataFrame(columns=["place", "trial"])
    chosen = {trial.number for trial in best_of_each(sweep).values() if trial} if sweep.by else None
    return pd.DataFrame(
        [
            _ranked(sweep, place, one)
            for place, one in enumerate(ranking.trials, start=1)
            if chosen is None or one.trial.number in chosen
        ]
    )


def pareto_frame(sweep: Sweep) -> pd.DataFrame:
    lines = []
    for trial in non_dominated(sweep):
        line: dict[str, Any] = {"trial": trial.number, **_params(sweep, trial)}
        for number, objective in enumerate(sweep.objectives):
            found = estimate(sweep, trial, number)
            line |= {objective.metric: found.mean, f"{objective.metric}_ci95": found.half_width, "seeds": found.n}
        lines.append(line)
    return pd.DataFrame(lines, columns=None if lines else ["trial"])


def importance_frame(every: Iterable[tuple[str, Importances]]) -> pd.DataFrame:
    """One line a metric and parameter."""
    shares = ("fanova", "low", "high", "fanova_chance", "ped_anova", "ped_anova_chance", "trials")
    lines = [
        (metric, one.parameter.key, *(getattr(one, share) for share in shares))
        for metric, found in every
        for one in found.parameters
    ]
    columns = ["metric", "parameter", *(f"fanova_{share}" if share in ("low", "high") else share for share in shares)]
    return pd.DataFrame(lines, columns=columns)


def marginal_frame(sweep: Sweep) -> pd.DataFrame:
    columns = ["metric", "parameter", "value", "trials", "mean", "ci95", "lowest"]
    lines = [
        (
            objective.metric,
            bin.parameter.key,
            bin.text,
            bin.estimate.n,
            bin.estimate.mean,
            bin.estimate.half_width,
            bin.lowest,
        )
        for number, objective in enumerate(sweep.objectives)
        for bin in marginal(sweep, number)
    ]
    return pd.DataFrame(lines, columns=columns)


def _ranked(sweep: Sweep, place: int, one: Ranked) -> dict[str, Any]:
    line: dict[str, Any] = {"place": place, "trial": one.trial.number, **_params(sweep, one.trial)}
    metric = sweep.objectives[0].metric
    line |= {"seeds": one.estimate.n, metric: one.estimate.mean, f"{metric}_ci95": one.estimate.half_width}
    line |= _gap("to_best", one.to_best, one.p_best) | _gap("to_start", one.to_start, one.p_start)
    line["at_edge"] = " ".join(parameter.key for parameter in edges(sweep, one.trial))
    return line


def _gap(name: str, gap: PairedGap | None, p_holm: float | None) -> dict[str, Any]:
    if gap is None:
        return dict.fromkeys((name, f"{name}_ci95", f"{name}_p", f"{name}_p_holm"))
    estimate = gap.estimate
    return {
        name: estimate.mean,
        f"{name}_ci95": estimate.half_width,
        f"{name}_p": gap.p,
        f"{name}_p_holm": p_holm,
    }


def _params(sweep: Sweep, trial: SweepTrial) -> dict[str, Any]:
    return {parameter.key: trial.params.get(parameter.key) for parameter in sweep.parameters}
