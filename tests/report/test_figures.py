"""Figures over rows and cost, and what all figures share: what is drawn, and drawn alike twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from figures_data import CurveMaker, draw, lines, marks, texts

from mhc_lab.report import stats
from mhc_lab.report.figures import gradient_norm, loss_gap, loss_steps, quality_cost, spread
from mhc_lab.report.figures.labels import around, wrapped
from mhc_lab.report.figures.labels import spread as spread_labels
from mhc_lab.report.figures.paper import OVERHEAD
from mhc_lab.report.figures.plot import Absent, Material
from mhc_lab.report.figures.style import LOST, MAX_ROWS, PAPER, drawing, drawn_rows, png, row_styles, svg
from mhc_lab.report.summary import losses_by_seed, summarize

FIGURES = (loss_gap, loss_steps, gradient_norm, spread, quality_cost)


@pytest.fixture
def maker(tmp_path: Path) -> CurveMaker:
    """With a baseline already."""
    return CurveMaker(tmp_path)


# ---- every figure


@pytest.mark.parametrize("figure", FIGURES, ids=lambda module: module.NAME)
def test_svg_is_well_formed_and_the_same_twice(figure: ModuleType, maker: CurveMaker) -> None:
    maker.row("hc", -0.05, ends={1: 30}, paper=-0.027).row("a$b_$ <&> --x", -0.03).row("mhc", -0.04)
    material = maker.row("control", streams=1, variant="identity", control=True).build({"hc": 1.2, "mhc": 1.4})
    written = [svg(draw(figure, material).figure, figure.NAME) for _ in range(2)]
    ElementTree.fromstring(written[0])
    assert written[0] == written[1]
    assert png(draw(figure, material).figure).startswith(b"\x89PNG")


def one_seed(maker: CurveMaker) -> Material:
    return CurveMaker(maker.maker.folder, seeds=1).row("mhc", -0.03).build({"mhc": 1.2})


def two_seeds(maker: CurveMaker) -> Material:
    return CurveMaker(maker.maker.folder, seeds=2).row("mhc", -0.03).build()


def all_diverged(maker: CurveMaker) -> Material:
    return maker.row("hc", ends={seed: 10 + seed for seed in range(5)}).build({"hc": 1.2})


def nothing_ran(maker: CurveMaker) -> Material:
    maker.maker.row("mhc", [None] * 5).row("hc", ["failed"] * 5)
    return maker.build({"mhc": 1.2})


def one_point(maker: CurveMaker) -> Material:
    short = CurveMaker(maker.maker.folder, points=1).row("mhc", -0.03)
    for row, runs in short.maker.probes.items():
        short.maker.probes[row] = {seed: replace(run, spread=run.spread[:1]) for seed, run in runs.items()}
    return short.build()


def huge(maker: CurveMaker) -> Material:
    material = maker.row("mhc", -0.03).row("far", 5.0).build({"mhc": 1.2, "far": 40.0})
    run = material.training["far"][0]
    run.train_loss[-3:] = [1e30, 1e38, np.nan]
    run.grad_norm[-3:] = [1e38, 0.0, np.inf]
    return material


def long_names(maker: CurveMaker) -> Material:
    for place in range(14):
        maker.row(f"a_rather_long_name_of_a_row_number_{place:05d}", -0.01 * place, variant=f"mine_{place % 3}")
    return maker.build({row["row"]: 1.3 for row in maker.maker.rows})


@pytest.mark.parametrize(
    "case",
    [one_seed, two_seeds, all_diverged, nothing_ran, one_point, huge, long_names],
    ids=lambda case: case.__name__,
)
@pytest.mark.filterwarnings("error")
def test_bad_cases_are_drawn_or_say_why_not(case: Callable[[CurveMaker], Material], maker: CurveMaker) -> None:
    material = case(maker)
    with drawing():
        for figure in FIGURES:
            plot = figure.draw(material)
            if isinstance(plot, Absent):
                assert plot.name == figure.NAME
                assert ("; " in plot.reason, plot.reason.endswith(".")) == (True, False)
            else:
                ElementTree.fromstring(svg(plot.figure, plot.name))
                assert np.isfinite([limit for axes in plot.figure.axes for limit in axes.axis()]).all()


def test_more_rows_than_can_be_told_apart_are_left_out_and_the_caption_says_so(maker: CurveMaker) -> None:
    for place in range(MAX_ROWS + 3):
        maker.row(f"row_{place}", -0.01 * place, variant="hc")
    maker.row("control", streams=1, variant="identity", control=True)
    material = maker.build()
    for figure in (loss_steps, gradient_norm, spread):
        plot = draw(figure, material)
        shown = set(texts(plot.figure))
        assert f"row_{MAX_ROWS - 1}" in shown
        assert f"row_{MAX_ROWS}" not in shown
        assert f"Drawn are the first {MAX_ROWS} of {MAX_ROWS + 3} rows." in plot.caption
    assert drawn_rows(material.study)[0][-1] == "control"
    assert drawn_rows(material.study, ["row_14"]) == (["row_14"], "")


# ---- style, labels


def test_rows_keep_the_hue_of_their_variant_and_differ_in_shade_line_or_fill(maker: CurveMaker) -> None:
    for place in range(8):
        maker.row(f"hc_{place}", variant="hc")
    maker.row("mine", variant="mine_a").row("theirs", variant="mine_b").row("control", variant="identity", control=True)
    styles = row_styles(maker.build().study)
    assert styles["hc_0"].colour == "#d55e00"
    in_grey = {(style.marker, str(style.line), style.filled) for style in styles.values()}
    assert len(in_grey) == len(styles) == 12
    assert styles["control"].line not in {style.line for row, style in styles.items() if row != "control"}
    assert {styles[f"hc_{place}"].marker for place in range(8)} == {"^"}
    assert styles["mine"].marker != styles["theirs"].marker
    assert LOST not in {style.line for style in styles.values()}
    assert styles["control"].face == PAPER


def test_labels_stand_apart_in_order_and_as_near_as_can_be() -> None:
    places = spread_labels([0.5, 0.5, 0.52, 0.9], [0.1, 0.1, 0.1, 0.1])
    assert places == pytest.approx([0.5067 - 0.1, 0.5067, 0.5067 + 0.1, 0.9], abs=1e-3)
    assert spread_labels([0.0, 1.0], [0.2, 0.2]) == pytest.approx([0.1, 0.9])
    assert np.diff(spread_labels([0.5] * 30, [0.1] * 30)) == pytest.approx([0.1] * 29)


def test_names_around_points_do_not_cover_one_another() -> None:
    points = [(100.0 + 7 * place, 100.0) for place in range(6)]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    boxes = around(points, ["a_long_name"] * 6, taken, (0, 0, 300, 200))
    for place, (left, bottom, right, top) in enumerate(boxes):
        assert 0 <= left < right <= 300
        assert 0 <= bottom < top <= 200
        for other in [*boxes[:place], *taken]:
            assert (
                right <= other[0] + 1e-6
                or other[2] <= left + 1e-6
                or top <= other[1] + 1e-6
                or other[3] <= bottom + 1e-6
            )


def test_long_names_are_broken_and_very_long_ones_lose_their_middle() -> None:
    assert wrapped("mhc") == "mhc"
    broken = wrapped("a_rather_long_name_of_a_row_number_00001")
    assert max(map(len, broken.split("\n"))) <= 26
    assert broken.replace("\n", "") == "a_rather_long_name_of_a_row_number_00001"
    assert "…" in wrapped("x" * 70)
    assert len(wrapped("x" * 70).replace("\n", "")) <= 60


# ---- loss gap


def test_loss_gap_shows_every_seed_the_mean_and_what_is_distinguishable(maker: CurveMaker) -> None:
    maker.row("mhc", -0.2, paper=-0.027).row("hc", 0.0).row("twin", same=True, variant="mhc")
    material = maker.row("control", streams=1, variant="identity", control=True).build()
    plot = draw(loss_gap, material)
    (axes,) = plot.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mhc", "hc", "twin", "control"]
    frame = material.summary.frame.set_index("row")
    assert frame.loc["mhc", "distinguishable"]
    assert not frame.loc["hc", "distinguishable"]
    styles = row_styles(material.study)
    for row, place, filled in (("mhc", 0, True), ("hc", 1, False)):
        dots = [x for x, y in marks(axes, ".") if y == place + 0.24]
        own, base = losses_by_seed(material.study, row), losses_by_seed(material.study, "identity")
        assert dots == pytest.approx([own[seed] - base[seed] for seed in range(5)])
        assert (frame.loc[row, "loss_gap"], place) in [pytest.approx(at) for at in marks(axes, styles[row].marker)]
        faces = [line.get_markerfacecolor() for line in axes.get_lines() if line.get_marker() == styles[row].marker]
        assert faces[0] == (styles[row].colour if filled else PAPER)
        (bar,) = [line for line in lines(axes, styles[row].colour) if line.get_linestyle() == "-"]
        assert list(bar.get_xdata()) == pytest.approx(
            [frame.loc[row, f"loss_gap_ci95_{end}"] for end in ("low", "high")]
        )
    assert marks(axes, "|") == [(-0.027, 0)]
    assert "identical" in texts(plot.figure)
    (band,) = axes.patches
    assert band.get_extents().transformed(axes.transData.inverted()).x1 == pytest.approx(
        material.summary.noise_floors["identity"]
    )


def test_rows_far_off_or_without_a_seed_keep_their_line(maker: CurveMaker) -> None:
    maker.row("mhc", -0.03).row("hc", -0.05).row("far", 5.0)
    maker.maker.row("crashed", ["failed"] * 5)
    plot = draw(loss_gap, maker.build())
    (axes,) = plot.figure.axes
    assert axes.get_xlim()[1] < 1
    assert marks(axes, ">") == [(axes.get_xlim()[1], 2)]
    assert {"+5", "no seed finished", "crashed (0 of 5 seeds)"} <= set(texts(plot.figure))


def test_without_the_plain_residual_as_baseline_the_papers_numbers_are_left_out(maker: CurveMaker) -> None:
    material = maker.row("mhc", -0.03).row("control", variant="identity", control=True).build()
    rows = [{**row, "baseline": "mhc"} for row in material.study.rows]
    rows[-1]["repeats"] = "identity"
    entries = {row: {"baseline": "mhc", "ms_per_step": 20.0, "ms_ratio": 0.8} for row in ("identity", "control")}
    study = replace(material.study, spec={**material.study.spec, "rows": rows}, timing={"rows": entries})
    rebased = replace(material, study=study, summary=summarize(study))
    shown = [draw(figure, rebased) for figure in (loss_gap, loss_steps, quality_cost)]
    for plot in shown:
        assert "mHC paper" not in plot.caption
        assert not [text for text in texts(plot.figure) if "mHC paper" in text]
        assert {"control", "identity"} <= set(texts(plot.figure))
    assert "After the paper's Fig. 2a." in shown[1].caption
    assert "After the paper's Fig. 5a." in draw(loss_steps, material).caption
    noise = marks(shown[0].figure.axes[0], "o")
    gap = stats.paired_gap(losses_by_seed(study, "control"), losses_by_seed(study, "mhc"))
    assert gap is not None
    assert pytest.approx((gap.estimate.mean, 1)) in noise


def test_the_forest_groups_rows_by_their_baseline(maker: CurveMaker) -> None:
    maker.row("hc_s", -0.05, variant="hc").row("identity_m", -0.5, variant="identity", baseline="identity_m")
    forest = draw(loss_gap, maker.row("hc_m", -0.56, variant="hc", baseline="identity_m").build())
    assert [label.get_text() for label in forest.figure.axes[0].get_yticklabels()] == ["hc_s", "hc_m"]
    assert {"minus identity:", "minus identity_m:"} <= set(texts(forest.figure))


# ---- quality against cost


def test_quality_against_cost_has_a_point_a_row_and_a_front(maker: CurveMaker) -> None:
    maker.row("mhc", -0.03).row("hc", -0.06).row("dear", -0.05, variant="orthogonal").row(
        "untimed", -0.01, variant="mine"
    )
    material = maker.build({"mhc": 1.2, "hc": 1.3, "dear": 1.5})
    plot = draw(quality_cost, material)
    (axes,) = plot.figure.axes
    gaps = dict(zip(material.summary.frame["row"], material.summary.frame["loss_gap"], strict=True))
    points = {row: (ratio, gaps[row]) for row, ratio in (("mhc", 1.2), ("hc", 1.3), ("dear", 1.5))}
    for row, at in points.items():
        assert pytest.approx(at) in marks(axes, row_styles(material.study)[row].marker)
    assert (1, 0) in marks(axes, "o")
    assert any(list(line.get_xdata()) == [OVERHEAD.value] * 2 for line in axes.get_lines())
    (front,) = [line for line in axes.get_lines() if len(line.get_xdata()) == 5]
    steps = [(1, 0), (1.2, 0), points["mhc"], (1.3, points["mhc"][1]), points["hc"]]
    assert np.array(front.get_xydata()) == pytest.approx(np.array(steps))
    assert "Without a gap or a time: untimed." in plot.caption


def test_without_a_timing_pass_there_is_no_cost(maker: CurveMaker) -> None:
    absent = quality_cost.draw(maker.row("mhc", -0.03).build())
    assert isinstance(absent, Absent)
    assert "no timing pass" in absent.reason


def test_dear_rows_have_a_logarithmic_axis_with_plain_numbers(maker: CurveMaker) -> None:
    plot = draw(quality_cost, maker.row("mhc", -0.03).row("hc", -0.04).build({"mhc": 1.2, "hc": 20.0}))
    plot.figure.draw_without_rendering()
    labels = [label.get_text() for label in plot.figure.axes[0].get_xticklabels()]
    assert {"1", "2", "5", "10"} <= set(labels)
