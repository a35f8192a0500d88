"""Clocks for a CPU and a GPU, and rounds in which implementations take turns, so that noise meets all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

Work = Callable[[], object]

COPY = "copy"  # the work that is timed once a round: it is long, and hardly varies
WARM_UP = 3  # calls before the first one that counts
SLEEP_CYCLES_PER_US = 2000.0  # of a GPU at 2 GHz; only the order of magnitude matters
LONGEST_SLEEP_US = 5000.0


class Clock(Protocol):
    """Times work in microseconds, each time with cold caches."""

    def sample(self, work: Work, count: int) -> list[float]:
        """`count` timings of `work`."""
        ...


class CpuClock:
    """Wall time; before each sample a buffer larger than the last cache is read."""

    def __init__(self) -> None:
        self.buffer = torch.zeros(2 * last_cache() // 4)

    def sample(self, work: Work, count: int) -> list[float]:
        taken = []
        for _ in range(count):
            self.buffer.sum()
            start = time.perf_counter()
            work()
            taken.append(1e6 * (time.perf_counter() - start))
        return taken


class GpuClock:
    """CUDA events; before each sample a buffer several times as large as L2 is read.

    Read, not written: what a write leaves in L2 has to go to memory while the sample runs, and would be counted as
    its traffic. Behind the flush the GPU idles for as long as the host needs to launch the work, so that a sample
    holds the kernels and not Python: launches are what `bench step` measures.
    """

    def __init__(self, device: torch.device) -> None:
        l2 = torch.cuda.get_device_properties(device).L2_cache_size
        self.buffer = torch.zeros(max(4 * l2, 256 * 2**20) // 4, device=device)

    def sample(self, work: Work, count: int) -> list[float]:
        torch.cuda.synchronize()
        start_of_launch = time.perf_counter()
        work()
        launch_us = 1e6 * (time.perf_counter() - start_of_launch)
        cycles = int(SLEEP_CYCLES_PER_US * min(1.5 * launch_us, LONGEST_SLEEP_US))
        starts = [torch.cuda.Event(enable_timing=True) for _ in range(count)]
        ends = [torch.cuda.Event(enable_timing=True) for _ in range(count)]
        for start, end in zip(starts, ends, strict=True):
            self.buffer.sum()
            torch.cuda._sleep(cycles)
            start.record()
            work()
            end.record()
        torch.cuda.synchronize()
        return [1e3 * start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)]


def clock_for(device: torch.device) -> Clock:
    """The clock of a device."""
    return GpuClock(device) if device.type == "cuda" else CpuClock()


def last_cache() -> int:
    """Bytes of the processor's last cache as Linux tells them; 32 MiB where it does not."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        if text.endswith("K") and text[:-1].isdecimal():
            sizes.append(1024 * int(text[:-1]))
    return max(sizes, default=32 * 2**20)


class Copy:
    """A plain copy of a tensor that no cache holds: the memory bandwidth that can be had."""

    def __init__(self, device: torch.device) -> None:
        size = 2**30 if device.type == "cuda" else 4 * last_cache()
        self.source = torch.ones(size // 4, device=device)
        self.target = torch.empty_like(self.source)

    def __call__(self) -> None:
        self.target.copy_(self.source)

    @property
    def bytes_moved(self) -> int:
        return 2 * self.source.numel() * self.source.element_size()


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: list[float]) -> Spread:
        if len(samples) < 2:
            return cls(samples[0], samples[0], samples[0])
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high)


class Timings:
    """Samples by name and round."""

    def __init__(self, samples: dict[str, list[list[float]]]) -> None:
        self.samples = samples

    def spread(self, name: str) -> Spread:
        """Over all samples, in microseconds."""
        return Spread.of([value for batch in self.samples[name] for value in batch])

    def ratio(self, name: str, base: str) -> Spread:
        """How many times the time of `base` this one takes, round by round."""
        pairs = zip(self.samples[name], self.samples[base], strict=True)
        return Spread.of([statistics.median(own) / statistics.median(other) for own, other in pairs])


def take_turns(clock: Clock, works: Mapping[str, Work], rounds: int, count: int = 3) -> Timings:
    """`rounds` rounds of `count` samples of each work; which one begins changes from round to round."""
    names = list(works)
    for work in works.values():
        for _ in range(WARM_UP):
            work()
    samples: dict[str, list[list[float]]] = {name: [] for name in names}
    for index in range(rounds):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            samples[name].append(clock.sample(works[name], 1 if name == COPY else count))
    return Timings(samples)
