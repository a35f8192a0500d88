"""Workers on this machine, with the devices that each of them sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mhc_lab.config.schema import RunConfig
from mhc_lab.disk import EXIT_DISK_FULL
from mhc_lab.errors import EXIT_INPUT, LabError
from mhc_lab.machine import THREADS_VARIABLE, safe_environment, threads_each
from mhc_lab.run_folder import runs_dir
from mhc_lab.secrets import STORAGE_VARIABLE
from mhc_lab.study.child import DEFAULT_TARGET

_STOP_SECONDS = 20
MOST_DEATHS = 3  # of workers, without a run that ended between them: then it is no accident
_FINAL = (EXIT_INPUT, EXIT_DISK_FULL)  # exit codes that another worker would end with too


@dataclass(frozen=True)
class Slot:
    """A worker's place: its value of CUDA_VISIBLE_DEVICES (None: as it is) and its share of the CPU cores."""

    devices: str | None
    threads: int


def slots(config: RunConfig) -> list[Slot]:
    """Where the workers go.

    With `launcher.devices` each worker gets as many of them as a run needs, every device in turn, until
    `runs_per_device` workers share each; `launcher.workers` above 1 asks for fewer. Without, `launcher.workers` of
    them share the visible GPUs, or the CPU. Raises LabError for a device that is not there and for too many workers.
    """
    launcher, trainer = config.launcher, config.trainer
    visible = _visible_devices() if launcher.devices or trainer.accelerator != "cpu" else []
    for index in launcher.devices:
        if index not in range(len(visible)):
            there = f"there are {len(visible)}, counted from 0" if visible else "no GPU is visible; leave it out"
            raise LabError(f"launcher.devices: GPU {index} is not there ({there})")
    if trainer.accelerator == "gpu" and not visible:
        raise LabError("trainer.accelerator=gpu: no GPU is visible; use trainer=cpu")
    chosen = [visible[index] for index in launcher.devices] or visible
    if not chosen or trainer.accelerator == "cpu":
        return [Slot(None, threads_each(launcher.workers * trainer.devices))] * launcher.workers
    if len(chosen) < trainer.devices:
        raise LabError(f"trainer.devices={trainer.devices}: only {len(chosen)} GPUs are there for a run")
    groups = [
        ",".join(chosen[start : start + trainer.devices])
        for start in range(0, len(chosen) - trainer.devices + 1, trainer.devices)
    ]
    places = groups * launcher.runs_per_device
    count = len(places) if launcher.devices and launcher.workers == 1 else launcher.workers
    if count > len(places):
        raise LabError(
            f"launcher.workers={count}: {len(places)} runs fit on the GPUs; let more share one with "
            f"launcher.runs_per_device={-(-count // len(groups))}"
        )
    return [Slot(place, threads_each(count * trainer.devices)) for place in places[:count]]


class LocalLauncher:
    """N workers as processes of this one: they end with it, and on `stop`."""

    def __init__(
        self,
        results: Path,
        study: str,
        url: str,
        config: RunConfig,
        places: Sequence[Slot],
        target: str = DEFAULT_TARGET,
    ) -> None:
        self.logs = [runs_dir(results) / f"{study}.worker-{index}.log" for index in range(len(places))]
        command = [sys.executable, "-m", "mhc_lab.study.worker", "--launched"]
        command += ["--results", str(results), "--study", study, "--target", target]
        command += ["--interval", str(config.launcher.heartbeat_interval)]
        command += ["--grace", str(config.launcher.heartbeat_grace)]
        self._starts = [(command, _environment(place, url), log) for place, log in zip(places, self.logs, strict=True)]
        self.processes = [_start(*start) for start in self._starts]
        self._died_in_a_row = 0
        self._stopping = False

    def running(self) -> int:
        """How many workers are at work. One that died is replaced, MOST_DEATHS times at most without a run's end."""
        for index, process in enumerate(self.processes):
            code = process.poll()
            if code in (None, 0, *_FINAL) or self._stopping or self._died_in_a_row >= MOST_DEATHS:
                continue
            self._died_in_a_row += 1
            self.processes[index] = _start(*self._starts[index], again=True)
        return sum(process.poll() is None for process in self.processes)

    def finished(self) -> None:
        """A run has ended: workers that die are no row of deaths."""
        self._died_in_a_row = 0

    def disk_full(self) -> bool:
        """Whether a worker ended for want of room on the disk, where its log may lie too."""
        return any(process.poll() == EXIT_DISK_FULL for process in self.processes)

    def deaths(self) -> list[str]:
        """Of the workers that ended otherwise than by having nothing to do: how, and where their log lies."""
        ends = []
        for index, (process, log) in enumerate(zip(self.processes, self.logs, strict=True)):
            code = process.poll()
            if code:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                ends.append(f"worker {index} {how}: see {log}")
        return ends

    def stop(self) -> None:
        """Have every worker record its run as killed and end."""
        self._stopping = True
        for process in self.processes:
            process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self.processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(
    command: list[str], environment: dict[str, str], log: Path, *, again: bool = False
) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C in the terminal reaches this process alone, which then stops its workers in order.
    with log.open("ab" if again else "wb") as file:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def _environment(place: Slot, url: str) -> dict[str, str]:
    threads = str(place.threads)
    shared = {STORAGE_VARIABLE: url, THREADS_VARIABLE: threads, "OMP_NUM_THREADS": threads}
    devices = {} if place.devices is None else {"CUDA_VISIBLE_DEVICES": place.devices}
    return {**safe_environment(), **shared, **devices}


def _visible_devices() -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(index) for index in range(count)]
