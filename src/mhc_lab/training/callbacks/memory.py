"""Peak memory of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

MIB = 1 << 20


class PeakMemory:
    """Peak MiB since it was made, just before the model is.

    CUDA: the most that torch had allocated. CPU: the peak of the resident set minus what was resident before the
    model; Linux can reset the peak, elsewhere an earlier, higher peak of the process hides a part of the run's.
    """

    def __init__(self, accelerator: str) -> None:
        self.cuda = accelerator == "gpu"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            _reset_peak()
            self._before = _status("VmRSS") or _resource_peak()

    def mib(self) -> float:
        if self.cuda:
            return torch.cuda.max_memory_allocated() / MIB
        return ((_status("VmHWM") or _resource_peak()) - self._before) / MIB


def _reset_peak() -> None:
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        try:
            clear.write_text("5")  # resets VmHWM to VmRSS
        except OSError:
            return  # a container may forbid it; the peak is then the process's own


def _status(key: str) -> int | None:
    """A field of /proc/self/status in bytes, None where there is no such file."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def _resource_peak() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
