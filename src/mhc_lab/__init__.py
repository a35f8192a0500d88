"""mhc_lab: ablation and benchmark harness for residual-stream designs."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mhc-lab")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
