"""What a row costs in time: baseline and row alternate in one process, with nothing else running.

python -m mhc_lab.training.timing <study folder>
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from mhc_lab.config.schema import RunConfig
from mhc_lab.data.module import LabData
from mhc_lab.errors import EXIT_INPUT, EXIT_OK, LabError
from mhc_lab.files import GRID, MapOf, read_json
from mhc_lab.identity.code import Executed, code_of, fingerprint, together
from mhc_lab.machine import cores, keep_freed_memory, speak_anyway
from mhc_lab.residual import registry
from mhc_lab.run_folder import RunFolder, runs_dir, write_json
from mhc_lab.training.clock import StepClock
from mhc_lab.training.module import Batch, build_model, clip_gradients, next_token_loss
from mhc_lab.training.optim import build_optimizer
from mhc_lab.training.placement import accelerator, device_name, threads
from mhc_lab.units import duration

WARM_UP = 3  # steps of each model that are not timed
STEPS = 20  # pairs a row, in the timing pass of a study
PLAIN_SECONDS = 5.0  # between lines of progress
LINE = 60  # characters that a moving line takes
BATCHES = 4  # real ones, taken in turn


def time_rows(
    configs: Mapping[str, RunConfig],
    baselines: Mapping[str, str],
    *,
    steps: int,
    told: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Time `steps` training steps of every row, each beside one of its baseline's, `baselines[row]`.

    A step is forward, backward, clipping and optimizer on one device of the first row's config, in the row's own
    precision, built as in a run. `ms_per_step` is the median, `ms_ratio` the median of the ratios of pairs that ran
    one after the other; the baseline's own, against a second copy of itself, shows the noise. Content of timing.json:
    {"device", "threads", "load", "cores", "rows": {row: {"baseline", "ms_per_step", "ms_ratio", "ms_ratio_spread",
    "samples"}}}. Raises LabError for a corpus or device that is not there. A row whose steps fail is left out, with a
    warning. `told` hears before each row how many of how many are done.
    """
    keep_freed_memory()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # of the minute before: what else there was
    trainer = next(iter(configs.values())).trainer
    device = accelerator(trainer)
    torch.set_num_threads(threads(trainer))
    rows: dict[str, dict[str, Any]] = {}
    held, reference = "", None  # one at a time: the baselines of several sizes need not fit side by side
    in_turn = sorted(configs.items(), key=lambda item: list(configs).index(baselines[item[0]]))
    for done, (name, config) in enumerate(in_turn):
        if told is not None:
            told(done, len(configs))
        baseline = baselines[name]
        try:
            if baseline != held or reference is None:
                reference = None
                held, reference = baseline, _Stepper(configs[baseline], device)
            pairs = list(_pairs(reference, _Stepper(config, device), steps))
        except (RuntimeError, MemoryError) as error:  # out of memory, mostly: the other rows are still worth their time
            print(f"warning: row '{name}' could not be timed: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        rows[name] = {
            "baseline": baseline,
            "ms_per_step": statistics.median(own for _, own in pairs),
            "ms_ratio": statistics.median(own / base for base, own in pairs),
            "ms_ratio_spread": _spread([own / base for base, own in pairs]),
            "samples": len(pairs),
        }
    in_order = {name: rows[name] for name in configs if name in rows}
    return {
        "device": device_name(trainer),
        "threads": threads(trainer),
        "load": load,
        "cores": cores(),
        "rows": in_order,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Read a study's study.json, time its rows, write its timing.json. Exit codes: 0 done, 2 LabError."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    speak_anyway()
    try:
        if len(arguments) != 1:
            raise LabError("usage: python -m mhc_lab.training.timing <study folder>")
        study = Path(arguments[0])
        content = read_json(study / "study.json", {**GRID, "timing_config": MapOf(str)})
        if content is None:
            raise LabError(f"{study}: not a study folder (no study.json)")
        run_ids: dict[str, str] = content["timing_config"]
        runs = runs_dir(study.parent)
        told = _Told()
        configs = {row: RunFolder(runs / run_id).config() for row, run_id in run_ids.items()}
        timing = time_rows(
            configs,
            {row["row"]: row["baseline"] for row in content["rows"]},
            steps=STEPS,
            told=told.tell,
        )
        told.end()
        for row, timed in timing["rows"].items():
            timed["run_id"] = run_ids[row]
        code = together(code_of(Executed.by(config)) for config in configs.values())
        timing |= {"code_fingerprint": fingerprint(code), "definitions": dict(code)}
        write_json(study / "timing.json", timing)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    return EXIT_OK


def _spread(ratios: Sequence[float]) -> float:
    """Half of what the middle half of the pairs' ratios spans."""
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (0.0, 0.0, 0.0)
    return (high - low) / 2


class _Told:
    """Says how far the timing pass is: on a terminal in one line that moves, elsewhere every few seconds."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._moves = sys.stdout.isatty()

    def tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not done or not (self._moves or now - self._last >= PLAIN_SECONDS):
            return
        self._last = now
        text = f"{done} of {total} rows timed, about {duration((now - self._start) / done * (total - done))} left"
        print(f"\r{text:<{LINE}}" if self._moves else text, end="" if self._moves else "\n", flush=True)

    def end(self) -> None:
        if self._moves:
            print(f"\r{'':<{LINE}}\r", end="", flush=True)


def _pairs(reference: _Stepper, row: _Stepper, steps: int) -> Iterator[tuple[float, float]]:
    """Milliseconds of a reference step and of a row's step; which of the two is first changes from pair to pair."""
    for index in range(-WARM_UP, steps):
        if index % 2:
            own, base = row.step(), reference.step()
        else:
            base, own = reference.step(), row.step()
        if index >= 0:
            yield base, own


class _Stepper:
    """A model with its optimizer and a few real batches, that takes timed training steps."""

    def __init__(self, config: RunConfig, device: str) -> None:
        if config.residual.plugin:
            registry.load_plugin(config.residual.plugin, named=False)
        self.config = config
        self.device = torch.device("cuda" if device == "gpu" else "cpu")
        data = LabData(config)
        batches = list(itertools.islice(data.train_dataloader(), BATCHES))
        self.batches: Iterator[Batch] = itertools.cycle(
            [(inputs.to(self.device), targets.to(self.device)) for inputs, targets in batches]
        )
        self.model = build_model(config, config.model.vocab_size or data.vocab_size).to(self.device)
        self.optimizer = build_optimizer(self.model, config.optim)
        self.clock = StepClock(device)

    def step(self) -> float:
        """One training step, in milliseconds."""
        self.clock.lap()
        with self._precision():
            loss = next_token_loss(self.model, next(self.batches))
        loss.backward()
        clip_gradients(self.model, self.config.optim.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return 1000 * self.clock.lap()

    def _precision(self) -> AbstractContextManager[Any]:
        if self.config.trainer.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


if __name__ == "__main__":
    raise SystemExit(main())
