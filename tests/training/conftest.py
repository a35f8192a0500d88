"""Run folders of tiny configs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mhc_lab.config import RunConfig
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.run_folder import RunFolder


@pytest.fixture
def folder(tiny: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., RunFolder]:
    """The folder of a tiny config, not yet run: `folder("residual=hc")`."""

    def make(*overrides: str) -> RunFolder:
        config = tiny(*overrides)
        return RunFolder.create(tmp_path, config, corpus_fingerprint(config))

    return make
