"""Gains by layer: the curves against hand-worked matrices, one line for rows that cannot mix, an axis that holds."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from material import MaterialMaker, probe

from mhc_lab.report.figures import gains
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.style import MAX_ROWS, drawing, png, svg

# Row sums 1.5, 1 and 2, 1; column sums 1, 1.5 and 2, 1; the product [[2, 1], [0, 1]] has 3, 1 and 2, 2.
HAND = [[[1, 0.5], [0, 1]], [[2, 0], [0, 1]]]
ONES = np.ones((2, 1, 1))
EYE = np.broadcast_to(np.eye(2), (2, 2, 2))
LOSSES = [2.5, 2.6, 2.4]


@pytest.fixture
def maker(tmp_path: Path) -> MaterialMaker:
    return MaterialMaker(tmp_path).row("identity", LOSSES, modes="fff", streams=1, probes={0: probe(ONES)})


def draw(material: Material) -> Plot:
    with drawing():
        plot = gains.draw(material)
    assert isinstance(plot, Plot)
    return plot


def curves(plot: Plot, panel: int) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in plot.figure.axes[panel].lines}


def test_the_four_panels_hold_the_gains_of_a_hand_worked_model(maker: MaterialMaker) -> None:
    plot = draw(maker.row("hc", LOSSES[:1], streams=2, probes={0: probe(HAND)}).build())
    for panel, expected in enumerate(([1.5, 2], [1.5, 2], [3, 2], [2, 2])):
        np.testing.assert_allclose(curves(plot, panel)["hc"], expected)
    assert list(plot.figure.axes[0].lines[1].get_xdata()) == [1, 2]
    assert not plot.figure.axes[0].collections  # a band needs two seeds


def test_lines_are_geometric_means_and_bands_the_range(maker: MaterialMaker) -> None:
    probes = {seed: probe(np.multiply(HAND, scale)) for seed, scale in enumerate((1, 4, 2))}
    plot = draw(maker.row("hc", LOSSES, streams=2, probes=probes).build())
    np.testing.assert_allclose(curves(plot, 0)["hc"], [3, 4])
    (band,) = plot.figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1.5, 8)


def test_rows_that_cannot_mix_share_one_line_at_1(maker: MaterialMaker) -> None:
    maker.row("identity_hc", LOSSES, modes="fdd", streams=2, probes={0: probe(EYE)})
    maker.row("mhc", LOSSES, streams=2, probes={seed: probe(EYE) for seed in range(3)})
    for panel in range(4):
        drawn = curves(draw(maker.build()), panel)
        assert [label for label in drawn if not label.startswith("_")] == ["1: identity, identity_hc", "mhc"]
        np.testing.assert_array_equal(drawn["mhc"], 1)  # it could mix: that its gain is 1 is a result


def test_the_papers_numbers_are_drawn_where_they_do_not_squash_the_rest(maker: MaterialMaker) -> None:
    large = draw(maker.row("hc", LOSSES, streams=2, probes={0: probe(np.multiply(HAND, 5))}).build())
    assert [line.get_ydata()[0] for line in large.figure.axes[2].lines[-2:]] == [3000, 1.6]
    assert [text.get_text() for text in large.figure.axes[3].texts] == ["3000", "1.6"]
    assert large.figure.axes[2].get_ylim()[1] > 3000
    assert "Beyond" not in large.caption
    assert not large.figure.axes[0].texts  # single layers have no number in the paper


def test_a_number_beyond_the_axis_is_in_the_caption(maker: MaterialMaker) -> None:
    plot = draw(maker.row("mhc", LOSSES, streams=2, probes={0: probe(EYE * 1.001)}).build())
    assert plot.figure.axes[2].get_ylim()[1] < 1.1
    assert "Beyond the axis: HC, 27B: peak about 3000 (mHC paper, Fig. 3b), mHC, 27B" in plot.caption


def test_gains_within_rounding_do_not_fill_the_axis(maker: MaterialMaker) -> None:
    plot = draw(maker.row("mhc", LOSSES, streams=2, probes={0: probe(EYE * (1 + 1e-7))}).build())
    low, high = plot.figure.axes[0].get_ylim()
    assert low < 0.99 < 1.01 < high


@pytest.mark.parametrize("scale", [1e-9, 1e9, 1e-308, 1e308, 0.0, np.nan, np.inf])
def test_any_gain_leaves_a_readable_axis(maker: MaterialMaker, scale: float) -> None:
    with np.errstate(invalid="ignore"):
        odd = probe([[[scale, 0], [0, scale]], [[1, 0.5], [0, 1]]])
    plot = draw(maker.row("hc", LOSSES[:2], streams=2, probes={0: probe(HAND), 1: odd}).build())
    low, high = plot.figure.axes[0].get_ylim()
    assert 0 < low < 1 < high < np.inf
    assert low <= max(min(scale, 1), 1e-250) if scale > 0 and scale < np.inf else low > 0.5
    assert ("gain of 0" in plot.caption) == (scale == 0)
    assert ("not finite" in plot.caption) == (not np.isfinite(scale))
    assert png(plot.figure)


def test_seeds_that_are_not_drawn_are_counted_in_the_legend(maker: MaterialMaker) -> None:
    maker.row("hc", [2.4, "diverged", 2.5, None], streams=2, probes={0: probe(HAND), 2: probe(HAND)})
    (legend,) = draw(maker.build()).figure.legends
    assert "hc (1 of 4 diverged, 3 of 4 seeds)" in [text.get_text() for text in legend.get_texts()]


def test_more_rows_than_bands_can_show_have_none_and_the_caption_says_so(maker: MaterialMaker) -> None:
    probes = {seed: probe(np.multiply(HAND, 1 + seed)) for seed in range(3)}
    for place in range(4):
        maker.row(f"row{place}", LOSSES, streams=2, probes=probes)
    plot = draw(maker.build())
    assert [len(panel.collections) for panel in plot.figure.axes] == [4] * 4
    assert "bands: their range." in plot.caption
    plot = draw(maker.row("row4", LOSSES, streams=2, probes=probes).build())
    assert [len(panel.collections) for panel in plot.figure.axes] == [0] * 4
    assert "no bands, which 5 rows would hide" in plot.caption


def test_a_row_without_a_probe_is_named_in_the_caption(maker: MaterialMaker) -> None:
    maker.row("hc", LOSSES, streams=2, probes={0: probe(HAND)}).row("mhc", ["diverged"] * 3, streams=2)
    maker.row("identity_hc", LOSSES, modes="fdd", streams=2)
    assert draw(maker.build()).caption.endswith(" Without a probe: mhc.")


def test_a_single_stream_with_a_gain_is_drawn(maker: MaterialMaker) -> None:
    plot = draw(maker.row("hc", LOSSES, streams=1, probes={0: probe([[[1.5]], [[2.0]]])}).build())
    np.testing.assert_allclose(curves(plot, 2)["hc"], [3, 2])
    assert "Without" not in plot.caption


@pytest.mark.parametrize("name", ["mhc_" + 120 * "x", "_mhc", "lr$1e-3 vs $2", "mhc$\\foo$"])
def test_any_name_stands_in_the_legend_and_leaves_room_for_the_others(maker: MaterialMaker, name: str) -> None:
    maker.row("hc", LOSSES, streams=2, probes={0: probe(np.multiply(HAND, 5))})
    plot = draw(maker.row(name, LOSSES, streams=2, probes={0: probe(HAND)}).build())
    assert png(plot.figure)
    (legend,) = plot.figure.legends
    said = [text.get_text().replace("\n", "") for text in legend.get_texts()]
    assert name in said or ("…" in said[2] and len(said[2]) < 60)
    assert len(said) == 5
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= plot.figure.bbox.width
    assert box.y0 >= 0


def test_models_of_several_depths_stand_in_one_figure(maker: MaterialMaker) -> None:
    maker.row("hc", LOSSES[:1], streams=2, probes={0: probe(HAND)})
    maker.row("hc_deep", LOSSES[:1], variant="hc", streams=2, probes={0: probe(np.concatenate([HAND] * 30))})
    drawn = curves(draw(maker.build()), 2)
    assert (len(drawn["hc"]), len(drawn["hc_deep"])) == (2, 60)


def test_rows_beyond_the_first_are_left_out_and_counted(maker: MaterialMaker) -> None:
    for place in range(MAX_ROWS + 3):
        maker.row(f"row{place:02d}" + 34 * "x", LOSSES, streams=2, probes={0: probe(HAND)})
    plot = draw(maker.build())
    assert len(curves(plot, 0)) == MAX_ROWS + 1
    assert f"the first {MAX_ROWS} of {MAX_ROWS + 3} rows" in plot.caption
    with drawing():
        plot.figure.draw_without_rendering()
    width = plot.figure.legends[0].get_window_extent().width / plot.figure.dpi
    assert width < plot.figure.get_figwidth()


def test_it_is_absent_without_a_row_that_mixes_and_without_probes(tmp_path: Path, maker: MaterialMaker) -> None:
    plain = gains.draw(maker.build())
    assert isinstance(plain, Absent) and "no row mixes" in plain.reason
    bare = MaterialMaker(tmp_path).row("identity", LOSSES, modes="fff", streams=1).row("mhc", ["diverged"])
    without = gains.draw(bare.build())
    assert isinstance(without, Absent) and "(mhc) has a probe" in without.reason


def test_the_same_bytes_twice(maker: MaterialMaker) -> None:
    material = maker.row("hc", LOSSES, streams=2, probes={seed: probe(HAND) for seed in range(3)}).build()
    first, second = (svg(draw(material).figure, gains.NAME) for _ in range(2))
    ElementTree.fromstring(first)
    assert first == second
