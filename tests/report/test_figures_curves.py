"""Figures over steps and layers: lines over seeds, their bands, lost seeds, axes and what captions say of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from figures_data import CurveMaker, draw, lines, marks, texts
from matplotlib.collections import PolyCollection

from mhc_lab.report import stats
from mhc_lab.report.curves import Training
from mhc_lab.report.figures import gradient_norm, loss_steps, spread
from mhc_lab.report.figures.paper import MHC_FINAL_GAP
from mhc_lab.report.figures.plot import Absent
from mhc_lab.report.figures.seed_curves import over_seeds, smooth
from mhc_lab.report.figures.style import row_styles
from mhc_lab.report.summary import summarize

FINAL = 600  # the last step of generated curves


@pytest.fixture
def maker(tmp_path: Path) -> CurveMaker:
    """With a baseline already."""
    return CurveMaker(tmp_path)


# ---- curves over seeds


def test_a_band_is_the_t_interval_of_the_seeds_that_are_left() -> None:
    x = np.arange(1.0, 5.0)
    values = np.array([[1, 2, 3, 4], [2, 3, 4, 6], [3, 1, 2, 2], [9, 9, np.nan, np.nan]], dtype=float)
    line = over_seeds({seed: (x, y) for seed, y in enumerate(values)}, diverged={3})
    assert line is not None
    assert line.mean == pytest.approx([3.75, 3.75, 3, 4])
    for at, left in ((0, 4), (3, 3)):
        expected = stats.mean_interval(list(values[:left, at]))
        assert line.high[at] - line.mean[at] == pytest.approx(expected.half_width)
        assert line.mean[at] - line.low[at] == pytest.approx(expected.half_width)
    assert list(line.whole) == [True, True, False, False]
    assert line.ends == [(2.0, 9.0)]


def test_a_seed_that_diverged_before_it_logged_a_step_is_missing_from_the_start() -> None:
    x = np.array([1.0, 2.0])
    line = over_seeds({0: (x, x), 1: (x, x)}, diverged={2})
    assert line is not None
    assert not line.whole.any()
    assert over_seeds({0: (x, np.array([np.nan, np.inf]))}) is None


def test_steps_that_only_some_seeds_logged_are_no_points_unless_the_others_ended() -> None:
    dense, sparse = np.arange(1.0, 9.0), np.array([2.0, 4.0, 6.0])
    line = over_seeds({0: (dense, dense), 1: (sparse, sparse)})
    assert line is not None
    assert list(line.x) == [2, 4, 6, 7, 8]
    assert list(line.whole) == [True, True, True, False, False]


def test_smoothing_starts_beyond_100_points_and_keeps_straight_lines() -> None:
    rough = np.random.default_rng(0).standard_normal(100)
    assert smooth(rough) is rough
    straight = np.linspace(3, 7, 500)
    assert smooth(straight) == pytest.approx(straight)
    pulse = np.zeros(500)
    pulse[250] = 11
    assert smooth(pulse)[243:258] == pytest.approx([0, 0, *[1] * 11, 0, 0])


# ---- loss over steps


def test_loss_steps_are_paired_differences_and_their_interval(maker: CurveMaker) -> None:
    material = maker.row("mhc", -0.03).build()
    (axes,) = draw(loss_steps, material).figure.axes
    rows = material.training
    gaps = np.array([rows["mhc"][seed].train_loss - rows["identity"][seed].train_loss for seed in range(5)])
    colour = row_styles(material.study)["mhc"].colour
    (line,) = lines(axes, colour)
    assert np.array_equal(line.get_xdata(), rows["mhc"][0].steps)
    assert line.get_ydata() == pytest.approx(gaps.mean(axis=0))
    (band,) = axes.collections
    assert isinstance(band, PolyCollection)
    mean, half = stats.band(gaps[:, -1:])
    ends = band.get_paths()[0].vertices
    assert half is not None
    assert sorted({round(y, 9) for x, y in ends if x == FINAL}) == pytest.approx([mean[0] - half[0], mean[0] + half[0]])
    # Early gaps are several times those at the end, and out of sight.
    assert axes.get_ylim()[1] < np.abs(gaps.mean(axis=0)).max() < 1
    assert axes.get_ylim()[0] < MHC_FINAL_GAP.value
    assert any("27B" in text for text in texts(axes.figure))


def test_up_to_4_rows_share_a_panel_with_their_bands_more_have_one_each(maker: CurveMaker) -> None:
    for place in range(4):
        maker.row(f"row_{place}", -0.01 * place, variant="hc")
    figure = draw(loss_steps, maker.build()).figure
    assert [len(axes.collections) for axes in figure.axes] == [4]
    figure = draw(loss_steps, maker.row("row_4", variant="hc").build()).figure
    assert [len(axes.collections) for axes in figure.axes] == [0, 1, 1, 1, 1, 1]
    assert [axes.get_title(loc="left") for axes in figure.axes[1:]] == [f"row_{place}" for place in range(5)]


def test_a_diverged_seed_turns_its_line_dotted_and_leaves_a_cross(maker: CurveMaker) -> None:
    material = maker.row("hc", -0.05, ends={1: 30, 3: 45}).row("mhc", -0.03).build()
    plot = draw(loss_steps, material)
    (axes,) = plot.figure.axes
    colours = {row: style.colour for row, style in row_styles(material.study).items()}
    whole, lost = lines(axes, colours["hc"], points=5)
    assert whole.get_xdata()[-1] == 300
    assert (whole.get_linestyle(), lost.get_linestyle()) == ("-", "--")  # as matplotlib calls any pattern
    assert lost.get_linewidth() < whole.get_linewidth()
    assert lost.get_xdata()[-1] == FINAL
    rows = material.training
    left = [rows["hc"][seed].train_loss[-1] - rows["identity"][seed].train_loss[-1] for seed in (0, 2, 4)]
    assert lost.get_ydata()[-1] == pytest.approx(np.mean(left))
    assert [x for x, _ in marks(axes, "x")] == [300, 450]
    assert all(y <= axes.get_ylim()[1] for _, y in marks(axes, "x"))
    assert len(lines(axes, colours["mhc"], points=5)) == 1
    assert "hc (2 of 5 diverged)" in texts(plot.figure)
    assert "× marks where a seed of the row or of its baseline ended" in plot.caption
    # The surges before the ends are many times the gaps: the axis is for the gaps.
    assert axes.get_ylim()[1] < 0.2


def test_a_row_far_off_does_not_flatten_the_others(maker: CurveMaker) -> None:
    figure = draw(loss_steps, maker.row("mhc", -0.03).row("hc", -0.05).row("far", 5.0).build()).figure
    assert figure.axes[0].get_ylim()[1] < 0.2
    assert "far ↑" in texts(figure)


def test_the_papers_gap_is_named_in_the_caption_where_it_would_flatten_the_lines(maker: CurveMaker) -> None:
    material = maker.row("mhc", same=True).build()
    for run in material.training["mhc"].values():
        run.train_loss[:] -= 1e-4
    plot = draw(loss_steps, material)
    assert plot.figure.axes[0].get_ylim()[0] > MHC_FINAL_GAP.value
    assert "−0.021 (mHC paper, Fig. 5a), lies outside" in plot.caption


def test_captions_say_what_is_smoothed_and_when_there_is_no_band(tmp_path: Path) -> None:
    few = draw(loss_steps, CurveMaker(tmp_path, seeds=2).row("mhc").build())
    assert "Each point is the mean over the 10 steps before it. " in few.caption
    assert "no bands with fewer than 3 seeds" in few.caption
    assert not few.figure.axes[0].collections[0].get_paths()
    many = draw(loss_steps, CurveMaker(tmp_path, points=500).row("mhc").build())
    assert "the 10 steps before it; each seed's curve is a centred moving average over 11 of 500 points" in many.caption


def test_gaps_are_to_each_rows_own_baseline(maker: CurveMaker) -> None:
    maker.row("hc_s", -0.05, variant="hc").row("identity_m", -0.5, variant="identity", baseline="identity_m")
    material = maker.row("hc_m", -0.56, variant="hc", baseline="identity_m").build({"hc_s": 1.2})
    (axes,) = draw(loss_steps, material).figure.axes
    (line,) = lines(axes, row_styles(material.study)["hc_m"].colour, points=5)
    rows = material.training
    ends = [rows["hc_m"][seed].train_loss[-1] - rows["identity_m"][seed].train_loss[-1] for seed in range(5)]
    assert line.get_ydata()[-1] == pytest.approx(np.mean(ends))


def test_training_without_a_common_step_is_absent(maker: CurveMaker) -> None:
    material = maker.row("mhc").build()
    empty = Training(np.array([7.0]), np.array([1.0]), np.array([0.0]))
    strange = replace(material, training={"identity": material.training["identity"], "mhc": {0: empty}})
    absent = loss_steps.draw(strange)
    assert isinstance(absent, Absent)
    assert absent.reason.startswith("no row and its baseline logged training steps")


@pytest.mark.parametrize("rows", [1, 6])
def test_late_bands_are_whole_or_the_caption_says_that_they_are_cut(rows: int, maker: CurveMaker) -> None:
    for place in range(rows):
        maker.row(f"row_{place}", -0.03, variant="hc")
    material = maker.build()
    for apart, cut in ((0.02, False), (5.0, True)):
        for seed, run in material.training["row_0"].items():
            run.train_loss[20:] += apart * (seed - 2)
        plot = draw(loss_steps, material)
        panels = plot.figure.axes[-rows:]
        (low, high) = {axes.get_ylim() for axes in panels}.pop()
        assert {axes.get_ylim() for axes in panels} == {(low, high)}
        gaps = [
            material.training["row_0"][seed].train_loss - material.training["identity"][seed].train_loss
            for seed in range(5)
        ]
        mean, half = stats.band(np.array(gaps)[:, 20:])
        assert half is not None
        assert ((mean - half).min() < low or (mean + half).max() > high) == cut
        assert ("Bands are cut at the axis." in plot.caption) == cut
        # Lines that have bands elsewhere need no room for them.
        assert rows == 1 or cut or high - low > 1.5 * np.ptp(plot.figure.axes[0].get_ylim())


def test_where_every_seed_of_the_baseline_diverged_lines_end_in_crosses(tmp_path: Path) -> None:
    ends = dict.fromkeys(range(5), 40)
    maker = CurveMaker(tmp_path).row("base", ends=ends, variant="identity", streams=1)
    maker.maker.rows[-1]["baseline"] = "base"
    material = maker.row("mhc", -0.03, baseline="base").build()
    plot = draw(loss_steps, material)
    (axes,) = plot.figure.axes
    assert [x for x, _ in marks(axes, "x")] == [400] * 5
    assert "× marks where a seed of the row or of its baseline ended early" in plot.caption


def test_nothing_is_drawn_beyond_the_end_of_a_line(maker: CurveMaker) -> None:
    material = maker.row("hc", ends=dict.fromkeys(range(5), 30)).row("mhc", -0.03).build()
    (axes,) = draw(loss_steps, material).figure.axes
    assert {line.get_xdata()[-1] for line in lines(axes, row_styles(material.study)["hc"].colour)} == {300}


def test_no_marker_is_cut_at_an_end_of_the_axis(tmp_path: Path) -> None:
    maker = CurveMaker(tmp_path, points=16)
    for place in range(3):
        maker.row(f"row_{place}", -0.01 * place, variant="hc")
    material = maker.build()
    for figure, shown in ((loss_steps, 5), (spread, 8)):
        (axes,) = draw(figure, material).figure.axes
        for row in ("row_0", "row_1", "row_2"):
            (line,) = lines(axes, row_styles(material.study)[row].colour, points=5)
            at = line.get_xdata()[line.get_markevery()]
            assert len(at) == shown
            assert axes.get_xlim()[0] < at[0] < at[-1] < axes.get_xlim()[1]


# ---- gradient norm


def test_gradient_norms_are_geometric_means_and_the_axis_is_logarithmic_from_a_factor_of_30(maker: CurveMaker) -> None:
    material = maker.row("mhc", -0.03).build()
    (axes,) = draw(gradient_norm, material).figure.axes
    assert axes.get_yscale() == "linear"
    for row in ("identity", "mhc"):
        (line,) = lines(axes, row_styles(material.study)[row].colour, points=5)
        norms = np.array([run.grad_norm for run in material.training[row].values()])
        assert line.get_ydata() == pytest.approx(np.exp(np.log(norms).mean(axis=0)))
    for run in material.training["mhc"].values():
        run.grad_norm[:10] *= 100
    (axes,) = draw(gradient_norm, material).figure.axes
    assert axes.get_yscale() == "log"


def test_the_largest_step_of_each_row_stands_beside_its_mean(maker: CurveMaker) -> None:
    for place in range(5):
        maker.row(f"row_{place}", variant="hc")
    material = maker.build()
    assert "Max" not in draw(gradient_norm, material).caption
    cells = material.study.cells
    peaks = np.where(cells["row"] == "row_3", 50.0 + cells["seed"], 2.54)
    study = replace(material.study, cells=cells.assign(max_grad_norm=peaks))
    material = replace(material, study=study, summary=summarize(study))
    plot = draw(gradient_norm, material)
    shown = [text.replace("\N{NO-BREAK SPACE}", " ") for text in texts(plot.figure)]
    assert shown.count("row_3, max 54") == 2
    assert shown.count("row_0, max 2.5") == 2
    assert "Max is the largest norm of a single step, of all seeds." in plot.caption
    assert "the mean over the 10 steps before it" in plot.caption


# ---- spread


def test_spread_is_drawn_over_layers_of_rows_with_several_streams(maker: CurveMaker) -> None:
    material = maker.row("mhc", spread=0.2).row("hc", spread=1e-3).row("twin", spread=1e-9, variant="mhc").build()
    plot = draw(spread, material)
    (axes,) = plot.figure.axes
    styles = row_styles(material.study)
    assert not lines(axes, styles["identity"].colour)
    for row in ("mhc", "hc"):
        (line,) = lines(axes, styles[row].colour)
        values = np.array([probe.spread for probe in material.probes[row].values()])
        assert list(line.get_xdata()) == list(range(1, 9))
        assert line.get_ydata() == pytest.approx(np.exp(np.log(values).mean(axis=0)))
    assert not lines(axes, styles["twin"].colour)
    assert "equal streams: twin" in texts(plot.figure)
    assert axes.get_yscale() == "log"


def test_spread_says_why_it_is_absent(maker: CurveMaker) -> None:
    absent = spread.draw(maker.build())
    assert isinstance(absent, Absent)
    assert "single stream" in absent.reason
    absent = spread.draw(maker.row("twin", spread=0.0).build())
    assert isinstance(absent, Absent)
    assert "twin stay equal" in absent.reason
