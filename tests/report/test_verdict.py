"""The verdict in words, on studies whose answer is known."""

from __future__ import annotations

from typing import Any

from mhc_lab.report.frame import load
from mhc_lab.report.layout import lay_out
from mhc_lab.report.markdown import render
from mhc_lab.report.summary import summarize
from mhc_lab.report.verdict import verdict

BASE = [2.5, 2.6, 2.4, 2.55, 2.45]


def said(results: Any) -> list[str]:
    return verdict(summarize(load(results, "demo")))


def test_a_row_that_is_ahead_and_one_that_is_not(study: Any) -> None:
    study.row("identity", BASE).row("mhc", [x - 0.1 + 0.001 * i for i, x in enumerate(BASE)])
    results = study.row("hc", [x + (-1) ** i * 0.02 for i, x in enumerate(BASE)]).save()
    first, second, third = said(results)
    assert first.startswith("mhc is 0.0980 ± 0.0020 nats per token better than identity (p")
    assert second == "hc cannot be told from identity with 5 seeds."
    assert third.startswith("To tell a gap of 0.01 nats per token from noise would take about")


def test_a_row_that_is_behind(study: Any) -> None:
    results = study.row("identity", BASE).row("mhc", [x + 0.1 + 0.001 * i for i, x in enumerate(BASE)]).save()
    assert "nats per token worse than identity" in said(results)[0]


def test_few_seeds_and_lost_rows(study: Any) -> None:
    results = study.row("identity", BASE[:2]).row("mhc", [2.4, 2.5]).row("hc", [None, None]).save()
    few, lost = said(results)
    assert few == "mhc: nothing is tested with fewer than 3 seeds; five (--seeds 0-4) are a start."
    assert lost == "hc: no finished run."


def test_one_row_and_the_place_of_the_words(study: Any) -> None:
    results = study.row("identity", BASE).save()
    loaded = load(results, "demo")
    layout = lay_out(loaded, summarize(loaded))
    assert layout.verdict == ["There is nothing to compare: one row."]
    assert render(layout).splitlines()[2] == "There is nothing to compare: one row."
