"""A grid from Python, and its results as a DataFrame: compose, train, ablate, load, summarize, table.

python examples/grid.py [FOLDER FOR RESULTS]
"""

from __future__ import annotations

import sys
from pathlib import Path

from mhc_lab import api

GRID = """
title: Is mixing needed?
baseline: identity
seeds: [0, 1]
overrides: [data=synthetic, model.blocks=1, model.dim=16, model.heads=2, model.sequence_length=16, data.batch_size=4,
            data.val_windows=8, trainer.max_steps=60, optim.warmup_steps=5, trainer.threads=1,
            tracking=none]
rows:
  identity: {overrides: [residual=identity]}
  identity_hc: {overrides: [residual=identity_hc]}
  mhc: {overrides: [residual=mhc]}
"""


def main(results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    grid = results / "mixing.yaml"
    grid.write_text(GRID)
    study = api.ablate(str(grid), results=results)  # the same call again runs nothing

    print(study.cells[["row", "seed", "val_loss", "composite_gain_backward"]])  # one line a run
    print(api.summarize(study)[["val_loss", "loss_gap", "p_holm", "parameters"]])  # one line a row
    print(api.table(api.load("mixing", results)))  # what a paper gets

    config = api.compose(["residual=mhc", "data=synthetic", "model.dim=16", "trainer.max_steps=20", "tracking=none"])
    record = api.train(config, results)  # one run by itself
    print(record["status"], record["metrics"]["val_loss"])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/examples"))
