"""Tiny runs that have been trained, one a variant, for all tests of a session."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mhc_lab.config import RunConfig
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.run_folder import RunFolder
from mhc_lab.training.run import run


@pytest.fixture(scope="session")
def trained_run(tiny: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFolder]:
    """The folder of a finished run: `trained_run("residual=hc")`. Not to be changed."""
    made: dict[tuple[str, ...], RunFolder] = {}
    results = tmp_path_factory.mktemp("results")

    def make(*overrides: str) -> RunFolder:
        if overrides not in made:
            wide = () if "residual=identity" in overrides else ("residual.phi_std=1.0", "residual.alpha_init=0.1")
            config = tiny("data=synthetic", *wide, *overrides)  # wide: logits that differ from token to token
            folder = RunFolder.create(results, config, corpus_fingerprint(config))
            assert run(folder)["status"] == "finished"
            made[overrides] = folder
        return made[overrides]

    return make
