"""What a study waits for before its first run, said once, and what is done meanwhile. Torch-free."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mhc_lab import kernel_cache
from mhc_lab.config.schema import RunConfig

COMPILING = f"the first run waits for the CPU kernels to be compiled, {kernel_cache.ONCE}"


def kernels_are_cold(config: RunConfig) -> bool:
    """Whether the workers of a study on CPUs will compile."""
    return config.trainer.accelerator != "gpu" and kernel_cache.cold()


@contextmanager
def timing_kernels(config: RunConfig) -> Iterator[None]:
    """Meanwhile a process of its own compiles what only the timing pass will need; it ends with the context.

    The runs of a study have a thread each and their server compiles that form; the pass has all threads.
    """
    one_thread = "1" in (os.environ.get("OMP_NUM_THREADS"), str(os.cpu_count()))
    if config.trainer.accelerator != "cpu" or one_thread or not kernel_cache.cold("parallel"):
        yield
        return
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "mhc_lab.ops.warm_up"]
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        process.kill()
        process.wait()
