"""Configuration: `compose(["residual=mhc", "model=nano"])` gives a RunConfig, or a LabError with the fix.

`setting` and the domains beside it declare the settings that a plugin brings.
"""

from mhc_lab.config.compose import compose
from mhc_lab.config.schema import RunConfig, above, at_least, between, from_to_below, setting, within

__all__ = ["RunConfig", "above", "at_least", "between", "compose", "from_to_below", "setting", "within"]
