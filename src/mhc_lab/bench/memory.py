"""What a training step keeps in memory, by the formulas of `models/cost.py` and measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mhc_lab.bench import report
from mhc_lab.bench.options import Options
from mhc_lab.bench.step import residual, settings
from mhc_lab.config.schema import ModelConfig, ResidualConfig, RunConfig, TrainerConfig
from mhc_lab.errors import LabError
from mhc_lab.models.cost import memory
from mhc_lab.models.gpt import GPT
from mhc_lab.models.recompute import block_length
from mhc_lab.models.saved_bytes import measured_saved_bytes

# A plain residual has nothing to recompute; the others by themselves, at the paper's block length and at a short one.
ROWS = (("identity", "off"), *((name, how) for name in ("mhc", "identity_hc", "hc") for how in ("off", "auto", "4")))
VOCABULARY = {"cuda": 32000, "cpu": 256}
STEPS = 3  # of which the last is measured: the optimizer's states are there from the second on
MIB = 2**20
HEAD = {
    "cuda": "Peak of the allocated memory in a training step (forward, backward, AdamW), without what was there before"
    " the model; predicted by `models.cost.memory(...).peak`.",
    "cpu": "Bytes that autograd keeps from forward to backward, counted by saved-tensor hooks; predicted by"
    " `models.cost.memory(...).saved`.",
}


def run_memory(options: Options, say: Callable[[str], None]) -> list[Path]:
    """Measure every row at every width; write memory.json and memory.md; their paths."""
    if options.dtype == "fp16":
        raise LabError("--dtype fp16: streams of a model are fp32 or bf16")
    torch.set_num_threads(options.used_threads)
    folder, run = report.folder_of(options), report.circumstances(options)
    found = [(setting, RunConfig(model=_deeper(setting.model, options))) for setting in settings(options)]
    content: report.Json = {"runs": [run], "settings": [], "rows": [], "notes": []}
    paths: list[Path] = []
    for setting, config in found:
        config.trainer = TrainerConfig(precision="bf16-mixed" if setting.mixed_precision else "fp32")
        config.data.batch_size = setting.batch
        content["settings"].append(f"{setting.words.split(';')[0]}, here with {config.model.blocks} blocks and a head")
        for variant, how in ROWS:
            config.residual = residual(variant, options, recompute=how)
            label = f"{variant} C={config.model.dim} recompute={how}"
            try:
                row = {"name": variant, "recompute": how, **_measure(config, options)}
            except torch.OutOfMemoryError:
                content["notes"].append(f"{label}: out of memory")
                say(f"not measured: {content['notes'][-1]}")
                continue
            content["rows"].append(row)
            say(f"{label}: {row['measured'] / MIB:,.1f} MiB, predicted {row['predicted'] / MIB:,.1f}")
            paths = report.write(folder, "memory", content, markdown(content, options.place.type))
    return paths


def _deeper(model: ModelConfig, options: Options) -> ModelConfig:
    """Enough layers for blocks of recomputation on a GPU; the CPU's stacks as they are."""
    if options.on_gpu and not options.quick:
        model.blocks = 8
    return model


def _measure(config: RunConfig, options: Options) -> report.Json:
    device = options.place
    vocabulary = VOCABULARY[device.type]
    predicted = memory(config, vocabulary, device=device.type)
    measure = _peak if device.type == "cuda" else _saved
    residual_config: ResidualConfig = config.residual
    return {
        "dim": config.model.dim,
        "layers_per_block": block_length(residual_config, 2 * config.model.blocks),
        "predicted": predicted.peak if device.type == "cuda" else predicted.saved,
        "predicted_connections": predicted.connections,
        "measured": measure(config, vocabulary, device),
    }


def _saved(config: RunConfig, vocabulary: int, device: torch.device) -> int:
    model, batch = model_of(config, vocabulary, device)
    return measured_saved_bytes(lambda: loss_of(model, batch, config, device), model)


def _peak(config: RunConfig, vocabulary: int, device: torch.device) -> int:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    model, batch = model_of(config, vocabulary, device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(STEPS):
        torch.cuda.reset_peak_memory_stats(device)
        loss_of(model, batch, config, device).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated(device)) - int(before)


def model_of(config: RunConfig, vocabulary: int, device: torch.device) -> tuple[GPT, Tensor]:
    """A model and a batch of tokens, one more than it reads in each row."""
    model = GPT(config.model, config.residual, vocabulary).to(device)
    draw = torch.Generator().manual_seed(0)
    size = (config.data.batch_size, config.model.sequence_length + 1)
    return model, torch.randint(vocabulary, size, generator=draw).to(device)


def loss_of(model: GPT, batch: Tensor, config: RunConfig, device: torch.device) -> Tensor:
    precision: AbstractContextManager[Any] = nullcontext()
    if config.trainer.precision == "bf16-mixed":
        precision = torch.autocast(device.type, torch.bfloat16)
    with precision:
        logits = model(batch[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


def markdown(content: report.Json, kind: str) -> str:
    titles = ["", "C", "recompute", "L_r", "predicted MiB", "measured MiB", "difference", "against off"]
    off = {(row["name"], row["dim"]): row["measured"] for row in content["rows"] if row["recompute"] == "off"}
    rows = []
    for row in content["rows"]:
        base = off.get((row["name"], row["dim"]))
        rows.append(
            [
                row["name"],
                str(row["dim"]),
                row["recompute"],
                str(row["layers_per_block"] or ""),
                f"{row['predicted'] / MIB:,.1f}",
                f"{row['measured'] / MIB:,.1f}",
                f"{row['predicted'] / row['measured'] - 1:+z.1%}",
                "" if base is None else f"{row['measured'] / base:.2f}",
            ]
        )
    parts = ["# Memory", *(report.describe(run) for run in content["runs"]), HEAD[kind]]
    parts += [report.bullets("Models:", content["settings"]), report.table(titles, rows)]
    parts.append(report.bullets("Not in the table:", content["notes"]))
    return "\n\n".join(part for part in parts if part)
