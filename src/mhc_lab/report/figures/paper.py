"""The paper's numbers that figures draw beside one's own: mHC, arXiv 2512.24880v2."""

from __future__ import annotations

from dataclasses import dataclass

from mhc_lab.report.frame import Study


@dataclass(frozen=True)
class Reference:
    """A number as printed: `text` says what it is, `source` where it stands in the paper."""

    value: float
    text: str
    source: str

    @property
    def label(self) -> str:
        """What stands beside its line in a figure."""
        return f"{self.text} (mHC paper, {self.source})"


# Final training loss minus the baseline's, nats per token.
MHC_FINAL_GAP = Reference(-0.021, "mHC, 27B: −0.021", "Fig. 5a")
# Amax gain of the product of all H_res from a layer to the output, the largest over start layers.
HC_COMPOSITE_GAIN = Reference(3000.0, "HC, 27B: peak about 3000", "Fig. 3b")
MHC_COMPOSITE_GAIN = Reference(1.6, "mHC, 27B: at most about 1.6", "Fig. 7b")
# Training time with mHC over that without.
OVERHEAD = Reference(1.067, "mHC, n = 4: 6.7 % more time", "section 4.3")


def from_plain_residual(study: Study) -> bool:
    """Whether the study's gaps and costs are measured from the plain residual, as the paper's are."""
    variants = {row["row"]: row["variant"] for row in study.rows}
    return all(variants[baseline] == "identity" for baseline in study.baselines)
