"""No speed without correctness: each implementation against the equations in fp64, values and every gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mhc_lab.bench.adapters import Prepared
from mhc_lab.bench.cases import SHARED

CHUNK = 2048  # tokens in fp64 at a time

# Largest allowed |found - truth| / |truth| of a whole tensor. The streams' own rounding is 1e-3 in bf16, a projection
# on tensor cores 3e-4 (tf32); a wrong axis, sign or factor is far above.
ALLOWED = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 5e-3, torch.bfloat16: 1e-2}


@dataclass(frozen=True)
class Verdict:
    """The largest relative error of any output or gradient, and where it is."""

    error: float
    where: str
    allowed: float

    @property
    def green(self) -> bool:
        return self.error <= self.allowed  # a NaN is not

    def __str__(self) -> str:
        return f"{self.where} is off by {self.error:.2g}, allowed {self.allowed:.2g}"


def judge(prepared: Prepared) -> Verdict:
    """Run an implementation once and compare all that it gives with the truth, on all tokens."""
    values, gradients = prepared.checked()
    adapter, problem = prepared.adapter, prepared.problem
    case, shape, inputs = problem.case, problem.shape, problem.inputs
    errors = _Errors()
    sums = {name: torch.zeros_like(inputs[name], dtype=torch.float64) for name in SHARED if name in inputs}
    for start in range(0, shape.tokens, CHUNK):
        part = slice(start, start + CHUNK)
        given = {
            name: (value if name in SHARED else value[part]).double().requires_grad_() for name, value in inputs.items()
        }
        truth = case.equations(given, shape, shape.dtype, adapter.transposed)
        for name, value in truth.items():
            if adapter.backward or name in values:  # what only runs forward may keep some of its outputs to itself
                errors.add(name, values[name][part], value.detach())
        if not adapter.backward:
            continue
        wanted = torch.autograd.grad(
            list(truth.values()), list(given.values()), [problem.cotangents[name][part].double() for name in truth]
        )
        for name, gradient in zip(given, wanted, strict=True):
            if name in sums:
                sums[name] += gradient
            else:
                errors.add(f"gradient of {name}", gradients[name][part], gradient)
    if adapter.backward:
        for name, total in sums.items():
            errors.add(f"gradient of {name}", gradients[name], total)
    error, where = errors.largest()
    return Verdict(error, where, ALLOWED[shape.dtype])


class _Errors:
    """Sums of squares by name: of the truth, and of the difference from it."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float]] = {}

    def add(self, name: str, found: Tensor, truth: Tensor) -> None:
        if found.shape != truth.shape:
            raise ValueError(f"{name}: shape {tuple(found.shape)} where {tuple(truth.shape)} is right")
        off = float((found.double() - truth).square().sum())
        size = float(truth.square().sum())
        before = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = (before[0] + off, before[1] + size)

    def largest(self) -> tuple[float, str]:
        relative = {name: _ratio(off, size) for name, (off, size) in self.sums.items()}
        nans = [name for name, error in relative.items() if error != error]
        where = nans[0] if nans else max(relative, key=lambda name: relative[name])
        return relative[where], where


def _ratio(off: float, size: float) -> float:
    """Relative error; of a truth that is zero, the absolute one."""
    return float((off / size if size else off) ** 0.5)
