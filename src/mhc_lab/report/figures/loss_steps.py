"""Training loss of every row against its baseline's, step by step (Fig. 2a and 5a of the paper)."""

from __future__ import annotations

import numpy as np

from mhc_lab.report.figures import against_baseline
from mhc_lab.report.figures.against_baseline import Comparison
from mhc_lab.report.figures.paper import MHC_FINAL_GAP, from_plain_residual
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.frame import Study

NAME = "loss_steps"
_DIFFERENCE = Comparison(
    np.subtract, 0.0, "minus its baseline's", "training loss − baseline's\n(nats per token)", margin=0.01
)


def draw(material: Material) -> Plot | Absent:
    """A line a row. Absent without a step that a row and its baseline logged with the same seed."""
    plain = from_plain_residual(material.study)
    return against_baseline.draw(
        material,
        NAME,
        "Loss gap over training",
        _DIFFERENCE,
        after="Fig. 5a" if plain else "Fig. 2a" if _from_mhc(material.study) else None,
        paper=MHC_FINAL_GAP if plain else None,
    )


def _from_mhc(study: Study) -> bool:
    return all(row["variant"] == "mhc" for row in study.rows if row["row"] in study.baselines)
