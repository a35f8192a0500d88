"""Matrices of H_res: entries and sums as worked by hand, one seed, a page that holds any number of streams and rows."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from material import MaterialMaker, probe

from mhc_lab.report.figures import matrices
from mhc_lab.report.figures.colour import luminance
from mhc_lab.report.figures.matrices import short, tiny
from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import GRID, INK, MUTED, PAPER, drawing, png, svg

LOSSES = [2.5, 2.6]
# Row sums 1.5, −0.75; column sums 0.75, 0. Twice: the product [[0.75, −0.25], [0.125, 0.625]].
HAND = [[1, 0.5], [-0.25, -0.5]]


@pytest.fixture
def maker(tmp_path: Path) -> MaterialMaker:
    return MaterialMaker(tmp_path).row("identity", LOSSES, modes="fff", streams=1)


def draw(maker: MaterialMaker) -> Plot:
    with drawing():
        plot = matrices.draw(maker.build())
    assert isinstance(plot, Plot)
    return plot


def texts(plot: Plot) -> list[str]:
    return [text.get_text() for text in plot.figure.axes[0].texts]


def random_layers(streams: int, layers: int) -> np.ndarray:
    return np.eye(streams) + 0.1 * np.random.default_rng(streams).standard_normal((layers, streams, streams))


def test_entries_and_sums_are_those_of_a_hand_worked_matrix(maker: MaterialMaker) -> None:
    said = texts(draw(maker.row("hc", LOSSES, streams=2, probes={0: probe([HAND])})))
    assert said[:2] == ["hc", "seed 0"]
    assert said[2:6] == ["1.00", ".50", "–.25", "–.50"]
    assert said[6] == "layer 1"
    assert said[7:11] == ["1.50", "0.75", "−0.75", "0.00"]  # row and column sum of each stream


def test_a_row_of_the_matrix_is_a_line_of_cells_from_the_top(maker: MaterialMaker) -> None:
    plot = draw(maker.row("hc", LOSSES, streams=2, probes={0: probe([HAND])}))
    places = {text.get_text(): text.get_position() for text in plot.figure.axes[0].texts}
    assert plot.figure.axes[0].yaxis_inverted()
    assert places["1.00"][1] == places[".50"][1] == places["1.50"][1] < places["–.25"][1] == places["−0.75"][1]
    assert places["1.50"][0] < places["1.00"][0] == places["0.75"][0] < places[".50"][0] == places["0.00"][0]
    cells = plot.figure.axes[0].collections[0]
    np.testing.assert_array_equal(cells.get_array(), HAND)
    assert (cells.norm.vmin, cells.norm.vmax) == (-1, 1)


@pytest.mark.parametrize(
    ("layers", "titles"),
    [
        (1, ["layer 1"]),
        (2, ["layer 1", "layer 2", "layers 1–2"]),
        (3, ["layer 1", "layer 2", "layer 3", "layers 1–3", "layers 2–3"]),
        (60, ["layer 1", "layer 30", "layer 60", "layers 1–60", "layers 30–60"]),
    ],
)
def test_first_middle_and_last_layer_and_the_products_to_the_output(
    maker: MaterialMaker, layers: int, titles: list[str]
) -> None:
    plot = draw(maker.row("hc", LOSSES, streams=2, probes={0: probe([np.eye(2)] * layers)}))
    assert [text for text in texts(plot) if text.startswith("layer")] == titles


def test_a_product_is_that_of_all_layers_from_its_first(maker: MaterialMaker) -> None:
    plot = draw(maker.row("hc", LOSSES, streams=2, probes={0: probe([HAND, HAND])}))
    product = plot.figure.axes[0].collections[2].get_array()
    np.testing.assert_allclose(product * 0.875, [[0.875, 0.25], [-0.125, 0.125]])
    assert {".88", ".25", "–.12", ".12"} <= set(texts(plot))


def test_it_shows_the_first_seed_that_has_a_probe(maker: MaterialMaker) -> None:
    probes = {2: probe([np.eye(2)]), 1: probe([HAND])}
    plot = draw(maker.row("hc", ["diverged", 2.4, 2.5], streams=2, probes=probes))
    assert "–.25" in texts(plot)
    assert "seed 1" in texts(plot)
    assert "Seed 1 alone." in plot.caption


@pytest.mark.parametrize(("streams", "numbers", "sums"), [(2, 4, 4), (3, 9, 6), (4, 16, 8), (8, 0, 16), (16, 0, 0)])
def test_numbers_are_printed_while_there_is_room(maker: MaterialMaker, streams: int, numbers: int, sums: int) -> None:
    plot = draw(maker.row("hc", LOSSES, streams=streams, probes={0: probe(random_layers(streams, 1))}))
    drawn = plot.figure.axes[0].texts
    cells = [text for text in drawn if text.get_color() in ("#000001", "#fffffe")]
    decimals = [text for text in drawn if re.fullmatch(r"−?\d\.\d\d", text.get_text()) and text not in cells]
    assert (len(cells), len(decimals)) == (numbers, sums)
    assert any(" to " in text.get_text() for text in drawn) == (streams > 8)
    assert all(text.get_fontsize() >= 7 for text in drawn)


def test_negative_entries_without_numbers_have_dots(maker: MaterialMaker) -> None:
    matrix = np.eye(5)
    matrix[1, 3], matrix[4, 0], matrix[2, 0] = -0.5, -0.06, -0.01
    plot = draw(maker.row("hc", LOSSES, streams=5, probes={0: probe([matrix])}))
    (dots,) = plot.figure.axes[0].lines
    assert len(dots.get_xdata()) == 2
    assert dots.get_xdata()[0] > dots.get_xdata()[1]
    assert "dots are entries below" in plot.caption
    assert "layer 1, ±1.00" in texts(plot)


@pytest.mark.parametrize(("scale", "title"), [(1e9, "10^{9}"), (2e-9, "10^{-9}"), (1e38, "10^{38}")])
def test_large_and_small_matrices_have_their_power_in_the_title(maker: MaterialMaker, scale: float, title: str) -> None:
    plot = draw(maker.row("hc", LOSSES, streams=2, probes={0: probe([np.eye(2) * scale])}))
    assert any(title in text for text in texts(plot))
    assert f"{scale:.0e}"[0] + ".00" in texts(plot)
    assert png(plot.figure)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_matrix_that_is_not_finite_or_zero_is_drawn(maker: MaterialMaker, value: float) -> None:
    broken = probe([np.full((2, 2), value)])
    plot = draw(maker.row("hc", LOSSES, streams=2, probes={0: broken}))
    assert texts(plot)[2:6] == [{"nan": "?", "inf": "∞", "0.0": "0"}[str(value)]] * 4
    assert png(plot.figure)


def test_no_more_rows_than_a_page_holds_and_of_every_variant(maker: MaterialMaker) -> None:
    for place in range(8):
        variant = "mhc" if place > 5 else "hc"
        maker.row(f"row{place}", LOSSES, variant=variant, streams=2, probes={0: probe([HAND])})
    plot = draw(maker)
    assert [text for text in texts(plot) if text.startswith("row")] == [f"row{place}" for place in (0, 1, 2, 3, 6, 7)]
    assert "6 of the 8 rows that mix" in plot.caption
    assert "Without" not in plot.caption
    plot = draw(maker.row("bare", ["diverged"] * 2, streams=2).row("identity_hc", LOSSES, modes="fdd", streams=2))
    assert "6 of the 9 rows that mix" in plot.caption
    assert plot.caption.endswith(" Without a probe: bare.")
    assert plot.figure.get_figheight() < 10.8


def test_rows_without_a_probe_are_named_where_all_others_are_drawn(maker: MaterialMaker) -> None:
    maker.row("hc", LOSSES, streams=2, probes={0: probe([HAND])}).row("mhc", ["diverged"] * 2)
    plot = draw(maker)
    assert plot.caption.endswith("Seed 0 alone. Without a probe: mhc.")


def test_a_very_long_name_loses_its_middle(maker: MaterialMaker) -> None:
    plot = draw(maker.row("mhc_" + 120 * "x", LOSSES, streams=2, probes={0: probe([HAND])}))
    name = plot.figure.axes[0].texts[0]
    assert name.get_text().startswith("mhc_xx") and "…" in name.get_text() and "\n" not in name.get_text()
    plot.figure.draw_without_rendering()
    seed = plot.figure.axes[0].texts[1]
    assert name.get_window_extent().x1 < seed.get_window_extent().x0


def test_colours_on_cells_are_none_that_a_page_swaps_in_the_dark() -> None:
    swapped = {INK, MUTED, GRID, PAPER}
    shades = {"#" + "".join(f"{round(255 * part):02x}" for part in matrices._COLOURS(i)[:3]) for i in range(256)}
    assert not swapped & (shades | {matrices._DARK, matrices._LIGHT})


def test_luminance_is_that_of_wcag() -> None:
    assert [luminance(colour) for colour in ((0, 0, 0), (1, 1, 1), (0, 1, 0))] == pytest.approx([0, 1, 0.7152])
    assert luminance((118 / 255,) * 3) == pytest.approx(0.1812, abs=1e-4)  # the middle grey of contrast tables


def test_text_on_cells_can_be_read() -> None:
    for part in np.linspace(-1, 1, 41):
        red, green, blue = (
            (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
            for c in matrices._COLOURS(0.5 + 0.5 * part)[:3]
        )
        luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        contrast = (luminance + 0.05) / 0.05 if matrices._is_light(part) else 1.05 / (luminance + 0.05)
        assert contrast > 4.5, part  # WCAG 2.2, AA


def test_it_is_absent_without_a_row_that_mixes_and_without_probes(tmp_path: Path, maker: MaterialMaker) -> None:
    maker.row("identity_hc", LOSSES, modes="fdd", streams=2, probes={0: probe([np.eye(2)])})
    plain = matrices.draw(maker.build())
    assert isinstance(plain, Absent) and "no row mixes" in plain.reason
    # With one stream H_res may be any number: nothing is said of it.
    single = matrices.draw(maker.row("hc", LOSSES, streams=1, probes={0: probe([[[1.5]]])}).build())
    assert isinstance(single, Absent)
    assert single.reason == "no row mixes its streams; add one with H_res on and two or more streams"
    bare = MaterialMaker(tmp_path).row("identity", LOSSES, modes="fff", streams=1).row("mhc", ["diverged"])
    without = matrices.draw(bare.build())
    assert isinstance(without, Absent) and "(mhc) has a probe" in without.reason


@pytest.mark.parametrize("streams", [4, 24])
def test_the_same_bytes_twice(maker: MaterialMaker, streams: int) -> None:
    maker.row("hc", LOSSES, streams=streams, probes={0: probe(random_layers(streams, 3))})
    first, second = (svg(draw(maker).figure, matrices.NAME) for _ in range(2))
    ElementTree.fromstring(first)
    assert first == second
    assert ("<image" in first) == (streams > 16)


@pytest.mark.parametrize(
    ("value", "sum_text", "entry_text"),
    [
        (0.0, "0.00", "0"),
        (-0.001, "0.00", "0"),
        (0.004, "0.00", "0"),
        (0.25, "0.25", ".25"),
        (-0.25, "−0.25", "–.25"),
        (0.996, "1.00", "1.00"),
        (-0.996, "−1.00", "–1.0"),
        (1.184, "1.18", "1.18"),
        (-1.184, "−1.18", "–1.2"),
        (9.996, "10.0", "10.0"),
        (-13.46, "−13.5", "–13"),
        (99.97, "100", "100"),
        (-235.6, "−236", "–236"),
        (float("nan"), "?", "?"),
        (float("-inf"), "−∞", "–∞"),
    ],
)
def test_numbers_are_as_short_as_their_place(value: float, sum_text: str, entry_text: str) -> None:
    assert short(value) == sum_text
    assert tiny(value) == entry_text
