"""Generated material for figures: a study with its table, training curves and probes, without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mhc_lab.report.curves import Probe, Training
from mhc_lab.report.figures.plot import Material
from mhc_lab.report.frame import CELL, ENVIRONMENT, NUMBERS, ORIGIN, Study
from mhc_lab.report.summary import summarize

MODES = {"d": "dynamic", "s": "static", "f": "fixed"}


def probe(matrices: Any, *, step: int = 100, spread: float = 0.1) -> Probe:
    """The probe of a run whose H_res [L, n, n] are these, the same for every token."""
    h_res = np.asarray(matrices, dtype=np.float64)
    composites = h_res.copy()
    for layer in range(len(h_res) - 2, -1, -1):
        composites[layer] = composites[layer + 1] @ h_res[layer]
    return Probe(
        step=step,
        gain_forward=_gain(h_res, 2),
        gain_backward=_gain(h_res, 1),
        composite_gain_forward=_gain(composites, 2),
        composite_gain_backward=_gain(composites, 1),
        spread=np.full(len(h_res), spread),
        h_res=h_res,
        h_res_composite=composites,
    )


def _gain(matrices: np.ndarray, axis: int) -> np.ndarray:
    return np.abs(matrices.sum(axis)).max(-1)


def training(losses: Sequence[float], *, every: int = 10) -> Training:
    """A run that logged these training losses."""
    steps = every * np.arange(1, len(losses) + 1, dtype=np.float64)
    return Training(steps, np.asarray(losses, dtype=np.float64), np.ones(len(losses)))


def falling(seed: int, factor: float, points: int = 40) -> Training:
    """A run whose loss falls, `factor` times as high as another's all the way; seeds differ."""
    return training(factor * (2 + np.exp(-np.arange(points) / 5) + 0.1 * seed))


class MaterialMaker:
    """Builds a study row by row; the first row is the baseline of those that name none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.cells: list[dict[str, Any]] = []
        self.training: dict[str, dict[int, Training]] = {}
        self.probes: dict[str, dict[int, Probe]] = {}

    def row(
        self,
        row: str,
        losses: Sequence[float | str | None],
        *,
        variant: str | None = None,
        modes: str = "ddd",
        streams: int = 4,
        baseline: str | None = None,
        control: bool = False,
        overrides: Sequence[str] = (),
        probes: Mapping[int, Probe] | None = None,
        training: Mapping[int, Training] | None = None,
        tokens_a_step: tuple[int, int] | None = None,
        **numbers: float,
    ) -> MaterialMaker:
        """`losses` are by seed: a word is the status of a cell without one, None a cell that has not run.

        `modes` are the first letters of those of h_res, h_pre, h_post; `tokens_a_step` (batch, sequence length) go
        into a config.yaml, `numbers` into every record.
        """
        design = {"variant": variant or row, "streams": streams}
        design |= dict(zip(("h_res", "h_pre", "h_post"), (MODES[letter] for letter in modes), strict=True))
        first = self.rows[0]["row"] if self.rows else row
        spec = {"row": row, "overrides": [f"residual={variant or row}", *overrides], "paper_loss_gap": None}
        self.rows.append(spec | design | {"baseline": baseline or first, "control": control})
        self.probes[row], self.training[row] = dict(probes or {}), dict(training or {})
        for seed, loss in enumerate(losses):
            cell = {"row": row, "seed": seed, "run_id": f"{row}-{seed:012x}", "degenerate": False} | design
            if loss is None:
                cell |= {"status": "not run"}
            elif isinstance(loss, str):
                cell |= {"status": loss, "reason": "loss is nan"} | numbers
            else:
                cell |= {"status": "finished", "val_loss": loss} | numbers
            self.cells.append(cell)
            if tokens_a_step:
                batch, sequence = tokens_a_step
                config = {"data": {"batch_size": batch}, "model": {"sequence_length": sequence}}
                folder = self.folder / "runs" / str(cell["run_id"])
                folder.mkdir(parents=True)
                (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return self

    def build(self) -> Material:
        frame = pd.DataFrame(self.cells, columns=[*CELL, "degenerate", *NUMBERS, *ORIGIN, *ENVIRONMENT])
        frame[list(NUMBERS)] = frame[list(NUMBERS)].astype(float)
        frame["threads"] = frame["threads"].astype("Int64")
        spec = {"study": "lab", "title": "A generated study", "rows": self.rows, "seeds": [], "overrides": []}
        spec["baseline"] = next((row["baseline"] for row in self.rows), None)
        study = Study(self.folder / "lab", self.folder / "runs", spec, None, frame)
        return Material(study, summarize(study), self.training, self.probes)
