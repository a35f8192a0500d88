"""Statistics of a comparison: intervals, tests, equivalence, the noise floor, and how many seeds a gap needs.

Runs with the same seed share initial weights and batches, so rows are compared by the differences within a
seed; what the seeds have in common cancels. The t interval is the one that keeps its coverage with few seeds. A
bootstrap and a permutation test, which assume less, join it where they have enough seeds to say something.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# scipy.stats would take longer to import than an export runs. stdtr is Student's t, ndtr the normal distribution.
from scipy.special import nctdtr, ndtr, ndtri, stdtr, stdtrit

Array = npt.NDArray[np.float64]

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
ROUNDING = 1e-6  # of fp32 runs on losses of order 1
MIN_SEEDS = 3  # with two, t = 12.7: an interval that says nothing
MIN_SIGN_FLIP_SEEDS = 6  # with five, the smallest p there is, 2 / 2^5, is above .05
MIN_BCA_SEEDS = 10  # at 5 seeds its 95 % interval holds the truth 84 times in 100: results/statistics
MAX_SEEDS_NEEDED = 10_000
RESAMPLES = 9_999
_EXACT_SEEDS = 16  # up to here all sign flips are enumerated


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds.

    `half_width` is that of its 95 % interval, `sd` the standard deviation over seeds; None with fewer than 3 seeds.
    """

    mean: float
    half_width: float | None
    n: int
    sd: float | None


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


@dataclass(frozen=True)
class Equivalence:
    """Differences against a `margin` (in units of the loss) that was named before looking at them.

    `p_equivalent` small: the true gap lies within -margin and +margin. `p_no_worse` small: it lies below +margin
    (a lower loss is better). p-values as they are, not adjusted for the number of rows.
    """

    margin: float
    p_equivalent: float
    p_no_worse: float


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean and half width of its 95 % t interval, t(n - 1) s / sqrt(n).

    Source: Student (1908), The probable error of a mean; any text on the one-sample t interval.
    """
    sample = _sample(values)
    n, mean = len(sample), float(np.mean(sample))
    if n < MIN_SEEDS:
        return Estimate(mean, None, n, None)
    sd = float(np.std(sample, ddof=1))
    return Estimate(mean, _t_factor(n) * sd, n, sd)


def band(differences: npt.ArrayLike) -> tuple[Array, Array | None]:
    """`mean_interval` at every point of curves: differences [seeds, points] -> mean [points], half width [points].

    The half width is None with fewer than 3 seeds. Each point has its own 95 % interval: the whole true curve
    lies within the band less often than that.
    """
    sample = _sample(differences)
    assert sample.ndim == 2, "curves [seeds, points]"
    n = len(sample)
    mean: Array = np.mean(sample, axis=0)
    return mean, None if n < MIN_SEEDS else _t_factor(n) * np.std(sample, axis=0, ddof=1)


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
    constant = len(differences) > 1 and _constant(differences)
    if constant or estimate.sd is None:
        return PairedGap(estimate, None, constant)
    t = estimate.mean / (estimate.sd / math.sqrt(estimate.n))
    return PairedGap(estimate, 2 * float(stdtr(estimate.n - 1, -abs(t))), constant)


def bca_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Lower and upper end of the BCa bootstrap interval of the mean: percentiles, corrected for bias and skewness.

    None with fewer than 10 values, or where they have no variance. At 10 it is still somewhat short, about a 90 %
    interval on normal values (results/statistics): it joins the t interval, it does not replace it. The same values
    give the same interval: the 9,999 resamples are drawn from a fixed state.
    Source: Efron (1987), Better bootstrap confidence intervals, JASA 82, 171-185; Efron and Tibshirani (1993),
    An introduction to the bootstrap, ch. 14 (Eq. 14.9, 14.10, 14.14, 14.15).
    """
    sample = _sample(values)
    return None if len(sample) < MIN_BCA_SEEDS or _constant(sample) else _bca(sample, level)


def sign_flip(values: Sequence[float]) -> float | None:
    """Two-sided p-value of the mean against zero, by flipping signs: differences as likely to be d as -d.

    The share of flips whose |sum| is at least the one seen. All 2^n flips up to 16 values, which makes 2 / 2^n
    the smallest p; beyond that 9,999 random ones from a fixed state, and the one seen is counted among them.
    None with fewer than 6 values, or where they have no variance.
    Source: Fisher (1935), The design of experiments, sec. 21; Pitman (1937), Suppl. J. R. Statist. Soc. 4, 119-130;
    Phipson and Smyth (2010), Permutation p-values should never be zero, Stat. Appl. Genet. Mol. Biol. 9, 39.
    """
    sample = _sample(values)
    n = len(sample)
    if n < MIN_SIGN_FLIP_SEEDS or _constant(sample):
        return None
    # Flips that tie with the one seen differ from it by rounding; they count.
    seen = abs(np.sum(sample)) - 1e-9 * np.sum(np.abs(sample))
    extreme = int(np.count_nonzero(np.abs(_signs(n) @ sample) >= seen))
    return extreme / len(_signs(n)) if n <= _EXACT_SEEDS else (extreme + 1) / (RESAMPLES + 1)


def equivalence(differences: Sequence[float], margin: float) -> Equivalence | None:
    """Whether a row is as good as the baseline, to a margin: paired differences by seed -> p-values.

    `p_no_worse` is that of the one-sided t test of "the gap is +margin or more"; `p_equivalent` the larger of it
    and of the one of "-margin or less" (two one-sided tests). None with fewer than 3 seeds. Differences without
    variance leave nothing to test: p is 0 where they lie within the margin by more than rounding, else 1.
    Source: Schuirmann (1987), A comparison of the two one-sided tests procedure and the power approach, J.
    Pharmacokinet. Biopharm. 15, 657-680.
    """
    assert margin > 0, "a margin is a positive difference of losses"
    estimate = mean_interval(differences)
    if estimate.sd is None:
        return None
    room_above, room_below = margin - estimate.mean, margin + estimate.mean
    if _constant(differences):
        above, below = (float(room <= ROUNDING) for room in (room_above, room_below))
    else:
        error = estimate.sd / math.sqrt(estimate.n)
        above, below = (float(stdtr(estimate.n - 1, -room / error)) for room in (room_above, room_below))
    return Equivalence(margin, max(above, below), above)


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


def seeds_needed(gap: float, sd: float, tests: int = 1, power: float = POWER) -> int | None:
    """The fewest seeds, 3 or more, that find a true gap with probability `power`.

    `sd` is the standard deviation of the paired differences, in the units of `gap`; `tests` the number of rows
    that Holm's adjustment runs over: a two-sided paired t test at .05 / tests, its strictest step. None for a gap of
    zero, or if it takes more than 10,000. An sd from few seeds is itself uncertain, and the answer goes with its
    square.
    Source: Cohen (1988), Statistical power analysis for the behavioral sciences, ch. 2; noncentral t.
    """
    assert sd >= 0 and tests >= 1 and 0 < power < 1, "sd >= 0, at least one test, power between 0 and 1"
    if gap == 0:
        return None
    if sd == 0:
        return MIN_SEEDS
    counts = range(MIN_SEEDS, MAX_SEEDS_NEEDED + 1)
    found = bisect_left(counts, power, key=lambda n: _power(n, abs(gap) / sd, ALPHA / tests))
    return counts[found] if found < len(counts) else None


def _power(n: int, effect: float, alpha: float) -> float:
    """Probability that a two-sided t test of n values at level alpha rejects, the mean being `effect` sd from 0."""
    critical, shift = float(stdtrit(n - 1, 1 - alpha / 2)), math.sqrt(n) * effect
    right, wrong = 1 - float(nctdtr(n - 1, shift, critical)), float(nctdtr(n - 1, shift, -critical))
    # nctdtr gives NaN in far tails. The wrong side is nil there; the right side is the normal's, next to certain.
    return (float(ndtr(shift - critical)) if math.isnan(right) else right) + (0.0 if math.isnan(wrong) else wrong)


def _bca(sample: Array, level: float) -> tuple[float, float]:
    """`bca_interval` for any number of values that are not all alike."""
    mean = float(np.mean(sample))
    centred = sample - mean
    resampled = _resamples(len(sample)) @ centred
    tie = 1e-9 * float(np.max(np.abs(centred)))
    below = (np.count_nonzero(resampled < -tie) + np.count_nonzero(resampled <= tie)) / (2 * RESAMPLES)
    # Clipped, so that resamples all on one side leave the bias correction finite.
    bias = float(ndtri(min(max(below, 1 / (RESAMPLES + 1)), RESAMPLES / (RESAMPLES + 1))))
    acceleration = float(np.sum(centred**3) / (6 * np.sum(centred**2) ** 1.5))  # the jackknife's, for a mean
    shifted = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    # Past its pole the corrected percentile is the outermost one.
    percentiles = ndtr(bias + shifted / np.maximum(1 - acceleration * shifted, 1e-9))
    low, high = np.quantile(resampled, percentiles)
    return mean + float(low), mean + float(high)


@lru_cache(maxsize=4)
def _resamples(n: int) -> Array:
    """Weights [RESAMPLES, n] that make means of resamples out of n values."""
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return counts.astype(np.float64) / n


@lru_cache(maxsize=4)
def _signs(n: int) -> Array:
    """Flips [flips, n] of +1 and -1: random ones, or all up to their mirror images, whose |sum| is the same."""
    if n > _EXACT_SEEDS:
        return np.random.default_rng(0).choice([-1.0, 1.0], size=(RESAMPLES, n))
    negative = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
    return 1.0 - 2.0 * negative.astype(np.float64)


def _sample(values: npt.ArrayLike) -> Array:
    sample = np.asarray(values, dtype=np.float64)
    assert len(sample) > 0, "a mean of nothing"
    assert np.isfinite(sample).all(), "a NaN or an infinity among the values"
    return sample


def _constant(values: npt.ArrayLike) -> bool:
    return float(np.ptp(values)) <= ROUNDING


def _t_factor(n: int) -> float:
    """Standard deviations of n values -> half width of the 95 % t interval of their mean."""
    return float(stdtrit(n - 1, (1 + LEVEL) / 2)) / math.sqrt(n)
