"""record.json: how a run ended and what it measured."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import lightning
import torch

import mhc_lab
from mhc_lab.config.schema import RunConfig
from mhc_lab.identity.code import Executed, code_fingerprint
from mhc_lab.models.cost import Cost
from mhc_lab.ops import backends
from mhc_lab.run_folder import RunFolder, Status
from mhc_lab.training.callbacks.gradients import GradientNorms
from mhc_lab.training.callbacks.memory import PeakMemory
from mhc_lab.training.callbacks.metrics import Metrics
from mhc_lab.training.callbacks.probes import Probes
from mhc_lab.training.callbacks.spikes import Spikes
from mhc_lab.training.degenerate import verdict
from mhc_lab.training.placement import accelerator, device_name, ranks, threads

PROBED = (
    "gain_forward",
    "gain_backward",
    "composite_gain_forward",
    "composite_gain_backward",
    "ds_error",
    "stream_spread",
)


@dataclass
class Measured:
    """What an attempt at a run has measured so far; None where it has not come to it."""

    started: datetime
    corpus_fingerprint: str | None = None
    cost: Cost | None = None
    memory: PeakMemory | None = None
    spread_perturbed: float | None = None
    check_seconds: float = 0.0  # of the degeneracy check, which is a probe too
    metrics: Metrics | None = None
    spikes: Spikes | None = None
    gradients: GradientNorms | None = None
    probes: Probes | None = None


def build_record(
    folder: RunFolder, config: RunConfig, measured: Measured, status: Status, reason: str | None
) -> dict[str, Any]:
    """The content of record.json (formats: floats and ints, None where not measured)."""
    ended = datetime.now(UTC)
    seconds = (ended - measured.started).total_seconds()
    probes = measured.probes
    probe_seconds = measured.check_seconds + (probes.seconds if probes else 0.0)
    return {
        "run_id": folder.run_id,
        "status": status,
        "reason": reason,
        "started": measured.started.isoformat(timespec="milliseconds"),
        "ended": ended.isoformat(timespec="milliseconds"),
        "seconds": seconds,
        "variant": config.residual.variant,
        "seed": config.seed,
        "control": config.control,
        "corpus_fingerprint": measured.corpus_fingerprint,
        "code_fingerprint": code_fingerprint(executed(config)),
        "metrics": _metrics(config, measured),
        "degenerate": verdict(measured.spread_perturbed, probes.early_spread if probes else None),
        "cost": _cost(measured.cost) if measured.cost else {},
        "probe_seconds": probe_seconds,
        "probe_fraction": probe_seconds / seconds if seconds else 0.0,
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "platform": platform.platform(),
            "device": device_name(config.trainer),
            "threads": threads(config.trainer),
            "backend": executed(config).backend,
            "strategy": config.trainer.strategy if ranks(config.trainer) > 1 else "one device",
            "mhc_lab": mhc_lab.__version__,
        },
    }


def executed(config: RunConfig) -> Executed:
    """What this process has executed of the package, in a run of `config`."""
    return Executed.by(config, operations_backend(accelerator(config.trainer)))


def operations_backend(chosen: str) -> str:
    """What the operations of a run on "cpu" or "gpu" ran on, and which of them gave way to the reference."""
    name = backends.chosen(torch.device("cuda" if chosen == "gpu" else "cpu"))
    gave_way = sorted(operation for operation, backend in backends.failed() if backend == name)
    return f"{name} ({', '.join(gave_way)}: reference)" if gave_way else name


def _cost(cost: Cost) -> dict[str, int]:
    return {name: value for name, value in dataclasses.asdict(cost).items() if value is not None}


def _metrics(config: RunConfig, measured: Measured) -> dict[str, float | int | None]:
    metrics, probes = measured.metrics, measured.probes
    ms = metrics.ms_per_step if metrics else None
    tokens = config.data.batch_size * config.model.sequence_length
    probed = (probes.last if probes else None) or dict.fromkeys(PROBED)
    return {
        "train_loss": metrics.train_loss if metrics else None,
        "val_loss": metrics.val_loss if metrics else None,
        "bits_per_byte": metrics.bits_per_byte if metrics else None,
        "grad_norm": measured.gradients.last if measured.gradients else None,
        "max_grad_norm": measured.gradients.largest if measured.gradients else None,
        "loss_spikes": measured.spikes.counter.count if measured.spikes else None,
        **{name: probed[name] for name in PROBED},
        "tokens_per_second": 1000 * tokens / ms if ms else None,
        "ms_per_step": ms,
        "peak_memory_mb": measured.memory.mib() if measured.memory else None,
        "steps": metrics.steps if metrics else 0,
    }
