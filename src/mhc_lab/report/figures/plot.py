"""What figures are drawn from, and what drawing one gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mhc_lab.report.curves import Probe, Training, last_probes, training
from mhc_lab.report.figures.style import png, svg
from mhc_lab.report.frame import Study
from mhc_lab.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Material:
    """A study, its table, and what its runs wrote, by row and seed."""

    study: Study
    summary: Summary
    training: Mapping[str, Mapping[int, Training]]
    probes: Mapping[str, Mapping[int, Probe]]

    @classmethod
    def read(cls, study: Study, summary: Summary) -> Material:
        return cls(study, summary, training(study), last_probes(study))


@dataclass(frozen=True)
class Plot:
    """A figure: `name` is that of its files, `title` and `caption` stand beside it; the caption says what is drawn,
    over how many seeds, and which figure of the paper it follows."""

    name: str
    title: str
    caption: str
    figure: Figure

    @cached_property
    def svg(self) -> str:
        """Drawn once for its file and for the page."""
        return svg(self.figure, self.name)

    def png(self) -> bytes:
        return png(self.figure)


@dataclass(frozen=True)
class Absent:
    """A figure that these runs do not allow, and why, in words that say what would."""

    name: str
    reason: str
