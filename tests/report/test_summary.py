"""Cells -> rows: what is averaged over what, what is tested, what is noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import scipy.stats

from mhc_lab.report import stats
from mhc_lab.report.frame import load
from mhc_lab.report.summary import COLUMNS, Summary, summarize

BASE = [2.50, 2.52, 2.49, 2.51, 2.53]
DEGENERATE = {"spread_perturbed": 0.0, "spread_step10": 0.0, "degenerate": True}


def summary_of(results: Path) -> Summary:
    return summarize(load(results, "demo"))


def line(results: Path, row: str) -> pd.Series:
    frame = summary_of(results).frame
    assert list(frame.columns) == list(COLUMNS)
    return frame.set_index("row").loc[row]


def test_gap_interval_and_test_of_a_row(full_study: Path) -> None:
    mhc = line(full_study, "mhc")
    losses = [b - d for b, d in zip(BASE, (0.10, 0.11, 0.09, 0.10, 0.105), strict=True)]
    low, high = scipy.stats.ttest_rel(losses, BASE).confidence_interval(0.95)
    assert mhc["loss_gap"] == pytest.approx(-0.101)
    assert (mhc["loss_gap_ci95_low"], mhc["loss_gap_ci95_high"]) == (pytest.approx(low), pytest.approx(high))
    half = scipy.stats.t.ppf(0.975, 4) * scipy.stats.sem(losses)
    assert (mhc["val_loss"], mhc["val_loss_ci95"]) == (pytest.approx(2.409), pytest.approx(half))
    assert mhc["distinguishable"]
    assert mhc["note"] == ""


def test_family_is_the_rows_but_baseline_and_control(full_study: Path) -> None:
    summary = summary_of(full_study)
    assert summary.tested == ["mhc", "identity_hc"]  # a seed of hc diverged
    frame = summary.frame.set_index("row")
    assert frame.loc[["identity", "control"], "distinguishable"].isna().all()
    assert frame.loc["control", "loss_gap_ci95_high"] > 0


def test_distinguishable_uses_adjusted_p(study: Any) -> None:
    differences = (-0.10, -0.02, -0.06, -0.04, -0.01)  # p = .046 alone, not when it is the largest of a family's
    study.row("identity", BASE)
    for i in range(3):
        study.row(f"row{i}", [b + d * (1 + i) for b, d in zip(BASE, differences, strict=True)])
    p = scipy.stats.ttest_1samp(differences, 0).pvalue
    assert p < stats.ALPHA < 3 * p
    assert not summary_of(study.save()).frame["distinguishable"].fillna(False).any()


def test_noise_floor(full_study: Path) -> None:
    summary = summary_of(full_study)
    assert summary.noise_floors == {"identity": pytest.approx(0.03)}
    assert "inside noise floor" in line(full_study, "identity_hc")["note"]
    assert "inside noise floor" not in line(full_study, "mhc")["note"]
    assert line(full_study, "control")["note"] == "control arm: identity with another initialisation and data order"


def test_degenerate_cell(full_study: Path) -> None:
    row = line(full_study, "mhc_res_only")
    assert row["note"] == (
        "degenerate: streams stay equal (spread 0.0e+00): the cell is the plain residual; break the symmetry with "
        "residual.expand=scaled residual.expand_base=0.6 or a home write (residual.h_post=dynamic)"
    )
    assert not row["distinguishable"]


def test_degenerate_cell_whose_rows_do_not_sum_to_one(study: Any) -> None:
    study.row("identity", BASE)
    study.row("hc_res", [2.4] * 5, modes="dff", metrics__gain_forward=1.3, degenerate=DEGENERATE)
    note = line(study.save(), "hc_res")["note"]
    assert "single stream with learned gains" in note
    assert "residual.h_post=dynamic residual.h_post_home=1.75 residual.h_post_away=0.75" in note


def test_degenerate_in_some_seeds(study: Any) -> None:
    study.row("identity", BASE).row("mhc", [2.4, 2.3, 2.2, None, 2.2], modes="ddf")
    study.cell("mhc", 1, 2.5, degenerate=DEGENERATE)
    assert line(study.save(), "mhc")["note"].startswith(
        "1 of 5 seeds not run yet; means over 4 seeds; degenerate in 1 of 4"
    )


def test_streams_that_never_parted_are_named(study: Any) -> None:
    study.row("identity", BASE, streams=1, metrics__stream_spread=0.0)
    study.row("hc_res", [2.4] * 5, modes="dff", metrics__stream_spread=2e-7)
    results = study.save()
    assert "still equal at the last step (spread 2.0e-07)" in line(results, "hc_res")["note"]
    assert "equal" not in str(line(results, "identity")["note"])


def test_lost_seeds_are_counted_and_named(full_study: Path) -> None:
    hc = line(full_study, "hc")
    assert (
        hc["note"] == "1 of 5 seeds failed: out of memory; 1 of 5 seeds diverged: loss is nan; means over 3 seeds; "
        "gap not tested: the seeds left are the calm ones"
    )
    assert hc["seeds"] == 3
    assert hc["loss_gap"] == pytest.approx((2.4 + 2.41 + 2.42 - 2.50 - 2.52 - 2.49) / 3)


def test_stability_counts_diverged_runs_and_means_do_not(full_study: Path) -> None:
    hc = line(full_study, "hc")
    assert hc["max_grad_norm"] == 1e9
    assert hc["loss_spikes"] == pytest.approx((0 + 1 + 0 + 0) / 4)
    assert hc["gain_backward"] == pytest.approx(1.01)


def test_a_row_that_only_diverged(study: Any) -> None:
    study.row("identity", BASE)
    study.row("hc", [None] * 3, status="diverged", reason="loss is nan", metrics__steps=7)
    row = line(study.save(), "hc")
    assert row["note"] == "3 of 3 seeds diverged: loss is nan; no finished run"
    assert row["seeds"] == 0
    assert row[["val_loss", "loss_gap", "distinguishable"]].isna().all()


def test_seeds_that_the_baseline_lost(study: Any) -> None:
    study.row("identity", [2.5, 2.52, 2.49, 2.51, None]).row("mhc", [2.4, 2.43, 2.38, 2.42, 2.41])
    study.row("late", [None, None, None, None, 2.4])
    results = study.save()
    assert line(results, "mhc")["note"] == "gap over the 4 seeds in common with the baseline"
    late = line(results, "late")
    assert "no gap: no finished seed in common with the baseline" in late["note"]
    assert pd.isna(late["loss_gap"])


def test_two_seeds_have_no_interval_and_say_so(study: Any) -> None:
    results = study.row("identity", [2.5, 2.51]).row("mhc", [2.4, 2.42]).save()
    for name in ("identity", "mhc"):
        row = line(results, name)
        assert row["note"] == "2 seeds: no interval"
        assert pd.isna(row["val_loss_ci95"])
    assert row[["loss_gap_ci95_low", "loss_gap_ci95_high", "distinguishable"]].isna().all()
    assert row["loss_gap"] == pytest.approx(-0.095)


def test_cost_from_the_timing_pass_or_the_records(full_study: Path) -> None:
    mhc = line(full_study, "mhc")
    assert (mhc["ms_per_step"], mhc["ms_ratio"]) == (pytest.approx(14.1), 1.41)
    assert (mhc["parameters"], mhc["flops_per_token"]) == (1234567, 7654321)
    assert (mhc["peak_memory_mb_low"], mhc["peak_memory_mb"]) == (300, 304)
    (full_study / "demo" / "timing.json").unlink()
    mhc = line(full_study, "mhc")
    assert mhc["ms_per_step"] == pytest.approx(102)
    assert pd.isna(mhc["ms_ratio"])


def test_row_that_the_timing_pass_lacks_says_so(study: Any) -> None:
    results = study.row("identity", BASE).row("mhc", BASE).save(timing={"identity": 1.0})
    assert "the row is not in the timing pass" in line(results, "mhc")["note"]
    assert line(results, "identity")["note"] == ""
