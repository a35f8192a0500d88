"""Which trials are best, and what can be said of that: paired differences, selection, edges of the space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv, ndtri

from mhc_lab.report.stats import ALPHA, MIN_SEEDS, Estimate, PairedGap, holm, mean_interval, paired_gap
from mhc_lab.report.sweep.data import Parameter, Sweep, SweepTrial, value


@dataclass(frozen=True)
class Ranked:
    """A trial beside the best one and the starting point.

    `to_best` and `to_start`: trial minus the other, paired by seed; None for the other itself, or where there is no
    seed in common. `p_best`, `p_start`: Holm-adjusted, over all trials that were tested against the same one.
    """

    trial: SweepTrial
    estimate: Estimate
    to_best: PairedGap | None
    p_best: float | None
    to_start: PairedGap | None
    p_start: float | None


@dataclass(frozen=True)
class Ranking:
    """Comparable trials, the best first. `compared` were tested against the best; of these, `told_apart` differ from
    it (Holm, .05). `optimism`: see `selection`."""

    trials: tuple[Ranked, ...]
    start: SweepTrial | None
    compared: int
    told_apart: int
    optimism: float | None

    @property
    def best(self) -> Ranked:
        return self.trials[0]


def rank(sweep: Sweep) -> Ranking | None:
    """All comparable trials by the first objective; None if there is none.

    Trials share seeds, that is initial weights and batches, so they are compared by their differences within a seed.
    """
    trials = sweep.ranked
    if not trials:
        return None
    metric = sweep.objectives[0].metric
    seeds = {trial.number: trial.seeds(metric) for trial in trials}
    best = trials[0]
    start = sweep.start if sweep.start is not None and sweep.start.finite else None

    def against(other: SweepTrial | None) -> tuple[list[PairedGap | None], list[float | None]]:
        gaps = [
            None if other is None or trial is other else paired_gap(seeds[trial.number], seeds[other.number])
            for trial in trials
        ]
        return gaps, _adjusted(gaps)

    to_best, p_best = against(best)
    to_start, p_start = against(start)
    ranked = tuple(
        Ranked(trial, estimate(sweep, trial), to_best[place], p_best[place], to_start[place], p_start[place])
        for place, trial in enumerate(trials)
    )
    tested = [p for p in p_best if p is not None]
    return Ranking(ranked, start, len(tested), sum(p < ALPHA for p in tested), selection(sweep))


def estimate(sweep: Sweep, trial: SweepTrial, objective: int = 0) -> Estimate:
    """A trial's objective with its interval over the seeds; without one where the runs' own values are not there."""
    values = list(trial.seeds(sweep.objectives[objective].metric).values())
    mean = value(trial, objective)
    return mean_interval(values) if values else Estimate(mean, None, 0, None)


def selection(sweep: Sweep) -> float | None:
    """By how much the lowest of the trials' means would lie below the truth if all of them were equally good.

    Units of the first objective. The expected minimum of m standard normals (Blom's approximation) times the standard
    error of a trial's mean, seeds in common taken out; the median trial's, since bad ones scatter most. None with
    fewer than 3 trials that have the same 3 or more seeds.
    Source: Blom (1958), Statistical estimates and transformed beta-variables.
    """
    metric = sweep.objectives[0].metric
    rows = [trial.seeds(metric) for trial in sweep.finite]
    common = sorted(set.intersection(*map(set, rows))) if rows else []
    if len(rows) < 3 or len(common) < MIN_SEEDS:
        return None
    losses = np.array([[row[seed] for seed in common] for row in rows])
    centred = losses - losses.mean(axis=1, keepdims=True)
    apart = centred - np.median(centred, axis=0)
    freedom = len(common) - 1
    of_median = 2 * float(gammaincinv(freedom / 2, 0.5)) / freedom  # the median of chi-squared over its mean
    variance = float(np.median(np.var(apart, axis=1, ddof=1))) / of_median
    error = math.sqrt(variance / len(common))
    return float(ndtri((len(rows) - 0.375) / (len(rows) + 0.25))) * error


def edges(sweep: Sweep, trial: SweepTrial) -> list[Parameter]:
    """The parameters whose value lies at an end of the space."""
    return [p for p in sweep.parameters if p.key in trial.params and p.at_edge(trial.params[p.key])]


def best_of_each(sweep: Sweep) -> dict[object, SweepTrial | None]:
    """The best trial of each value of `sweep.by`, in the order of its choices; None where no trial is comparable."""
    assert sweep.by
    return {
        choice: next((trial for trial in sweep.ranked if trial.params.get(sweep.by) == choice), None)
        for choice in sweep.parameter(sweep.by).choices
    }


def non_dominated(sweep: Sweep) -> list[SweepTrial]:
    """The trials that no other beats in one objective without losing in another, by the first objective.

    Of trials with the same values the first is kept.
    """
    front: list[SweepTrial] = []
    for trial in sorted(sweep.finite, key=lambda trial: (trial.values, trial.number)):
        values = trial.values or ()
        # Sorted: whatever could dominate a trial came before it.
        if not any(all(a <= b for a, b in zip(other.values or (), values, strict=True)) for other in front):
            front.append(trial)
    return front


def _adjusted(gaps: Sequence[PairedGap | None]) -> list[float | None]:
    tested = [place for place, gap in enumerate(gaps) if gap is not None and gap.p is not None]
    adjusted: list[float | None] = [None] * len(gaps)
    p_values = [gap.p for gap in gaps if gap is not None and gap.p is not None]
    for place, p in zip(tested, holm(p_values), strict=True):
        adjusted[place] = p
    return adjusted
