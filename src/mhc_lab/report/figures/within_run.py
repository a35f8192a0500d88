"""Loss relative to the baseline's over the tokens of the runs (Fig. 6b of the paper)."""

from __future__ import annotations

from mhc_lab.errors import LabError
from mhc_lab.report.configs import settings
from mhc_lab.report.curves import Array
from mhc_lab.report.figures import against_baseline
from mhc_lab.report.figures.against_baseline import Comparison
from mhc_lab.report.figures.paper import from_plain_residual
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.frame import Study


def draw(material: Material, name: str) -> Plot | Absent:
    """A line a row: training loss in % of its baseline's.

    Over steps where the runs do not say how many tokens a step has. Absent without a step that a row and its baseline
    logged with the same seed.
    """
    study = material.study
    known = {row: tokens for row in study.baselines if (tokens := tokens_a_step(study, row)) is not None}
    return against_baseline.draw(
        material,
        name,
        "Relative loss over the tokens of training",
        _PERCENT,
        after="Fig. 6b" if from_plain_residual(study) else None,
        tokens=known if len(known) == len(study.baselines) else None,
    )


def tokens_a_step(study: Study, row: str) -> int | None:
    """Batch times sequence length; None where no run of the row has a config.yaml that says so."""
    try:
        known = settings(study, row)
        return int(known["data.batch_size"]) * int(known["model.sequence_length"])
    except (LabError, KeyError, ValueError):
        return None


def _percent(row: Array, baseline: Array) -> Array:
    return 100 * row / baseline


_PERCENT = Comparison(_percent, 100.0, "in % of its baseline's", "training loss / baseline's (%)", margin=0.1)
