"""The figure: what is drawn, and that it is drawn alike twice."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from mhc_lab.report.figures import loss_gap_svg
from mhc_lab.report.frame import load
from mhc_lab.report.summary import summarize

BLUE = "#0b5fa5"


def draw(results: Path) -> str:
    study = load(results, "demo")
    return loss_gap_svg(study, summarize(study))


def test_it_is_well_formed_and_the_same_twice(full_study: Path) -> None:
    svg = draw(full_study)
    ElementTree.fromstring(svg)
    assert svg == draw(full_study)


def test_every_row_but_the_baseline_is_named(full_study: Path) -> None:
    labels = re.findall(r"<!-- (.*?) -->", draw(full_study))
    names = [row["row"] for row in load(full_study, "demo").spec["rows"]]
    assert [label for label in labels if label in names] == [name for name in names if name != "identity"]


def test_colour_marks_what_is_distinguishable(full_study: Path) -> None:
    study = load(full_study, "demo")
    summary = summarize(study)
    assert BLUE in loss_gap_svg(study, summary)
    summary.frame["distinguishable"] = False
    assert BLUE not in loss_gap_svg(study, summary)


def test_one_seed_and_missing_rows_are_drawn(study) -> None:
    study.row("identity", [2.5]).row("mhc", [2.4]).row("hc", [None])
    results = study.save()
    assert "<svg" in draw(results)
