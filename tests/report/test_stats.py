"""Hand-worked cases, and scipy.stats as the judge."""

from __future__ import annotations

import warnings
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from mhc_lab.report import stats

BASELINE = {0: 2.50, 1: 2.52, 2: 2.49, 3: 2.51, 4: 2.53}


def test_interval_of_a_mean_by_hand() -> None:
    # 1 2 3 4 5: mean 3, s = sqrt(2.5), t(4) = 2.7764, half width = 2.7764 * 1.5811 / 2.2361
    estimate = stats.mean_interval([1, 2, 3, 4, 5])
    assert (estimate.mean, estimate.n) == (3, 5)
    assert estimate.half_width == pytest.approx(1.9632, abs=1e-4)


def test_paired_gap_by_hand() -> None:
    # differences -.1 -.2 -.3: mean -.2, s = .1, t(2) = 4.3027, half width .2484, t = -3.4641
    gap = stats.paired_gap({0: 0.9, 1: 0.8, 2: 0.7}, {0: 1.0, 1: 1.0, 2: 1.0})
    assert gap is not None
    assert gap.p is not None
    assert gap.estimate.mean == pytest.approx(-0.2)
    assert gap.estimate.half_width == pytest.approx(0.24841, abs=1e-5)
    assert gap.p == pytest.approx(0.07418, abs=1e-5)
    assert not gap.constant
    assert not gap.identical


def test_paired_gap_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for n in (3, 5, 10):
        baseline = dict(enumerate(rng.normal(2.5, 0.1, n)))
        row = {seed: loss + rng.normal(-0.05, 0.05) for seed, loss in baseline.items()}
        gap = stats.paired_gap(row, baseline)
        judge = scipy.stats.ttest_rel(list(row.values()), list(baseline.values()))
        low, high = judge.confidence_interval(0.95)
        assert gap is not None
        assert gap.estimate.half_width is not None
        assert gap.p == pytest.approx(judge.pvalue, rel=1e-9)
        assert gap.estimate.mean - gap.estimate.half_width == pytest.approx(low, rel=1e-9)
        assert gap.estimate.mean + gap.estimate.half_width == pytest.approx(high, rel=1e-9)


def test_only_seeds_that_both_have_are_paired() -> None:
    gap = stats.paired_gap({4: 2.43, 2: 2.39, 1: 2.42, 9: 0.0}, BASELINE)
    assert gap is not None
    assert gap.estimate.n == 3
    assert gap.estimate.mean == pytest.approx(-0.1)
    assert stats.paired_gap({9: 2.0}, BASELINE) is None


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval(seeds: int) -> None:
    gap = stats.paired_gap({seed: 2.0 + seed for seed in range(seeds)}, BASELINE)
    assert gap is not None
    assert (gap.estimate.half_width, gap.p) == (None, None)
    estimate = stats.mean_interval([1.0, 2.0][:seeds])
    assert (estimate.half_width, estimate.sd) == (None, None)
    assert stats.equivalence([1.0, 2.0][:seeds], 0.1) is None
    assert stats.band(np.ones((seeds, 4)))[1] is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    values = [*range(11), bad]
    for refuses in (stats.mean_interval, stats.bca_interval, stats.sign_flip, lambda v: stats.band([v, v, v])):
        with pytest.raises(AssertionError, match="NaN or an infinity"):
            refuses(values)


@pytest.mark.parametrize(("shift", "identical"), [(0.0, True), (0.1, False)])
def test_differences_without_variance_are_not_tested(shift: float, identical: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gap = stats.paired_gap({seed: loss + shift for seed, loss in BASELINE.items()}, BASELINE)
    assert gap is not None
    assert gap.p is None
    assert gap.constant
    assert gap.identical is identical


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04; the last is raised to .06
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_noise_floor_is_the_largest_distance_of_the_control() -> None:
    control = {0: 2.53, 1: 2.48, 2: 2.50}
    assert stats.noise_floor(control, BASELINE) == pytest.approx(0.04)
    assert stats.noise_floor({7: 1.0}, BASELINE) is None


def test_band_is_the_interval_of_every_point() -> None:
    curves = np.random.default_rng(1).normal(size=(5, 7))
    mean, half_width = stats.band(curves)
    assert half_width is not None
    assert (mean.shape, half_width.shape) == ((7,), (7,))
    for point in range(7):
        estimate = stats.mean_interval(curves[:, point].tolist())
        assert mean[point] == pytest.approx(estimate.mean, rel=1e-12)
        assert half_width[point] == pytest.approx(estimate.half_width, rel=1e-12)


@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize("n", [10, 11, 25])
def test_bca_agrees_with_scipy_on_the_same_resamples(n: int, level: float) -> None:
    values = np.random.default_rng(n).lognormal(size=n)
    means = stats._resamples(n) @ values
    means[np.isclose(means, values.mean(), rtol=1e-12, atol=0)] = values.mean()  # ties that rounding takes apart
    resampled = SimpleNamespace(bootstrap_distribution=means)
    judge = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=level, method="BCa", n_resamples=0, bootstrap_result=resampled
    )
    assert stats.bca_interval(values.tolist(), level) == pytest.approx(tuple(judge.confidence_interval), rel=1e-9)


def test_bca_agrees_with_scipy_on_other_resamples() -> None:
    values = np.random.default_rng(3).exponential(size=12)
    judged = scipy.stats.bootstrap((values,), np.mean, method="BCa", n_resamples=50_000, rng=np.random.default_rng(4))
    judge = judged.confidence_interval
    # The ends of 9,999 resamples are uncertain by about 2 % of the interval's length.
    assert stats.bca_interval(values.tolist()) == pytest.approx(tuple(judge), abs=0.05 * (judge.high - judge.low))


def test_bca_by_hand() -> None:
    # Symmetric values: neither bias nor skewness, so the percentile interval, symmetric about the mean 0. The mean of
    # ten draws of +1 and -1 is 2 k / 10 - 1 with k binomial(10, .5): P(k <= 1) = .011, P(k <= 2) = .055.
    interval = stats.bca_interval([1.0, -1.0] * 5)
    assert interval == pytest.approx((-0.6, 0.6))
    # A long right tail moves both ends to the right of the percentile interval's.
    tailed = [0.0] * 9 + [1.0, 0.5, 0.1]
    low, high = stats.bca_interval(tailed)
    plain = np.quantile(stats._resamples(12) @ tailed, [0.025, 0.975])
    assert low > plain[0]
    assert high > plain[1]


def test_few_or_constant_values_have_neither_bca_nor_sign_flips() -> None:
    for values in (range(9), [0.1] * 12):
        assert stats.bca_interval(list(values)) is None
    for values in (range(5), [0.1] * 8, [0.0] * 20):
        assert stats.sign_flip(list(values)) is None


def test_bca_is_repeatable_and_within_the_values() -> None:
    values = np.random.default_rng(5).normal(size=10).tolist()
    assert stats.bca_interval(values) == stats.bca_interval(values)
    low, high = stats.bca_interval([0.0] * 9 + [1.0])
    assert -1e-12 < low < 0.1 < high < 1


def test_bca_with_all_resamples_on_one_side(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(10.0)
    for weights, side in ((np.eye(10)[9], 9.0), (np.eye(10)[0], 0.0)):
        monkeypatch.setattr(stats, "_resamples", lambda _, weights=weights: np.tile(weights, (stats.RESAMPLES, 1)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for level in (0.95, 0.9999):
                assert stats.bca_interval(values, level) == pytest.approx((side, side))


def test_bca_past_the_pole_of_its_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    # Resamples all below the mean and a long tail: 1 - a (z0 + z) is negative for z at 99.99 %.
    values = [0.0] * 50 + [0.001] * 49 + [1.0]
    weights = np.eye(100)[np.arange(stats.RESAMPLES) % 99]
    monkeypatch.setattr(stats, "_resamples", lambda _: weights)
    assert stats.bca_interval(values, 0.9999) == pytest.approx((0.001, 0.001))


def test_sign_flip_by_hand() -> None:
    # Of the 64 flips of 1..6, only all + and all - reach 21. With 1 negative the sum is 19: it, all +, and mirrors.
    assert stats.sign_flip([1, 2, 3, 4, 5, 6]) == 2 / 64
    assert stats.sign_flip([-1, 2, 3, 4, 5, 6]) == 4 / 64
    # Ties in decimals that floating point takes apart: 0.1 + 0.2 against 0.3, all 64 sums at least 0 in size.
    assert stats.sign_flip([0.1, 0.2, -0.3, 0.1, 0.2, -0.3]) == 1.0
    # Five + of six alike: |sum| >= 4 for 0, 1, 5 or 6 minus signs, 1 + 6 + 6 + 1 flips.
    assert stats.sign_flip([0.1, 0.1, 0.1, 0.1, 0.1, -0.1]) == 14 / 64


@pytest.mark.parametrize("n", [6, 9, 12])
def test_sign_flip_agrees_with_enumeration_and_scipy(n: int) -> None:
    values = np.random.default_rng(n).normal(0.4, 1, n)
    sums = [abs(np.dot(signs, values)) for signs in product((1, -1), repeat=n)]
    p = stats.sign_flip(values.tolist())
    assert p == np.mean(np.array(sums) >= abs(values.sum()) * (1 - 1e-12))
    judge = scipy.stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert p == pytest.approx(judge.pvalue, rel=1e-12)


def test_sign_flip_beyond_enumeration_is_near_it_and_never_zero() -> None:
    values = np.random.default_rng(6).normal(0.4, 1, 17)
    exact = np.mean([abs(np.dot(s, values)) >= abs(values.sum()) * (1 - 1e-12) for s in product((1, -1), repeat=17)])
    p = stats.sign_flip(values.tolist())
    assert 0.01 < exact < 0.5
    assert p == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / stats.RESAMPLES))
    assert stats.sign_flip(values.tolist()) == p
    assert stats.sign_flip([1.0 + 0.01 * value for value in range(40)]) == 1 / (stats.RESAMPLES + 1)


def test_equivalence_by_hand() -> None:
    # .01 .02 .03: mean .02, standard error .01 / sqrt(3). To +.05: t(2) = -5.196, p .01755; to -.05: t = 12.12, .00337
    found = stats.equivalence([0.01, 0.02, 0.03], 0.05)
    assert found is not None
    assert found.margin == 0.05
    assert found.p_no_worse == pytest.approx(0.01755, abs=1e-5)
    assert found.p_equivalent == found.p_no_worse
    # Better by far than the margin: no worse for sure, and not equivalent.
    better = stats.equivalence([-0.11, -0.12, -0.13], 0.05)
    assert better is not None
    assert better.p_no_worse < 0.001
    assert better.p_equivalent > 0.99


def test_equivalence_agrees_with_scipy() -> None:
    rng = np.random.default_rng(7)
    for n, mean in ((3, 0.0), (5, -0.02), (10, 0.02)):
        differences = rng.normal(mean, 0.03, n)
        found = stats.equivalence(differences.tolist(), 0.04)
        above = scipy.stats.ttest_1samp(differences, 0.04, alternative="less").pvalue
        below = scipy.stats.ttest_1samp(differences, -0.04, alternative="greater").pvalue
        assert found is not None
        assert found.p_no_worse == pytest.approx(above, rel=1e-9)
        assert found.p_equivalent == pytest.approx(max(above, below), rel=1e-9)


@pytest.mark.parametrize(
    ("gap", "equivalent", "no_worse"),
    [(0.0, 0, 0), (0.049, 0, 0), (-0.049, 0, 0), (0.05, 1, 1), (-0.05, 1, 0), (0.06, 1, 1), (-0.06, 1, 0)],
)
def test_equivalence_without_variance_is_decided(gap: float, equivalent: float, no_worse: float) -> None:
    row = {seed: loss + gap for seed, loss in BASELINE.items()}
    found = stats.equivalence(list(stats.paired_differences(row, BASELINE).values()), 0.05)
    assert found == stats.Equivalence(0.05, equivalent, no_worse)


def test_a_margin_is_positive() -> None:
    for margin in (0.0, -0.1, float("nan")):
        with pytest.raises(AssertionError, match="margin"):
            stats.equivalence([0.1, 0.2, 0.3], margin)


def test_seeds_needed_by_the_book() -> None:
    # Cohen's tables and G*Power, paired two-sided t at .05 with power .8: effects 1, .8, .5 and .2 take these.
    assert [stats.seeds_needed(effect, 1.0) for effect in (1.0, 0.8, 0.5, 0.2)] == [10, 15, 34, 199]
    assert stats.seeds_needed(-0.02, 0.04) == stats.seeds_needed(0.5, 1.0)


@pytest.mark.parametrize("tests", [1, 8])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("effect", [0.05, 0.4, 1.3, 3.0])
def test_seeds_needed_are_the_fewest(effect: float, power: float, tests: int) -> None:
    # Power as an integral over s^2, which scipy's noncentral t agrees with where it is a number.
    quantiles = (np.arange(20_000) + 0.5) / 20_000

    def judge(n: int) -> float:
        critical, shift = scipy.stats.t.isf(0.025 / tests, n - 1), np.sqrt(n) * effect
        needed = critical * np.sqrt(scipy.stats.chi2.ppf(quantiles, n - 1) / (n - 1))
        found = np.mean(scipy.stats.norm.sf(needed - shift) + scipy.stats.norm.cdf(-needed - shift))
        nct = scipy.stats.nct(n - 1, shift)
        assert np.isnan(nct.cdf(-critical)) or found == pytest.approx(nct.sf(critical) + nct.cdf(-critical), abs=1e-4)
        return float(found)

    n = stats.seeds_needed(0.1 * effect, 0.1, tests, power)
    assert n is not None
    assert judge(n) >= power
    assert n == stats.MIN_SEEDS or judge(n - 1) < power


def test_seeds_needed_at_the_ends() -> None:
    assert stats.seeds_needed(0.0, 0.1) is stats.seeds_needed(0.0, 0.0) is None
    assert stats.seeds_needed(0.1, 0.0) == stats.MIN_SEEDS
    assert stats.seeds_needed(1e6, 0.1) == stats.MIN_SEEDS  # where the noncentral t gives NaN
    assert stats.seeds_needed(1e-6, 1.0) is None
    # (1.96 + .84)^2 / effect^2 = 10,000 at an effect of .028
    nearly = stats.seeds_needed(0.0281, 1.0)
    assert nearly is not None
    assert 9_900 < nearly <= stats.MAX_SEEDS_NEEDED
    assert stats.seeds_needed(0.0279, 1.0) is None


def test_power_grows_with_seeds_where_the_noncentral_t_gives_out() -> None:
    for effect, alpha in product((0.03, 0.3, 1.0, 3.0, 30.0), (0.05, 0.05 / 8, 0.05 / 1000)):
        power = [stats._power(n, effect, alpha) for n in (3, 4, 5, 8, 16, 32, 64, 256, 1024, 10_000)]
        assert np.isfinite(power).all()
        assert np.min(np.diff(power)) >= -1e-12
        assert 0 < power[0] <= power[-1] <= 1 + 1e-12
    assert stats._power(10_000, 1e8, 0.05) == 1  # both sides are NaN
    # Only the wrong side is NaN here, and the right side is not next to certain. By simulation of 200,000: .3490.
    assert stats._power(5, 3.0, 0.05 / 50) == pytest.approx(0.3478, abs=1e-4)
