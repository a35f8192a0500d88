"""Loss gaps, and gaps against cost: every row is there, what is cut or missing is said, names keep apart."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from figures_data import CurveMaker
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from mhc_lab.report.figures import loss_gap, quality_cost
from mhc_lab.report.figures.labels import around
from mhc_lab.report.figures.plot import Material, Plot
from mhc_lab.report.figures.style import MAX_ROWS, drawing, row_styles
from mhc_lab.report.frame import Study
from mhc_lab.report.summary import summarize
from mhc_lab.units import listed


@pytest.fixture
def maker(tmp_path: Path) -> CurveMaker:
    """With a baseline already."""
    return CurveMaker(tmp_path)


def draw(figure: ModuleType, material: Material) -> Plot:
    with drawing():
        plot = figure.draw(material)
    assert isinstance(plot, Plot), plot
    return plot


def arrows(axes: Axes) -> list[tuple[float, float]]:
    """The tips of those that stand at a bar's end; lines from names to points have no head."""
    found = [it for it in axes.texts if isinstance(it, Annotation) and it.arrowprops]
    return [it.xy for it in found if it.arrowprops["arrowstyle"] == "->"]


def texts(plot: Plot) -> list[str]:
    return [text.get_text().replace("\n", "") for text in plot.figure.axes[0].texts]


def points(axes: Axes, study: Study) -> list[tuple[float, float]]:
    marks = {style.marker for style in row_styles(study).values()}
    lines = [line for line in axes.get_lines() if line.get_marker() in marks]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def wide(maker: CurveMaker) -> Material:
    """A row of three seeds whose interval is many times as wide as what the others reach."""
    maker.row("hc", -0.03).row("mhc", -0.02)
    base = list(maker.maker.training["identity"].values())
    maker.maker.row("odd", [run.train_loss[-1] + gap for run, gap in zip(base, (-0.3, 0.3, 0.3), strict=False)])
    return maker.build({"hc": 1.2, "mhc": 1.3, "odd": 1.1})


def test_bars_that_the_axis_cuts_end_in_arrows_and_the_caption_says_so(maker: CurveMaker) -> None:
    material = wide(maker)
    low, high = material.summary.frame.set_index("row").loc["odd", ["loss_gap_ci95_low", "loss_gap_ci95_high"]]
    cost, gap = draw(quality_cost, material), draw(loss_gap, material)
    bottom, top = cost.figure.axes[0].get_ylim()
    left, right = gap.figure.axes[0].get_xlim()
    assert low < bottom < top < high
    assert left < low < right < high
    assert arrows(cost.figure.axes[0]) == [(1.1, bottom), (1.1, top)]
    assert arrows(gap.figure.axes[0]) == [(right, 2)]
    for plot in (cost, gap):
        assert "Bars with an arrow go on beyond the axis." in plot.caption


def test_bars_within_the_axis_have_no_arrow(maker: CurveMaker) -> None:
    material = maker.row("mhc", -0.03).row("hc", -0.05).build({"mhc": 1.2, "hc": 1.3})
    for figure in (quality_cost, loss_gap):
        plot = draw(figure, material)
        assert not arrows(plot.figure.axes[0])
        assert "arrow" not in plot.caption


def test_a_row_that_finished_without_its_baseline_is_not_said_to_be_unfinished(maker: CurveMaker) -> None:
    maker.row("hc", -0.03)
    maker.maker.row("mhc", ["failed"] * 5 + [2.4]).row("crashed", ["failed"] * 5)
    plot = draw(loss_gap, maker.build())
    assert [text for text in texts(plot) if text.startswith("no seed")] == [
        "no seed in common with the baseline",
        "no seed finished",
    ]


def test_every_row_is_a_point_and_the_front_is_over_all_of_them(maker: CurveMaker) -> None:
    last = MAX_ROWS + 5
    for place in range(last + 1):
        maker.row(f"row_{place}", -0.3 if place == last else 0.01 * place, variant="hc")
    maker.row("control", streams=1, variant="identity", control=True)
    material = maker.build({f"row_{place}": 1.2 + 0.03 * place for place in range(last + 1)} | {"control": 1.0})
    plot = draw(quality_cost, material)
    (axes,) = plot.figure.axes
    gaps = dict(zip(material.summary.frame["row"], material.summary.frame["loss_gap"], strict=True))
    for place in range(last + 1):
        assert pytest.approx((1.2 + 0.03 * place, gaps[f"row_{place}"])) in points(axes, material.study)
    names = {text for text in texts(plot) if text.startswith(("row", "control"))}
    assert names == {*(f"row_{place}" for place in range(MAX_ROWS)), f"row_{last}", "control"}
    (front,) = [line for line in axes.get_lines() if line.get_linewidth() == 0.7 and line.get_linestyle() == "--"]
    assert front.get_xydata()[-1] == pytest.approx((1.2 + 0.03 * last, gaps[f"row_{last}"]))
    assert f"Named are the first {MAX_ROWS} rows and those on the dashed line." in plot.caption


def test_all_rows_named_need_no_word(maker: CurveMaker) -> None:
    plot = draw(quality_cost, maker.row("mhc", -0.03).build({"mhc": 1.2}))
    assert "Named" not in plot.caption


def test_several_baselines_are_called_each_rows_own(maker: CurveMaker) -> None:
    maker.row("hc", -0.03).row("identity_m", variant="identity", streams=1, baseline="identity_m")
    material = maker.row("hc_m", -0.04, variant="hc", baseline="identity_m").build({"hc": 1.2})
    plot = draw(quality_cost, material)
    assert "own baseline" in texts(plot)
    assert plot.figure.axes[0].get_xlabel() == "time a step / its baseline's"
    assert "dashed" not in plot.caption


def test_with_another_baseline_the_control_arm_stands_among_the_rows(maker: CurveMaker) -> None:
    material = maker.row("mhc", -0.03).row("control", variant="identity", control=True).build()
    rows = [{**row, "baseline": "mhc"} for row in material.study.rows]
    rows[-1]["repeats"] = "identity"
    study = replace(material.study, spec={**material.study.spec, "rows": rows, "baseline": "mhc"})
    plot = draw(loss_gap, replace(material, study=study, summary=summarize(study)))
    assert [label.get_text() for label in plot.figure.axes[0].get_yticklabels()] == ["identity", "control"]
    floor = material.summary.noise_floors["identity"]
    (band,) = plot.figure.axes[0].patches
    assert band.get_xy()[:, 0].max() == pytest.approx(floor)  # still of the design that it repeats
    assert "between the control arm and the design it repeats" in plot.caption


def test_names_keep_air_between_them() -> None:
    (one,) = around([(100.0, 100.0)], ["identity_hc"], [], (0, 0, 500, 200))
    (other,) = around([(400.0, 100.0)], ["row_stochastic"], [], (0, 0, 410, 200))
    assert other[2] < 400  # at the left of its point, as the area ends
    near = 400 - (other[0] - one[2]) + 1  # where the two names would nearly touch
    boxes = around([(100, 100), (near, 100)], ["identity_hc", "row_stochastic"], [], (0, 0, near + 10, 200))
    assert boxes[0] == one
    assert boxes[1][0] >= one[2] + 3 or boxes[1][1] >= one[3] or boxes[1][3] <= one[1]


def test_lines_to_names_pass_no_other_point() -> None:
    left, right = (200.0, 100.0), (214.0, 100.0)
    markers = [(x - 4.5, y - 4.5, x + 4.5, y + 4.5) for x, y in (left, right)]
    bars = [(198.5, 0.0, 201.5, 200.0), (212.5, 0.0, 215.5, 200.0), (222.0, 60.0, 400.0, 140.0)]
    (box,) = around([right], ["hc_res_pre"], [*markers, *bars], (0, 0, 400, 200))
    start = np.clip(right, box[:2], box[2:])
    for part in np.linspace(0, 1, 50):
        x, y = start + part * (np.array(right) - start)
        assert not (195.5 < x < 204.5 and 95.5 < y < 104.5)


def test_a_crowd_of_points_is_named_in_no_time() -> None:
    generator = np.random.default_rng(0)
    at = [(float(x), float(y)) for x, y in generator.uniform(50, 350, (300, 2))]
    started = time.process_time()
    around(at[:25], ["a_name"] * 25, [(x - 4, y - 4, x + 4, y + 4) for x, y in at], (0, 0, 400, 400))
    assert time.process_time() - started < 1


def test_many_names_are_cut_in_a_sentence() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(9)]) == "0, 1, 2, 3, 4, 5 and 3 more"
