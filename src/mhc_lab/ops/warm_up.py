"""Importing this module compiles the CPU kernels, or loads them from their cache; processes forked later have them.

On one thread, as a pool of threads would not survive the fork, and without autograd, whose threads would not either.
"""

from __future__ import annotations

import torch

from mhc_lab.ops import backends


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


if backends.chosen(torch.device("cpu")) == "cpu":
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    warm_up()
    torch.set_num_threads(threads)
