"""CPU kernels compiled, or loaded from their cache, before they are needed.

python -m mhc_lab.ops.warm_up
"""

from __future__ import annotations

import warnings

import torch

from mhc_lab.kernel_cache import ONCE
from mhc_lab.ops import backends

COMPILING = f"compiling the CPU kernels, {ONCE}"


def warm_up(streams: int = 2, dim: int = 4) -> None:
    """Run the loops that all connections share once, forward and backward, in fp32."""
    from mhc_lab.ops.write_read import cpu as write_read

    width = 2 * streams + streams**2
    x, y, weights = torch.zeros(1, streams, dim), torch.zeros(1, dim), torch.zeros(1, width)
    layer = (x, y, weights, 0, streams, None)
    following = (torch.zeros(streams * dim, width), torch.zeros(width), torch.zeros(width))
    written, hidden, values, projected, inverse_rms = write_read.forward(*layer, *following, streams, 0.0, 1, "eq9")
    found = (written, values, projected, inverse_rms)
    write_read.backward(written, hidden, values, *layer, *following, *found, streams, 1, "eq9")


def make_ready() -> None:
    """`warm_up` where operations run on CPU kernels. One that fails costs time, and nothing else: each operation falls
    back by itself."""
    if backends.chosen(torch.device("cpu")) != "cpu":
        return
    try:
        warm_up()
    except Exception as error:
        warnings.warn(f"the CPU kernels could not be made ready: {type(error).__name__}: {error}", RuntimeWarning, 2)


if __name__ == "__main__":
    make_ready()
