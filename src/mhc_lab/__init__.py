"""mhc_lab: ablation and benchmark harness for residual-stream designs.

What `mhc-lab` does from the shell can be done from Python; mistakes are `mhc_lab.errors.LabError`:

    from mhc_lab import api

    study = api.ablate("demo", seeds=[0, 1, 2], overrides=["trainer.max_steps=50"], workers=2)
    study.cells  # a pandas.DataFrame, one line a run: settings, metrics, status
    api.summarize(study)  # one line a row: gaps, intervals, gains, cost

`mhc_lab.api` is stable; `mhc_lab.residual` has the connections for a model of one's own, `mhc_lab.ops` the operations
under them, `mhc_lab.testing` the laws that a design of one's own should keep.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mhc-lab")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
