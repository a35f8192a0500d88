"""Training steps of whole models at a few sizes: what a study of the grid `day` takes, before it is begun."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mhc_lab.bench import report
from mhc_lab.bench.memory import loss_of, model_of
from mhc_lab.bench.options import Options
from mhc_lab.config.schema import RunConfig
from mhc_lab.study.spec import load_grid

GRID = "day"
SIZES = {  # largest first: 28, 19 and 11 million parameters
    "l": ("model.blocks=9", "model.dim=512", "model.heads=8"),
    "m": ("model.blocks=8", "model.dim=448", "model.heads=7"),
    "s": ("model.blocks=6", "model.dim=384", "model.heads=6"),
}
TINY = {"tiny": ("model.blocks=1", "model.dim=32", "model.heads=2", "model.sequence_length=32", "data.batch_size=4")}
TINY_RUN = ("data=stdlib", "data.val_windows=8", "trainer.max_steps=4", "trainer.probe_every=0", "trainer.threads=1")
BYTES = 256  # the vocabulary of a corpus of bytes
WARM_UP, STEPS = 3, 7
HEAD = """\
Median milliseconds of a training step (forward, backward, clipping, AdamW) of a whole model on drawn tokens, in the
settings of `conf/grid/day.yaml`."""


def of_device(options: Options) -> list[str]:
    """The overrides that a run of the grid needs on this device."""
    return ["trainer=gpu", "launcher.runs_per_device=2"] if options.on_gpu else ["trainer=cpu"]


def run_sizes(options: Options, say: Callable[[str], None]) -> list[Path]:
    """Time every row of the grid `day` at every size; write sizes.json and sizes.md; their paths."""
    torch.set_num_threads(options.used_threads)
    folder, run = report.folder_of(options), report.circumstances(options)
    content: report.Json = {"runs": [run], "rows": [], "notes": []}
    paths: list[Path] = []
    for name, overrides in (TINY if options.quick else SIZES).items():
        shared = [*of_device(options), *overrides, *(TINY_RUN if options.quick else ())]
        row: report.Json = {"size": name, "overrides": shared, "ms": {}}
        for variant in load_grid(GRID, shared_overrides=shared).rows:
            row["steps"], row["tokens"] = variant.config.trainer.max_steps, _tokens(variant.config)
            try:
                row["parameters"], row["ms"][variant.name] = _timed(variant.config, options)
            except torch.OutOfMemoryError:
                content["notes"].append(f"{name} {variant.name}: out of memory")
        say(f"{name}: {', '.join(f'{variant} {ms:.3g} ms' for variant, ms in row['ms'].items()) or 'out of memory'}")
        content["rows"].append(row)
        paths = report.write(folder, "sizes", content, markdown(content))
    return paths


def _tokens(config: RunConfig) -> int:
    return config.data.batch_size * config.model.sequence_length


def _timed(config: RunConfig, options: Options) -> tuple[int, float]:
    """Parameters of a model, and milliseconds of a step."""
    device, count = options.place, options.rounds or STEPS
    torch.manual_seed(0)
    model, batch = model_of(config, BYTES, device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=device.type == "cuda")
    took = []
    for _ in range(WARM_UP + count):
        _wait(device)
        start = time.perf_counter()
        loss_of(model, batch, config, device).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(device)
        took.append(1e3 * (time.perf_counter() - start))
    return sum(parameter.numel() for parameter in model.parameters()), statistics.median(took[WARM_UP:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def markdown(content: report.Json) -> str:
    variants = list(dict.fromkeys(variant for row in content["rows"] for variant in row["ms"]))
    titles = ["size", "million parameters", "tokens a step", *(f"{variant} ms" for variant in variants)]
    rows = [
        [
            f"{row['size']} ({', '.join(word for word in row['overrides'] if word.startswith('model.'))})",
            f"{row['parameters'] / 1e6:.1f}" if "parameters" in row else "",
            str(row["tokens"]),
            *(f"{row['ms'][variant]:.2f}" if variant in row["ms"] else "" for variant in variants),
        ]
        for row in content["rows"]
    ]
    parts = ["# Whole models", *(report.describe(run) for run in content["runs"]), HEAD, report.table(titles, rows)]
    parts.append(report.bullets("Not in the table:", content["notes"]))
    return "\n\n".join(part for part in parts if part)
