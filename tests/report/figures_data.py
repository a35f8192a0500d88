"""Generated studies whose curves look like those of training, for the figures over steps, layers, rows and cost,
and what is read off the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
from material import MaterialMaker
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mhc_lab.report.curves import Probe, Training
from mhc_lab.report.figures.plot import Material, Plot
from mhc_lab.report.figures.style import drawing
from mhc_lab.report.summary import summarize

LAYERS = 8


def curve(seed: int, gap: float = 0.0, *, points: int = 60, ends: int | None = None, name: str = "") -> Training:
    """A falling loss, `gap` lower at the end; what seeds share is noise. A run that `ends` early surges before it."""
    steps = 10 * np.arange(1, points + 1, dtype=float)
    shared = np.random.default_rng([seed, 7])
    own = np.random.default_rng([seed, *name.encode()])
    done = np.linspace(0, 1, points)
    loss = 2.2 + 3.5 * np.exp(-6 * done) + 0.05 * shared.standard_normal(points)
    loss += gap * done**0.5 + 0.3 * (name != "") * own.standard_normal() * np.exp(-15 * done)
    loss += (name != "") * (0.01 * own.standard_normal(points) + 0.01 * own.standard_normal())
    norm = np.exp(0.2 * own.standard_normal(points) - 1.2 * done)
    if ends is not None:
        surge = np.exp(np.maximum(np.arange(points) - ends + 5, 0) * 1.5)
        loss, norm = loss + (surge - 1) / 50, norm * surge
    stop = ends or points
    return Training(steps[:stop], loss[:stop], norm[:stop])


def curves(
    gap: float = 0.0, *, name: str = "", seeds: int = 5, points: int = 60, ends: Mapping[int, int] | None = None
) -> dict[int, Training]:
    ends = ends or {}
    return {seed: curve(seed, gap, points=points, ends=ends.get(seed), name=name) for seed in range(seeds)}


def probes(spread: float, *, seeds: Sequence[int] = range(5), layers: int = LAYERS) -> dict[int, Probe]:
    """Probes whose streams differ by about `spread`, more so in deeper layers."""
    found = {}
    for seed in seeds:
        noise = np.random.default_rng(seed).standard_normal(layers)
        ones = np.ones(layers)
        matrices = np.tile(np.eye(4), (layers, 1, 1))
        values = spread * np.linspace(1, 2, layers) * np.exp(0.1 * noise)
        found[seed] = Probe(100, ones, ones, ones, ones, values, matrices, matrices)
    return found


def losses(training: Mapping[int, Training], points: int = 60) -> list[float | str]:
    """The final losses by seed; "diverged" for runs that ended early."""
    return [
        float(run.train_loss[-1]) if len(run.steps) == points else "diverged" for _, run in sorted(training.items())
    ]


class CurveMaker:
    """Rows whose table, curves and probes go together; the first is the baseline, without noise of its own."""

    def __init__(self, folder: Path, *, seeds: int = 5, points: int = 60) -> None:
        self.maker = MaterialMaker(folder)
        self.seeds, self.points = seeds, points
        self.paper: dict[str, float] = {}
        self.row("identity", streams=1, modes="fff")

    def row(
        self,
        row: str,
        gap: float = 0.0,
        *,
        ends: Mapping[int, int] | None = None,
        spread: float = 0.2,
        streams: int = 4,
        modes: str = "ddd",
        variant: str | None = None,
        baseline: str | None = None,
        control: bool = False,
        paper: float | None = None,
        same: bool = False,
    ) -> CurveMaker:
        """`same` as the baseline, to the last bit; `ends` the points at which seeds diverge."""
        name = "" if same or not self.maker.rows else row
        training = curves(gap, name=name, seeds=self.seeds, points=self.points, ends=ends)
        final = losses(training, self.points)
        alive = [seed for seed, loss in enumerate(final) if loss != "diverged"]
        self.maker.row(
            row,
            final,
            variant=variant or row,
            streams=streams,
            modes=modes,
            baseline=baseline,
            control=control,
            training=training,
            probes=probes(spread, seeds=alive),
        )
        if paper is not None:
            self.paper[row] = paper
        return self

    def build(self, timing: Mapping[str, float] | None = None) -> Material:
        material = self.maker.build()
        rows = [{**row, "paper_loss_gap": self.paper.get(row["row"])} for row in material.study.rows]
        study = replace(material.study, spec={**material.study.spec, "rows": rows})
        if timing:
            base = study.baselines[0]
            entries = {
                row: {"baseline": base, "ms_per_step": 20 * ratio, "ms_ratio": ratio, "samples": 20}
                for row, ratio in timing.items()
            }
            study = replace(study, timing={"device": "a CPU", "threads": 1, "rows": entries})
        return replace(material, study=study, summary=summarize(study))


def draw(figure: ModuleType, material: Material) -> Plot:
    with drawing():
        plot = figure.draw(material)
    assert isinstance(plot, Plot), plot
    return plot


def lines(axes: Axes, colour: str, *, points: int = 2) -> list[Line2D]:
    """Of a colour, over steps or layers; those beside the axis have a transform of their own."""
    found = [line for line in axes.get_lines() if to_hex(line.get_color()) == colour]
    return [line for line in found if len(line.get_xdata()) >= points and line.get_transform() == axes.transData]


def marks(axes: Axes, marker: str) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for line in axes.get_lines()
        if line.get_marker() == marker and line.get_linestyle() == "None" and line.get_transform() == axes.transData
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def texts(figure: Figure) -> list[str]:
    return [text.get_text().replace("\n", "") for text in figure.findobj(match=lambda it: hasattr(it, "get_text"))]
