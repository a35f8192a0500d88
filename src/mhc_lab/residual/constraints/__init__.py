"""One file a constraint: the set that H_res is kept in, and the map from free logits onto it.

Calling this package lists them, as `residual.constraints()`: importing it takes that function's name in `residual`.
"""

import sys
from types import ModuleType

from mhc_lab.residual import registry


class _Callable(ModuleType):
    def __call__(self) -> list[str]:
        """Names of all registered constraints."""
        return registry.constraints()


sys.modules[__name__].__class__ = _Callable
