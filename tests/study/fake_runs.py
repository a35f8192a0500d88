"""Stand-ins for training: targets that a worker's children call. Importable there through PYTHONPATH."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from mhc_lab.errors import LabError
from mhc_lab.run_folder import RunFolder

LOSS = 2.0
CODE = "now"


def changed(recorded: str, *_: object) -> list[str]:
    """In the place of `identity.ledger.changed`: the stand-ins are of one code, whatever is edited meanwhile."""
    return [] if recorded == CODE else ["models.stack.ResidualStack"]


def quick(folder: RunFolder) -> None:
    """Finishes at once; the loss is a function of the run."""
    with folder.lock():
        _begin(folder)
        _end(folder, "finished")


def slow(folder: RunFolder) -> None:
    with folder.lock():
        _begin(folder)
        time.sleep(20)
        _end(folder, "finished")


def diverges_at_1(folder: RunFolder) -> None:
    with folder.lock():
        _begin(folder)
        _end(folder, "diverged" if folder.config().seed == 1 else "finished")


def killed_once_at_1(folder: RunFolder) -> None:
    """The run of seed 1 gets a kill -9 the first time."""
    with folder.lock():
        _begin(folder)
        if folder.config().seed == 1 and begun(folder) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        _end(folder, "finished")


def killed_twice_at_1(folder: RunFolder) -> None:
    """The run of seed 1 gets a kill -9 in both tries of the first command."""
    with folder.lock():
        _begin(folder)
        if folder.config().seed == 1 and begun(folder) <= 2:
            os.kill(os.getpid(), signal.SIGKILL)
        _end(folder, "finished")


def raises(folder: RunFolder) -> None:  # noqa: ARG001
    raise MemoryError("no room for the streams")


def kills_its_worker(folder: RunFolder) -> None:
    with folder.lock():
        _begin(folder)
        kill_worker()


def kills_its_worker_once_at_1(folder: RunFolder) -> None:
    """The run of seed 1 takes its worker down the first time, and would finish 2 s later if nothing ended it."""
    with folder.lock():
        _begin(folder)
        if folder.config().seed == 1 and begun(folder) == 1:
            kill_worker()
        _end(folder, "finished")


def kills_its_worker_once_at_hc_1(folder: RunFolder) -> None:
    with folder.lock():
        _begin(folder)
        config = folder.config()
        if (config.residual.variant, config.seed) == ("hc", 1) and begun(folder) == 1:
            kill_worker()
        _end(folder, "finished")


def valley(folder: RunFolder) -> None:
    """A run of a sweep that finishes at once; its metrics are `valley_metrics`."""
    _search(folder)


def not_there(folder: RunFolder) -> None:  # noqa: ARG001
    raise LabError("the disk is not there: mount it")


def valley_slowly(folder: RunFolder) -> None:
    _search(folder, seconds=0.3)


def valley_with_holes(folder: RunFolder) -> None:
    """T_max 8 diverges, 9 dies in both tries of the first command."""
    with folder.lock():
        _begin(folder)
        t_max = folder.config().residual.t_max
        if t_max == 9 and begun(folder) <= 2:
            os.kill(os.getpid(), signal.SIGKILL)
        _end(folder, "diverged" if t_max == 8 else "finished", valley_metrics(folder))


def valley_that_kills_its_worker_once_at_7(folder: RunFolder) -> None:
    with folder.lock():
        _begin(folder)
        if folder.config().residual.t_max == 7 and begun(folder) == 1:
            kill_worker()
        _end(folder, "finished", valley_metrics(folder))


def judged(folder: RunFolder) -> None:
    """Asks at every validation whether to go on, as training does; a run is as good at any step as at its end."""
    with folder.lock():
        _begin(folder)
        trainer, metrics = folder.config().trainer, valley_metrics(folder)
        steps = range(trainer.val_every, trainer.max_steps, trainer.val_every)
        stopped = next((step for step in steps if _told_to_stop(folder, step, metrics["val_loss"])), None)
        _append(folder.metrics_file, {"step": stopped or trainer.max_steps, "val_loss": metrics["val_loss"]})
        _end(folder, "finished" if stopped is None else "pruned", metrics)


def _told_to_stop(folder: RunFolder, step: int, val_loss: float) -> bool:
    folder.ask(step, val_loss)
    while (stop := folder.verdict(step)) is None:
        time.sleep(0.005)
    return stop


def _search(folder: RunFolder, seconds: float = 0.0) -> None:
    with folder.lock():
        _begin(folder)
        time.sleep(seconds)
        _end(folder, "finished", valley_metrics(folder))


def valley_metrics(folder: RunFolder) -> dict[str, float]:
    """What a point of a sweep comes to: lowest at learning rate 1e-3, and the dearer the larger T_max."""
    config = folder.config()
    distance = abs(math.log10(config.optim.learning_rate) + 3)
    return {"val_loss": LOSS + distance + 0.001 * config.seed, "ms_per_step": float(config.residual.t_max)}


def kill_worker() -> None:
    worker = multiprocessing.parent_process()
    assert worker is not None
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(2)


def begun(folder: RunFolder) -> int:
    """How often a run was begun."""
    return _count(folder.path / "begun")


def ended(folder: RunFolder) -> int:
    """How often a run came to its end."""
    return _count(folder.path / "ended")


def _begin(folder: RunFolder) -> None:
    folder.clear()
    _append(folder.path / "begun", {"pid": os.getpid()})


REASONS = {"diverged": "NaN loss at step 3", "pruned": "pruned by the worker"}


def _end(folder: RunFolder, status: str, metrics: dict[str, float] | None = None) -> None:
    config = folder.config()
    _append(folder.path / "ended", {"pid": os.getpid()})
    folder.write_record(
        {
            "run_id": folder.run_id,
            "status": status,
            "reason": REASONS.get(status),
            "seconds": 0.1,
            "seed": config.seed,
            "code_fingerprint": CODE,
            "metrics": metrics or {"val_loss": LOSS + config.seed},
        }
    )


def _append(file: Path, line: Mapping[str, float]) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def _count(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.is_file() else 0
