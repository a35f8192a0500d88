"""What a study waits for before its first run, said once."""

from __future__ import annotations

from mhc_lab.config.schema import RunConfig

COMPILING = "the first run waits for the CPU kernels to be compiled, once on this machine: about a quarter of a minute"


def kernels_are_cold(config: RunConfig) -> bool:
    """Whether the workers of a study on CPUs will compile."""
    if config.trainer.accelerator == "gpu":
        return False
    from mhc_lab.ops.warm_up import cold

    return cold()
