"""What a table claims: which rows are apart, best, equivalent, untested, and what a gap would take."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mhc_lab.report import export, stats
from mhc_lab.report.frame import load
from mhc_lab.report.summary import Summary, summarize

BASE = [2.50, 2.52, 2.49, 2.51, 2.53]
NOISE = (0.004, -0.006, 0.001, 0.003, -0.002)


def exported(results: Path, name: str, **options: Any) -> str:
    export(results, "demo", ("md", "csv"), **options)
    return (results / "demo" / name).read_text()


def shifted(by: float, scale: float = 1.0) -> list[float]:
    return [loss + by + scale * noise for loss, noise in zip(BASE, NOISE, strict=True)]


def summary_of(study: Any, **options: Any) -> Summary:
    return summarize(load(study.save(), "demo"), **options)


def test_claims_of_equivalence_within_a_margin(full_study: Path) -> None:
    text = exported(full_study, "table.md", margin=0.05)
    table = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]
    rows = {cells[1]: cells for cells in table}
    place = rows["row"].index("within ±0.05")
    assert {name: rows[name][place] for name in ("mhc", "identity_hc", "mhc_res_only", "hc", "control")} == {
        "mhc": "no worse",
        "identity_hc": "equivalent",
        "mhc_res_only": "equivalent",
        "hc": "–",  # a seed diverged: not tested
        "control": "–",
    }
    frame = pd.read_csv(full_study / "demo" / "table.csv").set_index("row")
    assert frame.loc["identity_hc", "p_equivalent"] < 0.05 < frame.loc["mhc", "p_equivalent"]
    assert "two one-sided paired t tests (TOST)" in text


def test_power_estimate_under_the_table(full_study: Path) -> None:
    line = next(
        line for line in exported(full_study, "table.md", gaps=[0.02, 1e-5]).splitlines() if "Seeds needed" in line
    )
    assert "80 % power (paired t, p \\< 0.05/2)" in line
    assert "0.02 takes" in line
    assert "1e-05 takes over 10,000" in line


def test_more_seeds_bring_more_tests(study: Any) -> None:
    base = [2.5 + 0.01 * (seed % 3) for seed in range(10)]
    study.row("identity", base).row("mhc", [b - 0.05 + 0.004 * (seed % 4) for seed, b in enumerate(base)])
    text = exported(study.save(), "table.md")
    assert "| p (t, Holm) | p (sign flips) |" in text
    assert "BCa interval" in text
    row = pd.read_csv(study.results / "demo" / "table.csv").set_index("row").loc["mhc"]
    assert row["p_sign_flip"] == 2 / 2**10
    assert row["loss_gap_ci95_low"] < row["loss_gap_bca95_low"] < row["loss_gap"] < row["loss_gap_bca95_high"]


def test_no_row_is_best_if_none_can_be_told_from_the_baseline(study: Any) -> None:
    study.row("identity", [2.5, 2.52, 2.49]).row("mhc", [2.3, 2.6, 2.4])
    assert "**" not in exported(study.save(), "table.md")


def test_the_power_estimate_is_of_the_median_row_and_of_the_control_arm(study: Any) -> None:
    study.row("identity", BASE).row("control", shifted(0.01, 5.0))
    for place, scale in enumerate((1.0, 2.0, 10.0)):
        study.row(f"row{place}", shifted(-0.05, scale))
    power = summary_of(study, gaps=[0.02]).power
    assert power is not None
    sd = statistics.stdev(NOISE)
    assert (power.tests, power.sd, power.control_sd) == (3, pytest.approx(2 * sd), pytest.approx(5 * sd))
    assert power.seeds == (stats.seeds_needed(0.02, 2 * sd, tests=3),)
    assert power.control_seeds == (stats.seeds_needed(0.02, 5 * sd, tests=3),)
    assert power.seeds[0] < power.control_seeds[0]
    text = exported(study.results, "table.md", gaps=[0.02])
    assert f"(median SD {2 * sd:.3g}): 0.02 takes {power.seeds[0]};" in text
    assert f"as the control arm does (SD {5 * sd:.3g}): 0.02 takes {power.control_seeds[0]}." in text


def test_claims_of_equivalence_are_adjusted_over_the_rows(study: Any) -> None:
    study.row("identity", BASE)
    for place, by in enumerate((0.0, 0.001, 0.002)):
        study.row(f"row{place}", shifted(by))
    frame = summary_of(study, margin=0.02).frame.set_index("row")
    bare = [stats.equivalence([by + noise for noise in NOISE], 0.02) for by in (0.0, 0.001, 0.002)]
    rows = ["row0", "row1", "row2"]
    assert list(frame.loc[rows, "p_equivalent"]) == pytest.approx(stats.holm([b.p_equivalent for b in bare]))
    assert list(frame.loc[rows, "p_no_worse"]) == pytest.approx(stats.holm([b.p_no_worse for b in bare]))


def test_the_control_arm_is_never_the_best(study: Any) -> None:
    study.row("identity", BASE).row("control", shifted(-0.2)).row("mhc", shifted(-0.1))
    summary = summary_of(study)
    assert {baseline: best.row for baseline, best in summary.best.items()} == {"identity": "mhc"}
    best = summary.best["identity"]
    assert (best.runner_up, best.lead.estimate.mean) == ("identity", pytest.approx(-0.1))
    text = exported(study.results, "table.md")
    assert (
        "Bold: mhc, the lowest loss gap; ahead of the next, identity, by 0.1000 ± 0.0050 (paired, p \\< 0.001" in text
    )


def test_no_row_is_best_that_its_runner_up_beats_on_their_common_seeds(study: Any) -> None:
    study.row("identity", BASE).row("a", [2.301, 2.319, 2.2905, None, None])
    study.row("b", [2.291, 2.309, 2.2805, 2.41, 2.43])  # ahead of a wherever both are, behind on average
    frame = summary_of(study).frame.set_index("row")
    assert frame.loc["a", "loss_gap"] < frame.loc["b", "loss_gap"]
    assert frame.loc["a", "distinguishable"]
    assert not summary_of(study).best


def test_a_baseline_that_diverged_leaves_nothing_to_test(study: Any) -> None:
    study.row("identity", [*BASE[:3], None, None]).row("mhc", shifted(-0.1)).row("control", shifted(0.01))
    study.cell("identity", 3, None, status="diverged", reason="loss is nan")
    summary = summary_of(study, margin=0.02)
    row = summary.frame.set_index("row").loc["mhc"]
    assert row[["p_holm", "distinguishable", "p_sign_flip", "p_equivalent"]].isna().all()
    assert row["note"].startswith("gap not tested: the seeds left of the baseline are the calm ones")
    assert not any("not tested" in note for note in [*summary.notes[0], *summary.notes[2]])
    assert not summary.best


def test_sign_flips_are_for_rows_that_are_tested(study: Any) -> None:
    base = [2.5 + 0.01 * (seed % 3) for seed in range(8)]
    study.row("identity", base).row("control", [b + 0.01 for b in reversed(base)])
    study.row("mhc", [b - 0.05 - 0.001 * seed for seed, b in enumerate(base)])
    study.row("hc", [b - 0.05 - 0.001 * seed for seed, b in enumerate(base)])
    study.cell("hc", 7, None, status="diverged", reason="loss is nan")
    p = summary_of(study).frame.set_index("row")["p_sign_flip"]
    assert p.dropna().to_dict() == {"mhc": 2 / 2**8}


def test_the_same_gap_in_every_seed_is_said_and_not_tested(study: Any) -> None:
    study.row("identity", BASE).row("mhc", [loss - 0.5 for loss in BASE])
    row = summary_of(study).frame.set_index("row").loc["mhc"]
    assert row["note"] == "the same gap in every seed: not tested"
    assert pd.isna(row["p_holm"])


@pytest.mark.parametrize("seeds", [2, 3])
def test_rows_that_are_the_baseline_are_identical_by_construction(study: Any, seeds: int) -> None:
    study.row("identity", BASE[:seeds]).row("copy", BASE[:seeds]).row("near", [loss + 0.001 for loss in BASE[:seeds]])
    rows = {
        line.split("|")[1].strip(): line for line in exported(study.save(), "table.md").splitlines()[2:9] if "|" in line
    }
    assert "| identical by construction |" in rows["copy"]
    assert "identical" not in rows["near"]


def test_a_noise_floor_that_is_not_measured_is_said_for_each_baseline(study: Any) -> None:
    study.row("identity", BASE).row("control", [None] * 5)
    study.row("small", shifted(0.5), variant="identity", baseline="small")
    text = exported(study.save(), "table.md")
    assert "Noise floor of gaps to identity: not measured (control has no finished seed in common" in text
    assert "Noise floor of gaps to small: not measured (no control arm)." in text
