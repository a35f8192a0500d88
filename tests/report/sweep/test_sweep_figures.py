"""Every figure and page of a sweep, of usual and of odd data."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.sweep import Sweep, write
from mhc_lab.report.sweep.data import Parameter
from mhc_lab.report.sweep.figures import contour, draw_all, history, pareto, slices
from mhc_lab.report.sweep.figures.marks import readable
from mhc_lab.report.sweep.importance import importances

sys.path.insert(0, str(Path(__file__).parent))
import sweeps as made


def drawn(sweep: Sweep) -> dict[str, Plot | Absent]:
    found = draw_all(sweep, [importances(sweep, n) for n in range(len(sweep.objectives))])
    return {figure.name: figure for figure in found}


def check_links(folder: Path) -> list[str]:
    links = re.findall(r"\]\(([^)]+)\)", (folder / "sweep.md").read_text())
    assert all((folder / link).is_file() for link in links), links
    return links


def test_usual_sweep_has_every_figure(tmp_path: Path) -> None:
    sweep = made.with_lost(made.usual(40, time=False))
    paths = write(sweep, tmp_path, provenance={})
    assert paths[0] == tmp_path / "sweep.md" and all(path.is_file() for path in paths)
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert names == {"history", "slices", "contour", "parallel", "importance", "intermediate"}
    assert names == {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert {f"figures/{name}.svg" for name in names} < set(check_links(tmp_path))
    text = (tmp_path / "sweep.md").read_text()
    assert "40 comparable trials of 48, means over 3 seeds" in text and "do not allow" not in text
    assert "Trial 46 failed: RuntimeError: out of memory" in text


def test_two_objectives_have_a_front_and_slices_of_both(tmp_path: Path) -> None:
    write(made.usual(30, time=True), tmp_path, ["md", "png"], provenance={})
    links = check_links(tmp_path)
    assert {"figures/pareto.png", "figures/slices.png", "figures/slices_ms_per_step.png", "pareto.md"} <= set(links)
    assert not (tmp_path / "best.md").exists()


def test_a_starting_point_on_the_front_has_one_name() -> None:
    sweep = made.usual(30, time=True)
    best = sweep.ranked[0]
    trials = tuple(dataclasses.replace(t, enqueued=t.number == best.number) for t in sweep.trials)
    figure = pareto.draw(dataclasses.replace(sweep, trials=trials))
    assert isinstance(figure, Plot)
    (axes,) = figure.figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["front", "starting point"]


@pytest.mark.parametrize("name", made.odd())
def test_odd_data_is_drawn_or_says_why_not(name: str, tmp_path: Path) -> None:
    sweep = made.odd()[name]
    write(sweep, tmp_path, provenance={})
    check_links(tmp_path)
    for figure in drawn(sweep).values():
        if isinstance(figure, Absent):
            assert figure.reason and figure.reason in (tmp_path / "sweep.md").read_text().replace("\\", "")
        else:
            assert (tmp_path / "figures" / f"{figure.name}.svg").is_file() and figure.caption.endswith(".")
            assert "NaN" not in figure.svg and "nan" not in figure.caption


@pytest.mark.parametrize("name", ["no trials", "all failed", "all diverged", "only pruned"])
def test_nothing_to_compare_leaves_no_figure_of_values(name: str) -> None:
    found = drawn(made.odd()[name])
    assert all(isinstance(figure, Absent) for key, figure in found.items() if key != "intermediate")
    assert isinstance(found["intermediate"], Plot) is (name == "only pruned")


def test_history_marks_what_was_lost() -> None:
    figure = history.draw(made.with_lost(made.usual(20)))
    assert isinstance(figure, Plot)
    labels = [tick.get_text() for tick in figure.figure.axes[1].get_yticklabels()]
    assert labels == ["diverged (2)", "pruned (4)", "failed (1)"]
    best = next(line for line in figure.figure.axes[0].lines if line.get_label() == "best so far")
    steps = np.asarray(best.get_ydata(), dtype=float)
    assert (np.diff(steps) <= 0).all() and steps[-1] == min(t.values[0] for t in made.usual(20).trials if t.values)


def test_slices_have_the_scales_of_the_space() -> None:
    figure = slices.draw(made.usual(20))
    assert isinstance(figure, Plot)
    scales = {axes.get_xlabel(): axes.get_xscale() for axes in figure.figure.axes}
    assert scales == {"t_max": "log", "alpha_init": "log", "streams": "linear"}
    points = [line for line in figure.figure.axes[0].lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in points) == 20


def test_by_draws_a_line_for_each_value() -> None:
    figure = slices.draw(made.by_variant())
    assert isinstance(figure, Plot)
    (axes,) = figure.figure.axes
    assert [line.get_label() for line in axes.lines if line.get_linestyle() == "-"] == ["identity", "hc", "mhc"]


def test_the_names_of_many_values_stay_on_the_figure() -> None:
    variants = ("identity", "identity_wide", "identity_hc", "hc", "mhc", "orthogonal", "row_stochastic")
    by = Parameter("residual", "choices", choices=(*variants, "column_stochastic"))
    trials = [made.trial(i, {"residual": choice, made.RATE.key: 1e-3}) for i, choice in enumerate(by.choices)]
    figure = slices.draw(dataclasses.replace(made.sweep(trials, (by, made.RATE)), by="residual"))
    assert isinstance(figure, Plot)
    figure.figure.canvas.draw()
    (legend,) = figure.figure.legends
    box, whole = legend.get_window_extent(), figure.figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1


def test_contour_stays_within_the_hull_of_the_trials() -> None:
    """Trials on the lower left triangle of the plane: its upper right is not drawn."""
    corner = [
        made.trial(10 * i + j, {"residual.alpha_init": 10 ** (-3 + 0.6 * i), "optim.lr": 10 ** (-4 + 0.6 * j)})
        for i in range(6)
        for j in range(6 - i)
    ]
    sweep = made.sweep(corner, (made.ALPHA, made.RATE))
    figure = contour.draw(sweep, importances(sweep), (made.ALPHA.key, made.RATE.key))
    assert isinstance(figure, Plot) and "none beyond them" in figure.caption
    axes = figure.figure.axes[0]
    ends = np.concatenate([path.vertices for c in axes.collections[:1] for path in c.get_paths() if len(path.vertices)])
    x, y = (np.log10(ends) - [-3, -4]).T
    assert (x + y <= 3 + 0.05).all() and x.max() > 2.9


def test_few_places_are_points_alone() -> None:
    sweep = made.usual(8)
    figure = contour.draw(sweep, importances(sweep))
    assert isinstance(figure, Plot) and "Points alone" in figure.caption


def test_contour_takes_the_default_pair_or_the_most_important() -> None:
    sweep = made.usual(30)
    figure = contour.draw(sweep, importances(sweep))
    assert isinstance(figure, Plot) and figure.title == "t_max and streams"
    other = made.usual(30, (made.ALPHA, made.RATE, made.T_MAX))
    figure = contour.draw(other, importances(other))
    assert isinstance(figure, Plot) and set(figure.title.split(" and ")) == {"t_max", "lr"}
    figure = contour.draw(other, importances(other), ("residual.alpha_init", "optim.lr"))
    assert isinstance(figure, Plot) and figure.title == "alpha_init and lr"


def test_axis_is_not_spoilt_by_a_few_bad_trials() -> None:
    low, high = readable([2.5, 2.6, 2.55, 2.7, 2.52, 2.51, 2.53, 2.54, 900.0])
    assert low < 2.5 and 2.7 < high < 4
    assert readable([2.5, 2.6]) == pytest.approx((2.494, 2.606))
    assert readable([2.5, 2.5])[0] < 2.5 < readable([2.5, 2.5])[1]


def test_former_figures_and_tables_go(tmp_path: Path) -> None:
    write(made.usual(30, time=True), tmp_path, provenance={})
    write(made.sweep([]), tmp_path, provenance={})
    assert not list((tmp_path / "figures").iterdir()) and not (tmp_path / "pareto.md").exists()
    check_links(tmp_path)


def test_same_sweep_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(made.usual(15), tmp_path / name, provenance={})
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_thousand_trials_are_drawn_in_ten_seconds() -> None:
    sweep = made.usual(1000, (made.T_MAX, made.ALPHA, made.STREAMS, made.RATE))
    found = importances(sweep)
    start = time.process_time()
    plots = [figure for figure in draw_all(sweep, [found]) if isinstance(figure, Plot)]
    assert len(plots) == 5 and all(plot.svg for plot in plots)
    assert time.process_time() - start < 10


def test_states_are_counted_in_words() -> None:
    assert made.with_lost(made.usual(5)).state_words() == "7 complete (2 diverged), 4 pruned, 1 failed, 1 running"
    assert dataclasses.replace(made.usual(2), trials=()).state_words() == "none"


def test_torch_stays_out() -> None:
    heavy = {"torch", "optuna", "sklearn", "matplotlib"}
    code = f"import sys, mhc_lab.report.sweep; assert not {heavy} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
