"""Whole training steps: a stack with a variant's connections beside the same stack with plain residuals."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mhc_lab.bench import report
from mhc_lab.bench.adapters import Absent
from mhc_lab.bench.options import DTYPES, STEP_VARIANTS, Options
from mhc_lab.bench.step_rivals import STEP_RIVALS
from mhc_lab.config.schema import ModelConfig, ResidualConfig
from mhc_lab.errors import LabError
from mhc_lab.machine import keep_freed_memory
from mhc_lab.models.gpt import Attention, FeedForward
from mhc_lab.models.stack import ResidualStack
from mhc_lab.residual import registry

PLAIN = "identity"
WARM_UP = 3
RESAMPLES = 2000
HEAD = """\
`step / plain` is the median over pairs of steps that ran one after the other in one process, one of the variant and one
of the same stack with plain residuals and the same stream dtype, with its 95 % bootstrap interval. The row `identity`
is the plain stack beside a second copy of itself: the noise."""


@dataclass(frozen=True)
class Setting:
    """A stack and what it is fed."""

    name: str
    model: ModelConfig
    batch: int
    optimizer: bool
    mixed_precision: bool

    @property
    def words(self) -> str:
        m = self.model
        step = "forward, backward, AdamW" if self.optimizer else "forward, backward"
        kind = "SwiGLU" if m.ffn == "swiglu" else "GELU"
        return (
            f"{self.name}: C = {m.dim}, {m.blocks} blocks (RMSNorm, {m.heads} heads of {m.dim // m.heads}, {kind} of "
            f"width {m.ffn_width}), {self.batch} × {m.sequence_length} tokens; {step}"
            f"{'; bf16 autocast, fp32 weights' if self.mixed_precision else '; fp32'}; no embedding and no head"
        )


def settings(options: Options) -> list[Setting]:
    """On a GPU dense stand-ins for the paper's layers, with the active width of their experts; on a CPU small ones."""
    if options.on_gpu:
        widths = {1280: 8 * 896, 1920: 8 * 1280, 2560: 8 * 1536}  # mHC Table 5: 6 + 2 active experts
        dims = options.dims or [1280, 2560]
        blocks, length, batch, head, kind = 4, 4096, 1, 80, "swiglu"
    else:
        widths, dims = {}, options.dims or [128, 256]
        blocks, length, batch, head, kind = 4, 128, 16, 32, "gelu"
    if options.quick:
        dims, blocks, length, batch = dims[:1], 2, length // 4, max(1, batch // 4)
    found = []
    for dim in dims:
        if dim % head:
            raise LabError(f"--dims {dim}: heads are {head} wide, so give multiples of {head}")
        width = widths.get(dim, 4 * dim)
        model = ModelConfig(
            blocks=blocks,
            dim=dim,
            heads=dim // head,
            ffn="swiglu" if kind == "swiglu" else "gelu",
            ffn_width=width,
            sequence_length=length,
        )
        name = {1280: "3B stand-in", 1920: "9B stand-in", 2560: "27B stand-in"}.get(dim, "small")
        found.append(Setting(name, model, batch, optimizer=options.on_gpu, mixed_precision=options.on_gpu))
    return found


def layers_of(model: ModelConfig) -> list[nn.Module]:
    return [kind(model) for _ in range(model.blocks) for kind in (Attention, FeedForward)]


def residual(variant: str, options: Options, **more: Any) -> ResidualConfig:
    """A variant with its own defaults, in the stream dtype of this benchmark."""
    given = {**registry.variant(variant).defaults, "streams": options.streams, "t_max": options.t_max, **more}
    dtype = options.dtype or ("bf16" if options.on_gpu else "fp32")
    return ResidualConfig(variant=variant, stream_dtype="bf16" if dtype == "bf16" else "fp32", **given)


class Stepper:
    """A stack that takes timed training steps."""

    def __init__(self, stack: nn.Module, setting: Setting, device: torch.device, compiled: bool) -> None:
        self.stack = stack.to(device)
        self.run: Callable[[Tensor], Tensor] = torch.compile(self.stack) if compiled else self.stack
        self.device = device
        self.setting = setting
        size = (setting.batch, setting.model.sequence_length, setting.model.dim)
        draw = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(size, generator=draw).to(device).requires_grad_()
        self.pull = torch.randn(size, generator=draw).to(device)
        fused = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(self.stack.parameters(), fused=fused) if setting.optimizer else None

    def step(self) -> float:
        """One training step, in milliseconds."""
        self._wait()
        start = time.perf_counter()
        with self._precision():
            out = self.run(self.hidden)
        out.backward(self.pull.to(out.dtype))
        if self.optimizer is not None:
            self.optimizer.step()
        self._wait()
        took = 1e3 * (time.perf_counter() - start)
        self.stack.zero_grad()
        self.hidden.grad = None
        return took

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.setting.mixed_precision:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def pairs(plain: Stepper, other: Stepper, count: int) -> Iterator[tuple[float, float]]:
    """Milliseconds of a plain step and of the other's; which one is first changes from pair to pair."""
    for index in range(-WARM_UP, count):
        if index % 2:
            own, base = other.step(), plain.step()
        else:
            base, own = plain.step(), other.step()
        if index >= 0:
            yield base, own


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    values = torch.tensor(ratios, dtype=torch.float64)
    drawn = torch.randint(len(ratios), (RESAMPLES, len(ratios)), generator=torch.Generator().manual_seed(0))
    medians = values[drawn].quantile(0.5, dim=1)
    low, high = medians.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def run_step(options: Options, say: Callable[[str], None]) -> list[Path]:
    """Time every variant beside the plain residual; write step.json and step.md; their paths."""
    if options.dtype and DTYPES[options.dtype] == torch.float16:
        raise LabError("--dtype fp16: streams of a model are fp32 or bf16")
    torch.set_num_threads(options.used_threads)
    keep_freed_memory()  # as a training run does
    torch.set_float32_matmul_precision("high")
    folder, run = report.folder_of(options), report.circumstances(options)
    found = settings(options)
    content: report.Json = {"runs": [run], "settings": [setting.words for setting in found], "rows": [], "notes": []}
    count = options.rounds or (3 if options.quick else 30 if options.on_gpu else 40)
    rivals = STEP_RIVALS if options.rivals is None else options.rivals
    names = (PLAIN, *(options.variants or STEP_VARIANTS), *rivals)
    modes = [False, True] if (options.on_gpu if options.compile is None else options.compile) else [False]
    paths: list[Path] = []
    for setting in found:
        for compiled in modes:
            mode = "compiled" if compiled else "eager"
            plain = _stepper(PLAIN, setting, options, compiled)
            for name in names:
                label = f"{name} C={setting.model.dim} {mode}"
                torch.compiler.reset()  # past a handful of stacks it would run them eagerly
                try:
                    other = _stepper(name, setting, options, compiled)
                    row = _row(name, setting, mode, list(pairs(plain, other, count)))
                except (Absent, torch.OutOfMemoryError) as error:
                    reason = " ".join(str(error).split())[:200]
                except Exception as error:
                    if name not in STEP_RIVALS:
                        raise
                    reason = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
                else:
                    content["rows"].append(row)
                    say(f"{label}: {row['ratio']:.3f} of plain ({row['ms']:.1f} ms)")
                    # After each row: what was measured is not lost to what comes after it.
                    paths = report.write(folder, "step", content, markdown(content))
                    continue
                content["notes"].append(f"{label}: {reason}")
                say(f"not measured: {content['notes'][-1]}")
    return report.write(folder, "step", content, markdown(content)) if paths else paths


def _stepper(name: str, setting: Setting, options: Options, compiled: bool) -> Stepper:
    torch.manual_seed(0)
    layers = layers_of(setting.model)
    stack: nn.Module
    if name in STEP_RIVALS:
        stack = STEP_RIVALS[name](layers, setting.model.dim, options.streams, options.t_max)
    else:
        stack = ResidualStack(layers, setting.model.dim, residual(name, options))
    return Stepper(stack, setting, options.place, compiled)


def _row(name: str, setting: Setting, mode: str, timed: Sequence[tuple[float, float]]) -> report.Json:
    ratios = [own / base for base, own in timed]
    low, high = interval(ratios)
    return {
        "name": name,
        "dim": setting.model.dim,
        "mode": mode,
        "ms": statistics.median(own for _, own in timed),
        "plain_ms": statistics.median(base for base, _ in timed),
        "ratio": statistics.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "pairs": len(ratios),
    }


def markdown(content: report.Json) -> str:
    titles = ["", "C", "mode", "step / plain", "95 % interval", "overhead", "ms", "plain ms", "pairs"]
    rows = [
        [
            row["name"],
            str(row["dim"]),
            row["mode"],
            f"{row['ratio']:.3f}",
            f"[{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]",
            f"{row['ratio'] - 1:+.1%}",
            f"{row['ms']:.2f}",
            f"{row['plain_ms']:.2f}",
            str(row["pairs"]),
        ]
        for row in content["rows"]
    ]
    parts = ["# Training steps", *(report.describe(run) for run in content["runs"]), HEAD]
    parts += [report.bullets("Stacks:", content["settings"]), report.table(titles, rows)]
    parts.append(report.bullets("Not in the table:", content["notes"]))
    return "\n\n".join(part for part in parts if part)
