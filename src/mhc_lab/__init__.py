"""mhc_lab: ablation and benchmark harness for residual-stream designs.

What `mhc-lab` does from the shell can be done from Python; mistakes are `mhc_lab.errors.LabError`:

    from pathlib import Path

    from mhc_lab.report import read_study
    from mhc_lab.study import ablate

    ablate("demo", seeds=[0, 1, 2], overrides=["trainer.max_steps=50"], workers=2)
    frame = read_study(Path("results"), "demo")  # a pandas.DataFrame, one row a run: settings, metrics, status

`mhc_lab.config.compose(["residual=mhc", "model=nano"])` is the configuration of one run, `mhc_lab.residual` has the
connections for a model of one's own, `mhc_lab.ops` the operations under them.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mhc-lab")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
