"""Rounds, ratios and spreads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mhc_lab.bench import timing
from mhc_lab.bench.timing import COPY, Copy, CpuClock, Spread, Timings, take_turns


class Counted:
    """A clock that says how long each work is, and remembers the order."""

    def __init__(self, lengths: dict[str, float]) -> None:
        self.lengths = lengths
        self.order: list[str] = []

    def sample(self, work: Callable[[], object], count: int) -> list[float]:
        name = str(work())
        self.order.append(name)
        return [self.lengths[name]] * count


def test_all_take_turns_and_none_is_always_first() -> None:
    works: dict[str, Callable[[], object]] = {name: (lambda name=name: name) for name in ("ours", "eager", COPY)}
    clock = Counted({"ours": 10.0, "eager": 25.0, COPY: 100.0})
    timings = take_turns(clock, works, rounds=6, count=4)
    rounds = [clock.order[i : i + 3] for i in range(0, len(clock.order), 3)]
    assert [set(r) for r in rounds] == [{"ours", "eager", COPY}] * 6
    assert [r[0] for r in rounds] == ["ours", "eager", COPY] * 2
    assert len(timings.samples["ours"][0]) == 4
    assert len(timings.samples[COPY][0]) == 1
    assert timings.ratio("eager", "ours") == Spread(2.5, 2.5, 2.5)
    assert timings.spread("eager").median == 25.0


def test_ratios_are_of_the_same_round() -> None:
    """A machine that is twice as slow in one round changes both, and not their ratio."""
    timings = Timings({"ours": [[10.0], [20.0], [10.0]], "eager": [[30.0], [60.0], [30.0]]})
    assert timings.ratio("eager", "ours") == Spread(3.0, 3.0, 3.0)
    assert timings.spread("ours").high > timings.spread("ours").median


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_the_cpu_clock_counts_microseconds() -> None:
    clock = CpuClock()
    assert clock.buffer.numel() * 4 > timing.last_cache()
    samples = clock.sample(lambda: torch.ones(2_000_000).sum(), 3)
    assert all(50 < sample < 1e6 for sample in samples)


def test_a_copy_reads_and_writes() -> None:
    copy = Copy(torch.device("cpu"))
    copy()
    assert torch.equal(copy.target[:8], copy.source[:8])
    assert copy.bytes_moved == 2 * copy.source.numel() * 4
    assert copy.bytes_moved > 4 * timing.last_cache()


def test_a_gpu_times_kernels() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    from mhc_lab.bench.timing import clock_for

    device = torch.device("cuda")
    values = torch.ones(2**26, device=device)
    (sample,) = clock_for(device).sample(lambda: values.add_(1), 1)
    assert 10 < sample < 1e5
