"""Scaling: points at hand-worked compute and gaps, designs found again at other sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from material import MaterialMaker, falling

from mhc_lab.report.figures import scaling
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.style import MAX_ROWS, drawing, png, svg

T_4 = 3.182446305284263  # 97.5 % point of Student's t with 3 degrees of freedom
BASE = [2.0, 2.5, 2.0, 2.5]
SIZES = {"s": (100, 1_000), "l": (400, 50_000)}  # steps, FLOPs a token


def size(maker: MaterialMaker, name: str, *, config: bool = True) -> None:
    steps, flops = SIZES[name]
    numbers = {"steps": steps, "flops_per_token": flops, "parameters": flops}
    tokens = (8, 128) if config else None
    kind = {"variant": "identity", "modes": "fff", "streams": 1, "tokens_a_step": tokens}
    maker.row(f"identity_{name}", BASE, baseline=f"identity_{name}", **kind, **numbers)


def design(
    maker: MaterialMaker,
    row: str,
    gaps: Sequence[float | str],
    variant: str = "hc",
    overrides: Sequence[str] = (),
) -> None:
    losses = [base + gap if isinstance(gap, float) else gap for base, gap in zip(BASE, gaps, strict=True)]
    maker.row(row, losses, variant=variant, overrides=overrides, baseline=f"identity_{row[-1]}")


@pytest.fixture
def maker(tmp_path: Path) -> MaterialMaker:
    maker = MaterialMaker(tmp_path)
    size(maker, "l")
    size(maker, "s")
    return maker


def draw(material: Material) -> Plot:
    with drawing():
        plot = scaling.draw(material)
    assert isinstance(plot, Plot)
    return plot


def points(plot: Plot, panel: int) -> list[tuple[list[float], list[float]]]:
    """x and y of the lines through two sizes."""
    lines = [line for line in plot.figure.axes[panel].lines if line.get_marker() != "None" and line.get_clip_on()]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines if len(line.get_xdata()) > 1]


def labels(plot: Plot) -> list[str]:
    return [text.get_text().replace("\n", " ") for axes in plot.figure.axes for text in axes.texts]


def test_gaps_and_ratios_stand_at_the_compute_of_their_baseline(maker: MaterialMaker) -> None:
    design(maker, "hc_l", [-0.02, -0.05, -0.02, -0.05])
    design(maker, "hc_s", [-0.1] * 4)
    plot = draw(maker.build())
    ((x, percent),) = points(plot, 0)
    np.testing.assert_allclose(x, [100 * 1024 * 1_000, 400 * 1024 * 50_000])  # the smaller first
    np.testing.assert_allclose(percent, [(95 + 96) / 2, (99 + 98) / 2])
    ((_, gap),) = points(plot, 1)
    np.testing.assert_allclose(gap, [-0.1, -0.035])
    ticks = [label.get_text() for label in plot.figure.axes[0].get_xticklabels()]
    assert ticks == ["$1.0\\cdot10^{8}$\n1k", "$2.0\\cdot10^{10}$\n50k"]
    assert plot.figure.axes[0].get_xscale() == "log"


def test_bars_are_paired_t_intervals(maker: MaterialMaker) -> None:
    design(maker, "hc_s", [-0.1] * 4)
    design(maker, "hc_l", [-0.02, -0.05, -0.02, -0.05])
    bars = [line.get_ydata() for line in draw(maker.build()).figure.axes[1].lines if line.get_linewidth() == 1.0]
    half = T_4 * np.std([0.02, 0.05, 0.02, 0.05], ddof=1) / 2
    np.testing.assert_allclose(bars, [[-0.1, -0.1], [-0.035 - half, -0.035 + half]], atol=1e-12)


def test_two_seeds_have_no_bar(maker: MaterialMaker) -> None:
    for row in ("hc_s", "hc_l"):
        design(maker, row, [-0.1, -0.2, "failed", "failed"])
    plot = draw(maker.build())
    assert not [line for line in plot.figure.axes[1].lines if line.get_linewidth() == 1.0]
    assert "means over 2 seeds" in plot.caption


def test_a_design_is_a_variant_with_the_same_changes_of_the_residual(maker: MaterialMaker) -> None:
    static = ["residual.h_res=static", "residual.h_pre=fixed"]
    design(maker, "hc_s", [-0.1] * 4)
    design(maker, "hc_static_s", [-0.2] * 4, overrides=static)
    design(maker, "hc_l", [-0.3] * 4, overrides=["model.dim=128"])
    design(maker, "hc_static_l", [-0.4] * 4, overrides=static[::-1])
    design(maker, "mhc_l", [-0.5] * 4, variant="mhc")
    plot = draw(maker.build())
    np.testing.assert_allclose([gap for _, gap in points(plot, 1)], [[-0.1, -0.3], [-0.2, -0.4]])
    assert {"hc", "hc_static"} <= set(labels(plot))
    assert "Without a finished seed or a second size: mhc_l." in plot.caption
    (first, _), (second, _) = points(plot, 1)
    assert first[0] < 100 * 1024 * 1_000 < second[0]  # side by side


def three_sizes(maker: MaterialMaker, **overrides: Sequence[str]) -> MaterialMaker:
    """Of identity and hc; s and l are measured from identity, m from a baseline of its own design (the study's)."""
    for place, name in enumerate("slm"):
        row, variant = (f"mhc_{name}", "mhc") if name == "m" else (f"identity_{name}", "identity")
        numbers = {"steps": 100, "flops_per_token": 10.0 ** (3 + place), "tokens_a_step": (8, 128)}
        curves = {seed: falling(seed, 1.0) for seed in range(4)}
        changes = overrides.get(name, ())
        maker.row(row, BASE, variant=variant, baseline=row, training=curves, overrides=changes, **numbers)
        maker.row(f"hc_{name}", BASE, variant="hc", baseline=row, training=curves)
    return maker


def test_gaps_to_baselines_of_different_designs_make_no_line(tmp_path: Path) -> None:
    material = three_sizes(MaterialMaker(tmp_path)).build()
    assert len(points(draw(material), 1)) == 1
    assert points(draw(material), 1)[0][0] == [8 * 128 * 100 * 1e3, 8 * 128 * 100 * 1e4]
    assert "Measured from another design: hc_m." in draw(material).caption
    material.study.spec["baseline"] = "mhc_m"  # as where one chose it: no other size is measured from that design
    plot = draw(material)
    assert plot.figure.axes[0].get_xlabel() == "training tokens"
    assert {"hc_s", "hc_m", "hc_l"} <= set(labels(plot))


def test_baselines_that_override_the_residual_are_of_different_designs(tmp_path: Path) -> None:
    material = three_sizes(MaterialMaker(tmp_path), l=["residual.t_max=5"]).build()
    assert draw(material).figure.axes[0].get_xlabel() == "training tokens"
    same = three_sizes(MaterialMaker(tmp_path / "same"), l=["model.dim=128"]).build()
    assert same.study.baseline == "identity_s"
    assert len(points(draw(same), 1)) == 1


def test_names_without_a_common_word_give_way_to_what_they_change(maker: MaterialMaker) -> None:
    design(maker, "a_s", [-0.1] * 4, overrides=["residual.t_max=5"])
    design(maker, "b_l", [-0.2] * 4, overrides=["residual.t_max=5"])
    assert "hc, t_max=5" in labels(draw(maker.build()))


def test_rows_that_differ_elsewhere_are_lines_of_their_own(maker: MaterialMaker) -> None:
    for place, rate in enumerate(("low", "high")):
        for name in ("s", "l"):
            design(maker, f"{rate}_{name}", [-0.1 - place] * 4, overrides=[f"optim.learning_rate={place}"])
    plot = draw(maker.build())
    np.testing.assert_allclose([gap for _, gap in points(plot, 1)], [[-0.1, -0.1], [-1.1, -1.1]])
    assert {"low", "high"} <= {label.removesuffix(" ↓") for label in labels(plot)}


def test_lost_seeds_are_crossed_and_counted(maker: MaterialMaker) -> None:
    design(maker, "hc_s", [-0.1] * 4)
    design(maker, "hc_l", [-0.1, -0.1, "diverged", -0.1])
    plot = draw(maker.build())
    crosses = [line for line in plot.figure.axes[1].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[400 * 1024 * 50_000]]
    assert "hc (1 of 8 diverged)" in labels(plot)
    assert "after others diverged" in plot.caption


def test_a_baseline_that_lost_seeds_is_crossed_too(tmp_path: Path) -> None:
    maker = MaterialMaker(tmp_path)
    for name, losses in (("s", [2.0, 2.5]), ("l", [2.0, "diverged"])):
        numbers = {"steps": 100, "flops_per_token": {"s": 1_000, "l": 9_000}[name]}
        base = {"variant": "identity", "baseline": f"identity_{name}", "tokens_a_step": (8, 128)}
        maker.row(f"identity_{name}", losses, **base, **numbers)
        maker.row(f"hc_{name}", [1.9, 2.4], variant="hc", baseline=f"identity_{name}")
    plot = draw(maker.build())
    crosses = [line for line in plot.figure.axes[0].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[100 * 1024 * 9_000]]
    assert "means over 1–2 seeds" in plot.caption


def test_the_noise_floor_and_the_papers_number(maker: MaterialMaker) -> None:
    design(maker, "hc_s", [-0.1] * 4)
    design(maker, "hc_l", [-0.05] * 4)
    for name, losses in (("s", [2.0, 2.5, 1.97, 2.5]), ("l", [2.01, 2.5, 2.0, 2.5])):
        maker.row(f"control_{name}", losses, control=True, variant="identity", baseline=f"identity_{name}")
    plot = draw(maker.build())
    floors = [line.get_ydata() for line in plot.figure.axes[1].lines if line.get_linewidth() == 10]
    np.testing.assert_allclose(floors, [[-0.03, 0.03], [-0.01, 0.01]])
    assert {"noise floor", "mHC, 27B: −0.021 (mHC paper, Fig. 5a)"} <= set(labels(plot))
    assert len(points(plot, 1)) == 1
    assert "control_" not in plot.caption
    assert "Dotted: the paper's number, a gap of training loss." in plot.caption


def test_a_number_that_would_squash_the_rest_is_in_the_caption(maker: MaterialMaker) -> None:
    for row in ("hc_s", "hc_l"):
        design(maker, row, [-0.002] * 4)
    plot = draw(maker.build())
    assert plot.figure.axes[1].get_ylim()[0] > -0.01
    paper = "The paper's number, mHC, 27B: −0.021 (mHC paper, Fig. 5a), a gap of training loss, lies outside."
    assert paper in plot.caption
    assert "Dotted" not in plot.caption


def test_a_design_far_off_does_not_flatten_the_others(maker: MaterialMaker) -> None:
    for variant, gap in (("hc", -0.03), ("mhc", -0.02), ("mine", 4.0)):
        for name in ("s", "l"):
            design(maker, f"{variant}_{name}", [gap] * 4, variant=variant)
    plot = draw(maker.build())
    assert plot.figure.axes[1].get_ylim()[1] < 0.1
    assert plot.figure.axes[0].get_ylim()[1] < 105
    assert "mine ↑" in labels(plot)


def test_designs_beyond_the_first_are_left_out_and_counted(maker: MaterialMaker) -> None:
    for place in range(MAX_ROWS + 2):
        for name in ("s", "l"):
            design(maker, f"hc{place}_{name}", [-0.01 * place] * 4, overrides=[f"residual.t_max={place + 1}"])
    plot = draw(maker.build())
    assert len(points(plot, 1)) == MAX_ROWS
    assert f"the first {MAX_ROWS} of {MAX_ROWS + 2} designs" in plot.caption


def test_sizes_too_near_each_other_keep_a_tick_alone(tmp_path: Path) -> None:
    maker = MaterialMaker(tmp_path)
    for name, flops in (("a", 1_000), ("b", 1_010), ("c", 100_000)):
        numbers = {"steps": 100, "flops_per_token": flops, "parameters": flops}
        base = {"variant": "identity", "baseline": f"identity_{name}", "tokens_a_step": (8, 128)}
        maker.row(f"identity_{name}", BASE, **base, **numbers)
        design(maker, f"hc_{name}", [-0.1] * 4)
    ticks = [label.get_text() for label in draw(maker.build()).figure.axes[1].get_xticklabels()]
    assert [bool(tick) for tick in ticks] == [True, False, True]


def test_sizes_of_the_same_compute_are_no_sizes(tmp_path: Path) -> None:
    maker = MaterialMaker(tmp_path)
    for name in ("s", "l"):
        numbers = {"steps": 100, "flops_per_token": 1_000, "tokens_a_step": (8, 128)}
        maker.row(f"identity_{name}", BASE, baseline=f"identity_{name}", training={0: falling(0, 1.0)}, **numbers)
        maker.row(f"hc_{name}", BASE, variant="hc", baseline=f"identity_{name}", training={0: falling(0, 0.9)})
    plot = draw(maker.build())
    assert plot.figure.axes[0].get_xlabel() == "training tokens"
    assert {"hc_s", "hc_l", "own baseline"} <= set(labels(plot))


def test_it_is_absent_where_nothing_can_be_paired(tmp_path: Path) -> None:
    one = MaterialMaker(tmp_path / "one").row("identity", BASE, modes="fff", streams=1).row("hc", ["failed"])
    absent = scaling.draw(one.build())
    assert isinstance(absent, Absent) and absent.reason.startswith("no row and its baseline logged")
    several = MaterialMaker(tmp_path / "several")
    for name in ("s", "l"):
        size(several, name, config=False)
        design(several, f"hc_{name}", [-0.1] * 4)
    absent = scaling.draw(several.build())
    assert isinstance(absent, Absent) and absent.reason.startswith("no design at two sizes")


def test_the_same_bytes_twice(maker: MaterialMaker) -> None:
    for row in ("hc_s", "hc_l"):
        design(maker, row, [-0.1, -0.2, -0.1, -0.3])
    material = maker.build()
    first, second = (svg(draw(material).figure, scaling.NAME) for _ in range(2))
    ElementTree.fromstring(first)
    assert first == second
    assert png(draw(material).figure)
