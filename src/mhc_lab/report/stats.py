"""Statistics of a comparison: t intervals, paired differences by seed, Holm's adjustment, the noise floor.

Runs with the same seed share initial weights and batches, so rows are compared by the differences within a
seed; what the seeds have in common cancels. With few seeds the t interval keeps its coverage where a
percentile bootstrap does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats would take longer to import than an export runs

LEVEL = 0.95
ALPHA = 0.05
MIN_SEEDS = 3  # with two, t = 12.7: an interval that says nothing


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds; `half_width` is that of its 95 % interval, None with fewer than 3 seeds."""

    mean: float
    half_width: float | None
    n: int


@dataclass(frozen=True)
class PairedGap:
    """Row minus baseline on the seeds that both have.

    `p` is the two-sided p-value of the paired t test. It is None where there is nothing to test: fewer than 3
    seeds, or differences without any variance (`constant`).
    """

    estimate: Estimate
    p: float | None
    constant: bool

    @property
    def identical(self) -> bool:
        """Whether the row is the baseline, seed by seed."""
        return self.constant and abs(self.estimate.mean) <= ROUNDING


ROUNDING = 1e-6  # of fp32 runs on losses of order 1


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean and half width of its 95 % t interval, t(n - 1) s / sqrt(n).

    Source: Student (1908), The probable error of a mean; any text on the one-sample t interval.
    """
    n = len(values)
    assert n > 0, "a mean of nothing"
    mean = float(np.mean(values))
    if n < MIN_SEEDS:
        return Estimate(mean, None, n)
    return Estimate(mean, float(stdtrit(n - 1, (1 + LEVEL) / 2)) * _standard_error(values), n)


def paired_differences(row: Mapping[int, float], baseline: Mapping[int, float]) -> dict[int, float]:
    """Row minus baseline for every seed that both have, in order of the seeds."""
    return {seed: row[seed] - baseline[seed] for seed in sorted(row.keys() & baseline.keys())}


def paired_gap(row: Mapping[int, float], baseline: Mapping[int, float]) -> PairedGap | None:
    """The mean difference by seed with its paired t interval and p-value; None if no seed is in both.

    Both arguments map seeds to values. Source: the t interval and test of `mean_interval` on the differences.
    """
    differences = list(paired_differences(row, baseline).values())
    if not differences:
        return None
    estimate = mean_interval(differences)
    constant = len(differences) > 1 and float(np.ptp(differences)) <= ROUNDING
    if constant or estimate.half_width is None:
        return PairedGap(estimate, None, constant)
    t = estimate.mean / _standard_error(differences)
    return PairedGap(estimate, 2 * float(stdtr(estimate.n - 1, -abs(t))), constant)


def holm(p_values: Sequence[float]) -> list[float]:
    """Step-down adjusted p-values, in the order given; rejecting adjusted p < .05 keeps the family-wise error.

    The i-th smallest of m is multiplied by m - i + 1, made monotone, and cut at 1.
    Source: Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6, 65-70.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return [float(value) for value in adjusted]


def noise_floor(control: Mapping[int, float], baseline: Mapping[int, float]) -> float | None:
    """The largest |control - baseline| over the seeds that both have; None if there is no such seed.

    The control arm is the baseline with another initialisation key and data order: what two runs of the very
    same design differ by.
    """
    return max((abs(d) for d in paired_differences(control, baseline).values()), default=None)


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
