"""One configuration -> one finished run: trained, measured, written into its folder, recorded whatever happens.

python -m mhc_lab.training.run <folder> [--progress]
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from lightning import Trainer

from mhc_lab.config.schema import RunConfig
from mhc_lab.data.module import LabData
from mhc_lab.disk import DiskFull, is_disk_full
from mhc_lab.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_RUNS_FAILED, LabError
from mhc_lab.identity.definitions import remember
from mhc_lab.kernel_cache import cold
from mhc_lab.machine import keep_freed_memory, speak_anyway
from mhc_lab.models.cost import cost, counted
from mhc_lab.ops.warm_up import COMPILING, make_ready
from mhc_lab.residual import registry
from mhc_lab.run_folder import RunFolder, Status
from mhc_lab.tracking import mlflow
from mhc_lab.training.callbacks.checkpoint import Checkpoint
from mhc_lab.training.callbacks.divergence import Diverged, Divergence
from mhc_lab.training.callbacks.gradients import GradientNorms
from mhc_lab.training.callbacks.memory import PeakMemory
from mhc_lab.training.callbacks.metrics import Metrics
from mhc_lab.training.callbacks.mirror import Mirror
from mhc_lab.training.callbacks.probes import Probes
from mhc_lab.training.callbacks.process import ProcessSettings
from mhc_lab.training.callbacks.progress import ProgressDisplay
from mhc_lab.training.callbacks.pruning import Pruned, Pruning
from mhc_lab.training.callbacks.spikes import Spikes
from mhc_lab.training.callbacks.steps import StepLog
from mhc_lab.training.callbacks.time_limit import OutOfTime, TimeLimit
from mhc_lab.training.clock import StepClock
from mhc_lab.training.degenerate import perturbed_spread
from mhc_lab.training.interrupts import Killed, interruptible
from mhc_lab.training.module import ResidualLM
from mhc_lab.training.placement import accelerator, global_rank, threads
from mhc_lab.training.record import Measured, build_record, executed
from mhc_lab.training.strategy import trainer_arguments

remember()  # the code as it is imported: what a record is stamped with, whatever is edited meanwhile

REASON_LENGTH = 300


def run(folder: RunFolder, *, progress: bool = False, judged: bool = False) -> dict[str, Any]:
    """Train the folder's config and return the record that was written.

    A former attempt is forgotten. The record's status is `finished`, `diverged` (a loss was not finite), `pruned` (its
    worker, asked at a validation because the run is `judged`, ended it), `failed` (an exception, memory) or `killed`
    (SIGINT, SIGTERM). Raises LabError, with nothing recorded, for what the user can
    mend: a corpus or device that is not there, a folder that another process works on.

    With several devices this must be the main module's doing, as Lightning starts the other ranks by running
    sys.argv again; see `training.launch`.
    """
    config = folder.config()
    if config.residual.plugin:
        registry.load_plugin(config.residual.plugin, named=False)
    keep_freed_memory()
    leads = global_rank(config.trainer) == 0
    with _held(folder, leads), _quiet():
        attempt = _Attempt(folder, config, leads, progress, judged)
        status: Status = "finished"
        reason = None
        try:
            with interruptible():
                attempt.train()
        except LabError:
            raise
        except Diverged as outcome:
            status, reason = "diverged", str(outcome)
        except Pruned as outcome:
            status, reason = "pruned", str(outcome)
        except OutOfTime as outcome:
            status, reason = "failed", str(outcome)
        except (Killed, KeyboardInterrupt) as signalled:
            status, reason = "killed", str(signalled) or "interrupted"
        except BaseException as error:
            if is_disk_full(error):
                raise DiskFull(folder.path) from error
            status, reason = "failed", failure_reason(error)
            traceback.print_exc()
        try:
            return attempt.close(status, reason)
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(folder.path) from error
            raise


def run_judged(folder: RunFolder) -> dict[str, Any]:
    """`run` for a worker that may prune it."""
    return run(folder, judged=True)


def failure_reason(error: BaseException) -> str:
    """One line for a record: "out of memory", or the exception's kind and first line."""
    allocator = isinstance(error, RuntimeError) and "not enough memory" in str(error)  # torch's CPU allocator
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or allocator:
        return "out of memory"
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"[:REASON_LENGTH].removesuffix(": ")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 finished or diverged, 2 LabError, 3 failed, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    speak_anyway()
    progress = "--progress" in arguments
    paths = [argument for argument in arguments if argument != "--progress"]
    try:
        if len(paths) != 1:
            raise LabError("usage: python -m mhc_lab.training.run <run folder> [--progress]")
        record = run(RunFolder(Path(paths[0])), progress=progress)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if record["status"] in ("failed", "killed"):
        print(f"{record['run_id']}: {record['status']}: {record['reason']}", file=sys.stderr)
        return EXIT_RUNS_FAILED if record["status"] == "failed" else EXIT_INTERRUPTED
    return EXIT_OK


class _Attempt:
    """One try at a run: what it builds, and what it has measured when it ends, however that is."""

    def __init__(self, folder: RunFolder, config: RunConfig, leads: bool, progress: bool, judged: bool) -> None:
        self.folder = folder
        self.config = config
        self.leads = leads
        self.progress = progress
        self.judged = judged
        self.measured = Measured(datetime.now(UTC))
        self.trainer: Trainer | None = None
        self._cleared = False

    def train(self) -> None:
        config, measured = self.config, self.measured
        chosen = accelerator(config.trainer)
        torch.set_num_threads(threads(config.trainer))
        if chosen == "cpu" and config.residual.variant != "identity":
            if self.progress and self.leads and cold():
                print(COMPILING, flush=True)
            make_ready()  # before anything is measured: compiling is no part of a step
        torch.manual_seed(config.seed)
        data = LabData(config)
        window = next(iter(data.val_dataloader()))[0][:1]  # [1, T]: the same on all ranks, as there is no trainer yet
        measured.corpus_fingerprint = data.corpus.fingerprint
        vocab_size = config.model.vocab_size or data.vocab_size
        measured.memory = PeakMemory(chosen)
        module = ResidualLM(config, vocab_size)
        measured.cost = counted(cost(config, vocab_size), module.model, config.residual)
        start = time.perf_counter()
        measured.spread_perturbed = perturbed_spread(module.model, config.residual, window, config.seed)
        measured.check_seconds = time.perf_counter() - start
        self._clear()
        self.trainer = self._trainer(window, bytes_data=config.data.source != "synthetic")
        self.trainer.fit(module, datamodule=data)

    def close(self, status: Status, reason: str | None) -> dict[str, Any]:
        """Write the record, unless another rank was first to say why they all fail: the others see its end only.

        An attempt that ended before it had replaced anything leaves a former result as it is.
        """
        if not self._cleared and self.folder.ended():
            return build_record(self.folder, self.config, self.measured, status, reason)
        self._clear()
        if self.leads:
            self.folder.end_questions()
        failed = status in ("failed", "killed")
        earlier = self.folder.record() if failed else None
        record = earlier or build_record(self.folder, self.config, self.measured, status, reason)
        if earlier is None and (self.leads or failed):
            self.folder.write_code(executed(self.config))
            self.folder.write_record(record)
        if self.leads and failed and self.trainer is not None:
            self._stop_other_ranks(self.trainer)
        if self.leads and self.config.tracking.backend == "mlflow":
            mlflow.push(self.folder)
        return record

    def _clear(self) -> None:
        """As late as can be: what makes a LabError must not cost a former result."""
        if self.leads and not self._cleared:
            self.folder.clear()
        self._cleared = True

    def _trainer(self, window: torch.Tensor, *, bytes_data: bool) -> Trainer:
        settings, measured = self.config.trainer, self.measured
        clock = StepClock(accelerator(settings))
        steps = StepLog(self.config, clock)
        measured.metrics = Metrics(self.folder.metrics_file, clock, bytes_data=bytes_data)
        measured.spikes = Spikes()
        measured.gradients = GradientNorms()
        measured.probes = Probes(self.folder, window, clock)
        callbacks = [
            ProcessSettings(threads(settings)),
            steps,
            measured.metrics,
            measured.spikes,
            measured.gradients,
            measured.probes,
            Divergence(),
        ]
        if settings.time_limit:
            callbacks.append(TimeLimit(settings.time_limit, settings.max_steps))
        if self.judged:
            callbacks.append(Pruning(self.folder, clock, steps))
        if settings.keep_checkpoint == "last":
            callbacks.append(Checkpoint(self.folder))
        if self.config.tracking.backend == "mlflow":
            callbacks.append(Mirror(self.folder, clock))
        if self.progress:
            callbacks.append(ProgressDisplay(self.folder.run_id, settings.max_steps))
        return Trainer(
            **trainer_arguments(settings),
            max_steps=settings.max_steps,
            max_epochs=-1,
            val_check_interval=settings.val_every or settings.max_steps,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            inference_mode=False,  # FSDP2 keeps the gathered weights, which must not be inference tensors
            callbacks=callbacks,
            default_root_dir=self.folder.path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    @staticmethod
    def _stop_other_ranks(trainer: Trainer) -> None:
        launcher = trainer.strategy.launcher
        for process in getattr(launcher, "procs", []):
            process.terminate()


@contextmanager
def _held(folder: RunFolder, leads: bool) -> Iterator[None]:
    """The folder's lock, which the leading rank takes for all."""
    if not leads:
        yield
        return
    lock = folder.lock()
    try:
        lock.acquire()
    except Timeout as error:
        raise LabError(f"{folder.path}: another process works on this run; wait for it or stop it") from error
    try:
        folder.begin()
        yield
    finally:
        folder.begun_file.unlink(missing_ok=True)
        lock.release()


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's tips, and its warnings about what is chosen here on purpose, are not the user's business."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", message=".*(LeafSpec|does not have many workers|barrier\\(\\)).*")
        yield


if __name__ == "__main__":
    raise SystemExit(main())
