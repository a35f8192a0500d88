"""The operations of a residual-stream connection. They need torch alone.

One folder an operation: `reference.py` is the specification, plain torch that reads like the equation;
`__init__.py` is the public function, with a hand-written backward that agrees with the reference.
"""

from mhc_lab.ops.coefficients import coefficients
from mhc_lab.ops.coefficients_read import coefficients_read
from mhc_lab.ops.read import read
from mhc_lab.ops.sinkhorn import sinkhorn
from mhc_lab.ops.write import write
from mhc_lab.ops.write_read import write_read

__all__ = ["coefficients", "coefficients_read", "read", "sinkhorn", "write", "write_read"]
