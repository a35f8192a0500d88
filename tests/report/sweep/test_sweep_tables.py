"""The tables of a sweep against numbers worked out from its trials."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats as scipy_stats

from mhc_lab.errors import LabError
from mhc_lab.report.sweep import Objective, Parameter, print_sweep, write
from mhc_lab.report.sweep.data import value
from mhc_lab.report.sweep.importance import MIN_TRIALS, importances
from mhc_lab.report.sweep.marginal import marginal
from mhc_lab.report.sweep.ranking import edges, non_dominated, rank, selection
from mhc_lab.report.sweep.table import Table
from mhc_lab.report.sweep.tables import best_table, importance_table, pareto_table

sys.path.insert(0, str(Path(__file__).parent))
import sweeps as made


def test_paired_differences_and_holm_are_those_of_scipy() -> None:
    sweep = made.usual(12, seeds=5)
    ranking = rank(sweep)
    assert ranking is not None
    losses = {one.trial.number: np.array(list(one.trial.seeds("val_loss").values())) for one in ranking.trials}
    best = losses[ranking.best.trial.number]
    assert [value(one.trial) for one in ranking.trials] == sorted(value(trial) for trial in sweep.trials)
    tested = [scipy_stats.ttest_rel(losses[one.trial.number], best) for one in ranking.trials[1:]]
    p_values = np.array([test.pvalue for test in tested])
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)), 1)
    for one, test, p in zip(ranking.trials[1:], tested, adjusted, strict=True):
        assert one.to_best is not None
        half = (test.confidence_interval().high - test.confidence_interval().low) / 2
        assert one.to_best.estimate.half_width == pytest.approx(half)
        assert one.p_best == pytest.approx(p)
    assert (ranking.compared, ranking.told_apart) == (11, int((adjusted < 0.05).sum()))
    assert 0 < ranking.told_apart < 11


def test_best_is_near_the_truth_and_the_start_is_beside_it() -> None:
    sweep = made.usual(40)
    table = best_table(sweep)
    best = sweep.ranked[0]
    assert 6 <= best.params["residual.t_max"] <= 16
    assert table.rows[0][:3] == ["1", str(best.number), str(best.params["residual.t_max"])]
    assert len(table.rows) == 11 and table.rows[-1][1] == "0 (start)"
    assert any("place 13 of 40" in word for word in table.words)


def test_words_on_ties_selection_and_edge() -> None:
    alike = [made.trial(n, {"residual.t_max": 10 + n}, noise=0.01) for n in range(6)]
    far = [made.trial(6 + n, {"residual.t_max": 1 + n}, noise=0.001) for n in range(2)]
    words = " ".join(best_table(made.sweep([*alike, *far], (made.T_MAX,))).words)
    assert "of the 7 tested against it" in words
    assert "The best of many trials is optimistic" in words and "No starting point" in words
    assert "does not lie at an edge" in words
    at_edge = made.sweep([made.trial(0, {"residual.t_max": 40}), made.trial(1, {"residual.t_max": 1})], (made.T_MAX,))
    assert "t_max = 40 of 1 to 40 (log)): widen it there" in " ".join(best_table(at_edge).words)


def test_selection_is_the_expected_minimum_of_equal_trials() -> None:
    noise, seeds, count = 0.01, 5, 20
    found, truth = [], []
    for repeat in range(60):
        rng = np.random.default_rng(repeat)
        shared = rng.normal(0, 0.3, seeds)
        trials = []
        for number in range(count):
            losses = 2.5 + shared + rng.normal(0, noise, seeds)
            by_seed = {seed: {"val_loss": float(loss)} for seed, loss in enumerate(losses)}
            trials.append(dataclasses.replace(made.trial(number, {}), values=(float(losses.mean()),), by_seed=by_seed))
        estimated = selection(made.sweep(trials, (made.T_MAX,)))
        assert estimated is not None
        found.append(estimated)
        truth.append(min(value(trial) for trial in trials) - 2.5 - shared.mean())
    assert np.mean(found) == pytest.approx(-np.mean(truth), rel=0.1)


@pytest.mark.parametrize(
    ("parameter", "given", "at_edge"),
    [
        (made.T_MAX, 1, True),
        (made.T_MAX, 40, True),
        (made.T_MAX, 38, True),
        (made.T_MAX, 36, False),
        (made.ALPHA, 0.0011, True),
        (made.ALPHA, 0.002, False),
        (made.STREAMS, 8, True),
        (made.STREAMS, 4, False),
        (made.SINKHORN, "plain", False),
        (Parameter("a", "choices", choices=(0, 1)), 1, False),
    ],
)
def test_edge(parameter: Parameter, given: object, at_edge: bool) -> None:
    sweep = made.sweep([made.trial(0, {parameter.key: given})], (parameter,))
    assert bool(edges(sweep, sweep.trials[0])) is at_edge


def test_by_gives_the_best_of_each_value_and_warns_at_the_edge() -> None:
    sweep = made.by_variant()
    table = best_table(sweep)
    for row, choice in zip(table.rows, made.VARIANT.choices, strict=True):
        own = [trial for trial in sweep.finite if trial.params["residual"] == choice]
        assert row[:2] == [choice, str(min(own, key=value).number)]
    assert [row[-1] for row in table.rows] == ["", "", "lr"]
    assert [word.split(":")[0] for word in table.words if "widen" in word] == ["mhc"]


def test_by_names_a_value_without_a_trial() -> None:
    table = best_table(made.odd()["by, one missing"])
    assert len(table.rows) == 3 and "mhc: no comparable trial." in table.words


def test_front_is_what_nothing_dominates() -> None:
    sweep = made.usual(60, time=True)
    front = {trial.number for trial in non_dominated(sweep)}
    for trial in sweep.finite:
        beaten = any(
            all(a <= b for a, b in zip(other.values or (), trial.values or (), strict=True))
            and other.values != trial.values
            for other in sweep.finite
        )
        assert (trial.number in front) is not beaten
    assert [row[0].split()[0] for row in pareto_table(sweep).rows] == [str(t.number) for t in non_dominated(sweep)]


def test_importances_find_what_matters_on_the_scale_that_was_searched() -> None:
    found = importances(made.usual(60))
    first = found.parameters[0]
    assert first.parameter.key == "residual.t_max" and first.fanova > 0.8 and first.ped_anova > 0.5
    assert first.low <= first.fanova <= first.high
    assert sum(one.ped_anova for one in found.parameters) == pytest.approx(1)
    assert first.fanova > first.fanova_chance and first.ped_anova > first.ped_anova_chance
    assert found == importances(made.usual(60))


def test_importances_of_noise_stay_below_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large they look: a sampler that looked at one end alone makes PED-ANOVA speak of it."""
    monkeypatch.setattr("mhc_lab.report.sweep.importance.SHUFFLES", 20)
    rng = np.random.default_rng(5)
    trials = [
        dataclasses.replace(
            made.trial(
                number, {made.T_MAX.key: int(1 + 39 * rng.uniform() ** 6), made.ALPHA.key: 10 ** rng.uniform(-3, 0)}
            ),
            values=(rng.normal(2.0, 0.01),),
        )
        for number in range(60)
    ]
    sweep = made.sweep(trials, (made.T_MAX, made.ALPHA))
    found = importances(sweep)
    assert max(one.ped_anova for one in found.parameters) > 0.5
    assert all(one.fanova <= one.fanova_chance and one.ped_anova <= one.ped_anova_chance for one in found.parameters)
    assert not any("*" in cell for row in importance_table(sweep, found).rows for cell in row)


def test_log_ranges_count_as_their_logarithm() -> None:
    """On the linear range the lower decades, where the loss changes, would be next to nothing."""
    rng = np.random.default_rng(0)
    other = Parameter("optim.beta", "float", 0.0, 1.0)
    trials = []
    for number in range(60):
        alpha, beta = float(10 ** rng.uniform(-3, 0)), float(rng.uniform())
        loss = 1.0 * (alpha < 0.03) + 0.4 * (beta > 0.5)
        params = {made.ALPHA.key: alpha, other.key: beta}
        trials.append(dataclasses.replace(made.trial(number, params), values=(loss,)))
    found = importances(made.sweep(trials, (made.ALPHA, other)))
    assert found.parameters[0].parameter is made.ALPHA and found.parameters[0].fanova > 0.7


def test_too_little_for_importances_is_a_sentence() -> None:
    few = made.usual(MIN_TRIALS - 1)
    table = importance_table(few, importances(few))
    assert not table.rows and "it takes 8" in table.words[0]
    odd = made.odd()
    assert "same in every trial" in importances(odd["constant objective"]).none
    assert "it never varied (10)" in importances(odd["same point"]).none


def test_conditional_parameters_are_judged_on_the_trials_that_have_them() -> None:
    sweep = made.odd()["conditional"]
    having = sum("residual.convention" in trial.params for trial in sweep.finite)
    trials = {one.parameter.key: one.trials for one in importances(sweep).parameters}
    assert trials == {"residual.t_max": 40, "residual.sinkhorn": 40, "residual.convention": having} and having < 40


def test_marginal_bins_hold_every_trial_once() -> None:
    sweep = made.odd()["conditional"]
    bins = marginal(sweep)
    for parameter in sweep.parameters:
        own = [bin for bin in bins if bin.parameter is parameter]
        assert sum(bin.estimate.n for bin in own) == 40
        assert min(bin.lowest for bin in own) == value(sweep.ranked[0])
    lowest = min((b for b in bins if b.parameter is made.T_MAX), key=lambda b: b.estimate.mean)
    assert lowest.text == "10 to 19"
    members = [value(t) for t in sweep.finite if 10 <= t.params["residual.t_max"] <= 19]
    assert (lowest.estimate.n, lowest.estimate.mean) == (len(members), pytest.approx(np.mean(members)))
    assert "not asked for" in {bin.text for bin in bins}


def test_csv_has_every_trial_in_full_precision(tmp_path: Path) -> None:
    sweep = made.with_lost(made.usual(20))
    write(sweep, tmp_path, ["csv"], provenance={"a": 1})
    frame = pd.read_csv(tmp_path / "trials.csv")
    assert list(frame["trial"]) == [trial.number for trial in sweep.trials]
    assert frame["state"].value_counts().to_dict() == {
        "complete": 20, "pruned": 4, "diverged": 2, "failed": 1, "running": 1,
    }  # fmt: skip
    one = sweep.trials[3]
    assert frame.loc[3, "val_loss"] == value(one) and frame.loc[3, "val_loss_seed2"] == one.by_seed[2]["val_loss"]
    assert frame.loc[3, "residual.alpha_init"] == one.params["residual.alpha_init"]
    assert json.loads(frame.loc[3, "intermediate"]) == {str(k): v for k, v in one.intermediate.items()}
    assert math.isinf(frame.loc[frame["state"] == "diverged", "val_loss"].iloc[0])
    best = pd.read_csv(tmp_path / "best.csv")
    assert list(best["place"]) == list(range(1, 21)) and best.loc[0, "val_loss"] == value(sweep.ranked[0])
    assert json.loads((tmp_path / "provenance.json").read_text()) == {"a": 1}
    assert not (tmp_path / "sweep.md").exists() and not (tmp_path / "figures").exists()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("kind", ["usual", "by", "two"])
def test_latex_compiles(tmp_path: Path, kind: str) -> None:
    sweep = {"usual": made.usual(15), "by": made.by_variant(), "two": made.usual(15, time=True)}[kind]
    write(sweep, tmp_path, ["latex"], provenance={})
    (table,) = tmp_path.glob("*.tex")
    document = (
        rf"\documentclass{{article}}\usepackage{{booktabs,amssymb,graphicx}}"
        rf"\begin{{document}}\input{{{table.name}}}\end{{document}}"
    )
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_terminal_shows_the_table_and_its_words() -> None:
    out = io.StringIO()
    print_sweep(made.usual(15), Console(file=out, width=160))
    assert "Best 10 of 15" in out.getvalue() and "optimistic" in out.getvalue()
    out = io.StringIO()
    print_sweep(made.odd()["all failed"], Console(file=out, width=160))
    assert "No trial is complete with a finite val loss: 12 failed." in out.getvalue()


def test_markdown_shows_odd_text_as_it_reads() -> None:
    text = Table("a|b", ("x*", "y"), "lr", [["<b>", "1|2"]], ["c`d"], bold=0).markdown()
    assert text == "# a\\|b\n\n| x\\* | y |\n| --- | --: |\n| **\\<b>** | **1\\|2** |\n\n- c\\`d\n"


def test_unknown_format_and_closed_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="did you mean 'latex'"):
        write(made.sweep([]), tmp_path, ["latx"], provenance={})
    (tmp_path / "trials.csv").mkdir()
    with pytest.raises(LabError, match="cannot be written"):
        write(made.sweep([]), tmp_path, ["csv"], provenance={})


def test_objective_without_a_text_is_its_own_name() -> None:
    assert Objective("max_grad_norm").text == "max grad norm"
    assert Objective("val_loss").name == "val loss"


@pytest.mark.parametrize("kind", ["usual", "by", "two", "all failed"])
def test_the_page_has_everything_and_asks_for_nothing(tmp_path: Path, kind: str) -> None:
    sweep = made.odd()[kind] if kind == "all failed" else {
        "usual": made.usual(15), "by": made.by_variant(), "two": made.usual(15, time=True)
    }[kind]  # fmt: skip
    sweep = dataclasses.replace(sweep, title="t<b>&", overrides=("model.dim=64",))
    written = write(sweep, tmp_path, ["html"], provenance={"command": "mhc-lab sweep x", "runs": {"0": {}}})
    assert [path.name for path in written] == ["report.html", "provenance.json"]
    page = (tmp_path / "report.html").read_text()
    assert "<h1>t&lt;b&gt;&amp;</h1>" in page
    assert "<li>Shared by all trials: model.dim=64</li>" in page
    assert "<code>mhc-lab sweep x</code>" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)|url\((?!#)|@import|<script", page)
    if kind == "all failed":
        assert "No trial has a finite val loss: 12 failed." in page
        return
    assert "Best: trial " in page
    assert page.count("<figure") == page.count("<svg") > 2
    assert page.count("<b>") > 3  # the best one's row
