"""The operations of a residual-stream connection. They need torch alone.

One folder an operation: `reference.py` is the specification, plain torch that reads like the equation;
`__init__.py` is the public function, with a hand-written backward that agrees with the reference.
"""

import sys
from types import ModuleType
from typing import Any

from mhc_lab.ops.coefficients import coefficients
from mhc_lab.ops.coefficients_read import coefficients_read
from mhc_lab.ops.read import read
from mhc_lab.ops.sinkhorn import sinkhorn
from mhc_lab.ops.write import write
from mhc_lab.ops.write_read import write_read

__all__ = ["coefficients", "coefficients_read", "read", "sinkhorn", "write", "write_read"]


class _Package(ModuleType):
    """The folder of an operation, whose function has the folder's name and so stands in its place here: it gets the
    folder's modules too, so that `import mhc_lab.ops.coefficients.reference` finds what it names."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, ModuleType):
            setattr(getattr(self, self.__name__.rpartition(".")[2]), name, value)


for _operation in __all__:
    _package = sys.modules[f"{__name__}.{_operation}"]
    _package.__class__ = _Package
    for _name, _module in list(vars(_package).items()):
        if isinstance(_module, ModuleType):
            setattr(_package, _name, _module)
