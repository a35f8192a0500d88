"""Hand-worked cases, and scipy.stats as the judge."""

from __future__ import annotations

import warnings

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
    assert stats.mean_interval([1.0, 2.0][:seeds]).half_width is None


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
