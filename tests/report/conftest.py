"""Generated studies: study.json, run folders with their record.json, timing.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mhc_lab.config.compose import to_dict
from mhc_lab.config.schema import ResidualConfig, RunConfig
from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import drawing, panels
from mhc_lab.report.frame import load
from mhc_lab.report.layout import lay_out
from mhc_lab.report.page import render
from mhc_lab.report.provenance import provenance
from mhc_lab.report.summary import summarize

sys.path.insert(0, str(Path(__file__).parent))  # for what tests here share: browser.py, speed.py and others

MODES = ("h_res", "h_pre", "h_post")


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


class StudyMaker:
    """Builds one study row by row. A row's `losses` are by seed; None leaves the cell without a record."""

    def __init__(self, results: Path, name: str) -> None:
        self.results, self.name = results, name
        self.spec: dict[str, Any] = {
            "study": name,
            "grid": name,
            "title": "Residual variants at nano scale",
            "baseline": "identity",
            "command": f"mhc-lab ablate {name}",
            "created": "2026-01-01T00:00:00+00:00",
            "overrides": ["trainer.max_steps=50"],
            "storage": "sqlite:///studies.db",
            "rows": [],
            "cells": [],
            "timing_config": {},
        }

    def row(
        self,
        row: str,
        losses: list[float | None],
        *,
        modes: str = "fff",
        streams: int = 4,
        paper: float | None = None,
        variant: str | None = None,
        baseline: str | None = None,
        **changes: Any,
    ) -> StudyMaker:
        """`modes` are the first letters of those of h_res, h_pre, h_post; `changes` go into every record.

        A row named control is a control arm.
        """
        names = {"d": "dynamic", "s": "static", "f": "fixed"}
        line = {"row": row, "variant": variant or row} | dict(zip(MODES, (names[m] for m in modes), strict=True))
        line |= {"overrides": [f"residual={variant or row}"], "baseline": baseline, "control": "control" in row}
        self.spec["rows"].append(line | {"streams": streams, "paper_loss_gap": paper})
        for seed, loss in enumerate(losses):
            self.cell(row, seed, loss, **changes)
        return self

    def cell(self, row: str, seed: int, loss: float | None, **changes: Any) -> None:
        """Set a cell's record: finished at `loss`, with `changes` as part.key or key."""
        run_id = f"{row}-{seed:012x}"
        cell = {"row": row, "seed": seed, "run_id": run_id}
        if cell not in self.spec["cells"]:
            self.spec["cells"].append(cell)
        if loss is None and not changes:
            return
        self.record(run_id, row, seed, loss, **changes)

    def record(self, run_id: str, row: str, seed: int, loss: float | None, **changes: Any) -> None:
        write(self.results / "runs" / run_id / "record.json", record(run_id, row, seed, loss, changes))

    def save(self, timing: dict[str, float] | None = None) -> Path:
        for row in self.spec["rows"]:
            row["baseline"] = row["baseline"] or self.spec["baseline"]
        write(self.results / self.name / "study.json", self.spec)
        if timing:
            rows = {
                row: {
                    "baseline": self.spec["baseline"],
                    "ms_per_step": 10.0 * ratio,
                    "ms_ratio": ratio,
                    "samples": 40,
                    "run_id": f"{row}-{0:012x}",
                }
                for row, ratio in timing.items()
            }
            content = {"device": "cpu", "threads": 2, "rows": rows}
            write(self.results / self.name / "timing.json", content)
        return self.results


def record(run_id: str, variant: str, seed: int, loss: float | None, changes: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "run_id": run_id,
        "status": "finished",
        "reason": None,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:00:10+00:00",
        "seconds": 10.0,
        "variant": variant,
        "seed": seed,
        "control": False,
        "corpus_fingerprint": "c0ffee",
        "code_fingerprint": "abc123",
        "metrics": {
            "train_loss": 2.5,
            "val_loss": loss,
            "bits_per_byte": None if loss is None else loss / 0.6931471805599453,
            "grad_norm": 0.5,
            "max_grad_norm": 2.0 + seed,
            "loss_spikes": seed % 2,
            "gain_forward": 1.0,
            "gain_backward": 1.0 + seed / 100,
            "composite_gain_forward": 1.0,
            "composite_gain_backward": 1.5,
            "ds_error": 1e-7,
            "stream_spread": 0.1,
            "tokens_per_second": 1e4,
            "ms_per_step": 100.0 + seed,
            "peak_memory_mb": 300.0 + seed,
            "steps": 50,
        },
        "degenerate": {"spread_perturbed": 0.4, "spread_step10": 0.2, "degenerate": False},
        "cost": {
            "parameters": 1234567,
            "connection_parameters": 1000,
            "flops_per_token": 7654321,
            "connection_flops_per_token": 2000,
        },
        "probe_seconds": 0.1,
        "probe_fraction": 0.01,
        "environment": {
            "python": "3.11.9",
            "torch": "2.13.0",
            "lightning": "2.6.6",
            "platform": "Linux",
            "device": "cpu",
            "threads": 1,
            "mhc_lab": "0.1.0",
        },
    }
    for key, value in changes.items():
        part, _, inner = key.partition("__")
        if inner:
            content[part][inner] = value
        else:
            content[part] = value
    return content


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[[str], StudyMaker]:
    """A study of the given name in one results folder."""
    return lambda name: StudyMaker(tmp_path / "results", name)


@pytest.fixture
def study(make_study: Callable[[str], StudyMaker]) -> StudyMaker:
    return make_study("demo")


@pytest.fixture
def full_study(study: StudyMaker) -> Path:
    """Baseline, control, a clear winner, one inside the noise, a degenerate cell, lost seeds; 5 seeds."""
    base = [2.50, 2.52, 2.49, 2.51, 2.53]
    study.row("identity", base, streams=1, paper=0.0)
    study.row("control", [2.53, 2.51, 2.50, 2.49, 2.52], streams=1, variant="identity")
    study.row(
        "mhc", [b - d for b, d in zip(base, (0.10, 0.11, 0.09, 0.10, 0.105), strict=True)], modes="ddd", paper=-0.027
    )
    study.row("identity_hc", [b - d for b, d in zip(base, (0.01, -0.01, 0.02, -0.02, 0.0), strict=True)], modes="fsd")
    study.row(
        "mhc_res_only",
        base,
        modes="dff",
        variant="mhc",
        paper=-0.022,
        degenerate={"spread_perturbed": 0.0, "spread_step10": 0.0, "degenerate": True},
    )
    study.row("hc", [2.4, 2.41, 2.42, None, None], modes="ddd", paper=-0.027, metrics__composite_gain_forward=9213.4)
    study.cell("hc", 3, None, status="failed", reason="out of memory\nin the backward pass", metrics={}, cost={})
    study.cell("hc", 4, None, status="diverged", reason="loss is nan", metrics__steps=120, metrics__max_grad_norm=1e9)
    return study.save(
        timing={"identity": 1.0, "control": 1.0, "mhc": 1.41, "hc": 1.38, "identity_hc": 1.2, "mhc_res_only": 1.4}
    )


@pytest.fixture
def write_config(study: StudyMaker) -> Callable[..., None]:
    """Puts the config.yaml of a variant into the run folders of a row; `settings` are of `residual`."""

    def write_config(row: str, variant: str, **settings: Any) -> None:
        config = to_dict(RunConfig(residual=ResidualConfig(variant=variant, **settings)))
        text = yaml.safe_dump(config, sort_keys=False)
        for cell in study.spec["cells"]:
            if cell["row"] == row:
                folder = study.results / "runs" / cell["run_id"]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "config.yaml").write_text(text.replace("seed: 0", f"seed: {cell['seed']}"))

    return write_config


@pytest.fixture
def draw_page() -> Callable[..., str]:
    """The report page of the study in a results folder, with one figure of two lines and one that is not there."""

    def draw_page(results: Path, name: str = "demo") -> str:
        study = load(results, name)
        summary = summarize(study)
        with drawing():
            figure, (axes,) = panels()
            axes.plot([0, 1], [0, 1], label="mhc")
            axes.set_xlabel("training step")
        plot = Plot("loss_steps", "Loss gap over training", "Mean over 5 seeds; the paper's Fig. 5a.", figure)
        absent = Absent("loss_scale", "one model size only: run the grid scaling")
        origin = provenance(study, "mhc-lab export demo")
        return render(study, summary, lay_out(study, summary), [plot, absent], origin)

    return draw_page


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium."""
    import browser

    started = browser.start(tmp_path_factory.mktemp("chromium"))
    if started is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    yield started
    started.quit()
