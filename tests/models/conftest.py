"""What the tests of models share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mhc_lab.models.recompute import RecomputedSteps

sys.path.insert(0, str(Path(__file__).parent))  # for small_models.py


@pytest.fixture
def recomputed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The block lengths of the passes that were recomputed: a test in which there is none would prove nothing."""
    lengths: list[int] = []
    original = RecomputedSteps.__init__

    def init(self: RecomputedSteps, connections: Any, block: int) -> None:
        lengths.append(block)
        original(self, connections, block)

    monkeypatch.setattr(RecomputedSteps, "__init__", init)
    return lengths
