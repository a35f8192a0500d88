"""Importing this module has the CPU kernels ready, for processes that are forked later.

On one thread, as a pool of threads would not survive the fork, and without autograd, whose threads would not either.
"""

from __future__ import annotations

import warnings

import torch

from mhc_lab.ops import backends
from mhc_lab.ops.warm_up import warm_up

if backends.chosen(torch.device("cpu")) == "cpu":
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        warm_up()
    except Exception as error:  # it costs the runs time, each of which falls back by itself; not the server its life
        warnings.warn(f"the CPU kernels could not be made ready: {type(error).__name__}: {error}", RuntimeWarning, 1)
    torch.set_num_threads(threads)
