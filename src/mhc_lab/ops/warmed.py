"""Importing this module has the CPU kernels ready, for processes that are forked later.

On one thread, as a pool of threads would not survive the fork, and without autograd, whose threads would not either.
"""

from __future__ import annotations

import torch

from mhc_lab.ops.warm_up import make_ready

threads = torch.get_num_threads()
torch.set_num_threads(1)
make_ready()
torch.set_num_threads(threads)
