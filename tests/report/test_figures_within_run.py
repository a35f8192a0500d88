"""Scaling within one size: the relative loss over the tokens of the runs."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from material import MaterialMaker, falling, training

from mhc_lab.report.figures import scaling
from mhc_lab.report.figures.plot import Material, Plot
from mhc_lab.report.figures.style import drawing, svg

BASE = [2.0, 2.5, 2.0, 2.5]


def draw(material: Material) -> Plot:
    with drawing():
        plot = scaling.draw(material)
    assert isinstance(plot, Plot)
    return plot


def labels(plot: Plot) -> list[str]:
    return [text.get_text().replace("\n", " ") for axes in plot.figure.axes for text in axes.texts]


def within(maker: MaterialMaker, **row: object) -> MaterialMaker:
    curves = {seed: falling(seed, 1.0) for seed in range(4)}
    maker.row("identity", BASE, modes="fff", streams=1, training=curves, tokens_a_step=(8, 128))
    return maker.row("hc", BASE, training={seed: falling(seed, 0.97) for seed in range(4)}, **row)


def test_with_one_size_the_relative_loss_is_drawn_over_tokens(tmp_path: Path) -> None:
    plot = draw(within(MaterialMaker(tmp_path)).build())
    (axes,) = plot.figure.axes
    (line,) = (line for line in axes.lines if len(line.get_xdata()) == 40)
    np.testing.assert_allclose(line.get_ydata(), 97)
    np.testing.assert_allclose(line.get_xdata(), 10 * 8 * 128 * np.arange(1, 41))
    assert axes.get_xlabel() == "training tokens"
    assert axes.xaxis.get_major_formatter()(200_000) == "200k"
    assert "Fig. 6b" in plot.caption
    assert "mean over 4 seeds" in plot.caption


def test_without_a_config_it_is_drawn_over_steps(tmp_path: Path) -> None:
    maker = MaterialMaker(tmp_path).row("identity", [2.0], modes="fff", streams=1, training={0: falling(0, 1.0)})
    (axes,) = draw(maker.row("hc", [2.0], training={0: falling(0, 0.9)}).build()).figure.axes
    assert axes.get_xlabel() == "training step"
    assert axes.get_xlim()[1] == 400
    assert axes.get_ylim()[0] < 90 < 100 < axes.get_ylim()[1]


def test_a_run_that_diverged_dots_the_line(tmp_path: Path) -> None:
    maker = within(MaterialMaker(tmp_path))
    maker.row("mhc", [2.0, "diverged"], training={0: falling(0, 0.95), 1: falling(1, 0.95, points=20)})
    plot = draw(maker.build())
    assert [line for line in plot.figure.axes[0].lines if line.get_linestyle() == "--" and len(line.get_xdata()) == 21]
    assert "mhc (1 of 2 diverged)" in labels(plot)


def test_the_axis_is_for_the_late_part_and_the_rows_that_trained(tmp_path: Path) -> None:
    maker = within(MaterialMaker(tmp_path))
    early = [*np.linspace(6, 2, 6), *(falling(0, 0.98).train_loss[6:])]
    maker.row("early", [2.0], training={0: training(early)})
    maker.row("off", [9.0], training={0: falling(0, 4.0)})
    low, high = draw(maker.build()).figure.axes[0].get_ylim()
    assert 90 < low < 97
    assert 100 < high < 110


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    material = within(MaterialMaker(tmp_path)).build()
    first, second = (svg(draw(material).figure, scaling.NAME) for _ in range(2))
    ElementTree.fromstring(first)
    assert first == second
