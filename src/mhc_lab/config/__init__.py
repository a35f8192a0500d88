"""Configuration: `compose(["residual=mhc", "model=nano"])` gives a RunConfig, or a LabError with the fix."""

from mhc_lab.config.compose import compose
from mhc_lab.config.schema import RunConfig

__all__ = ["RunConfig", "compose"]
