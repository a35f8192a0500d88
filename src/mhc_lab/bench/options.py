"""What `mhc-lab bench` is asked for, and whether it can be had."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mhc_lab.bench.cases import CASES, Shape
from mhc_lab.bench.step_rivals import STEP_RIVALS
from mhc_lab.errors import LabError, nearest
from mhc_lab.machine import cores

WHAT = ("ops", "step", "memory", "correctness", "sizes", "day")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONTENDERS = ("eager", "compile", "liger", "flag_gems", "tile_kernels", "transformer_engine")

RIVALS_HELP = f"ops: any of {','.join(CONTENDERS)}; step: any of {','.join(STEP_RIVALS)}; '' for none"
RIVALS_OF: dict[str, tuple[str, ...]] = {"ops": CONTENDERS, "step": tuple(STEP_RIVALS)}
WHAT_HELP = (
    "ops, step, memory, correctness, sizes (training steps of whole models) or day (all that fits into --minutes)"
)
STEP_VARIANTS = ("mhc", "identity_hc", "row_stochastic", "orthogonal", "hc")

MOST_MINUTES = 24 * 60
GPU_DIMS, GPU_TOKENS = (1280, 1920, 2560, 4096, 7168), (4096, 8192, 16384, 32768)
CPU_DIMS, CPU_TOKENS = (128, 256), (2048,)


@dataclass
class Options:
    """Everything that can be set; None and empty lists stand for what fits the device."""

    what: str
    device: str = "auto"
    dims: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    streams: int = 4
    t_max: int = 20
    dtype: str = ""
    rounds: int = 0
    threads: int = 0
    cases: list[str] = field(default_factory=list)
    rivals: list[str] | None = None
    variants: list[str] = field(default_factory=list)
    compile: bool | None = None
    quick: bool = False
    append: bool = False
    minutes: float = 10
    results: Path = Path("results")

    def check(self) -> None:
        """Raise LabError for the first thing that cannot be."""
        _one_of("bench", self.what, WHAT)
        _one_of("--device", self.device, ("auto", "cpu", "cuda"))
        if self.device == "cuda" and not torch.cuda.is_available():
            raise LabError("--device cuda: torch sees no GPU here; --device cpu runs the same on this machine")
        if self.dtype:
            _one_of("--dtype", self.dtype, tuple(DTYPES))
        for name, values in (("--dims", self.dims), ("--tokens", self.tokens)):
            if any(value < 1 for value in values):
                raise LabError(f"{name} {','.join(map(str, values))}: give whole numbers, at least 1")
        if not 1 <= self.streams <= 16:
            raise LabError(f"--streams {self.streams}: the kernels take 1 to 16")
        for name, number in (("--rounds", self.rounds), ("--threads", self.threads), ("--t-max", self.t_max)):
            if number < 0:
                raise LabError(f"{name} {number}: must not be negative")
        for case in self.cases:
            _one_of("--cases", case, tuple(CASES))
        for rival in self.rivals or []:
            _one_of(f"--rivals of bench {self.what}", rival, RIVALS_OF.get(self.what, ()))
        for variant in self.variants:
            _one_of("--variants", variant, STEP_VARIANTS)
        if not 0 < self.minutes <= MOST_MINUTES:
            raise LabError(f"--minutes {self.minutes:g}: give more than 0 and at most {MOST_MINUTES}")

    @property
    def place(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    @property
    def on_gpu(self) -> bool:
        return self.place.type == "cuda"

    @property
    def used_threads(self) -> int:
        return self.threads or cores()

    @property
    def contenders(self) -> list[str]:
        """Those of `bench ops` beside our own kernels."""
        if self.rivals is not None:
            return self.rivals
        return [name for name in CONTENDERS if not (self.quick and name == "compile")]

    def shapes(self) -> list[Shape]:
        """Of `bench ops`: every width at every number of tokens."""
        dims = self.dims or list(GPU_DIMS if self.on_gpu else CPU_DIMS)
        tokens = self.tokens or list(GPU_TOKENS if self.on_gpu else CPU_TOKENS)
        if self.quick:
            dims, tokens = self.dims or dims[:1], self.tokens or ([4096] if self.on_gpu else [256])
        dtype = DTYPES[self.dtype or ("bf16" if self.on_gpu else "fp32")]
        return [Shape(t, dim, self.streams, dtype, self.t_max) for dim in dims for t in tokens]


def parser() -> argparse.ArgumentParser:
    """`python -m mhc_lab.bench`, for machines with torch and triton alone."""
    made = argparse.ArgumentParser(prog="python -m mhc_lab.bench", description=__doc__)
    made.add_argument("what", help=WHAT_HELP)
    made.add_argument("--device", default="auto", help="auto, cpu or cuda")
    made.add_argument("--dims", type=numbers, default=[], help="widths of a stream, as 1280,2560")
    made.add_argument("--tokens", type=numbers, default=[], help="numbers of tokens, as 4096,8192")
    made.add_argument("--streams", type=int, default=4)
    made.add_argument("--t-max", type=int, default=20)
    made.add_argument("--dtype", default="", help="of the streams: fp32, bf16 or fp16 (default: bf16 on a GPU)")
    made.add_argument("--rounds", type=int, default=0, help="rounds in which implementations take turns")
    made.add_argument("--threads", type=int, default=0, help="of the CPU (default: its cores)")
    made.add_argument("--cases", type=words, default=[], help=f"any of {','.join(CASES)}")
    made.add_argument("--rivals", type=words, default=None, help=RIVALS_HELP)
    made.add_argument("--variants", type=words, default=[], help=f"step: any of {','.join(STEP_VARIANTS)}")
    made.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None, help="step: compiled too")
    made.add_argument("--quick", action="store_true", help="seconds rather than minutes: small shapes, few rounds")
    made.add_argument("--append", action="store_true", help="keep what earlier runs of this device measured")
    made.add_argument("--minutes", type=float, default=10, help="day: when it ends, wherever it is")
    made.add_argument("--results", "--out", type=Path, default=Path("results"))
    return made


def parse(arguments: Sequence[str] | None = None) -> Options:
    return Options(**vars(parser().parse_args(arguments)))


def numbers(text: str) -> list[int]:
    """ "1,2" -> [1, 2]; LabError for anything else."""
    found = words(text)
    if not all(word.isdecimal() for word in found):
        raise LabError(f"'{text}': give whole numbers with commas between them")
    return [int(word) for word in found]


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _one_of(what: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise LabError(f"{what}: there is no '{value}': {nearest(str(value), choices)}")
