"""Compiling Triton kernels for GPUs that are not there, and what each one takes of them.

python -m mhc_lab.ops.ahead_of_time prints a table of registers, spills and shared memory and exits with 1 if a
kernel spills, asks for more than its GPU has or does not compile. No GPU is needed, and nothing but torch and triton.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import multiprocessing
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What a block may take of shared memory, in bytes (CUDA C++ programming guide, table of compute capabilities; CDNA3's
# LDS). Triton asks for it at launch, so that a kernel that wants more compiles and then fails on the GPU.
TARGETS = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}


@dataclass(frozen=True)
class KernelVariant:
    """One specialisation of a Triton kernel, as a launch would make it.

    Attributes:
        name: what it is, unique over all variants ("write forward bf16 n=4").
        kernel: the function decorated by `triton.jit`.
        signature: the type of each run-time argument by its name, in Triton's spelling ("*bf16", "i32", "fp32").
        constants: each `tl.constexpr` argument by its name.
        aligned: run-time arguments that are divisible by 16 (pointers and sizes): vector loads depend on it.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 2
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """What one kernel takes of one GPU: registers a thread, bytes a thread spills, bytes of shared memory a block."""

    kernel: str
    target: str
    registers: int = 0
    spilled: int = 0
    shared: int = 0
    error: str = ""

    @property
    def fault(self) -> str:
        """Why this kernel is not fit for this GPU, or nothing."""
        if self.error:
            return self.error
        if self.spilled:
            return f"spills {self.spilled} bytes a thread"
        if self.shared > TARGETS[self.target]:
            return f"needs {self.shared} bytes of shared memory, {self.target} has {TARGETS[self.target]}"
        return ""


def compile_variant(variant: KernelVariant, target: str) -> Usage:
    """Compile for one of TARGETS. Raises what Triton raises; triton.jit must not be in interpreter mode."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = variant.kernel.arg_names
    missing = set(names) - set(variant.signature) - set(variant.constants)
    unknown = {*variant.signature, *variant.constants, *variant.aligned} - set(names)
    if missing or unknown:
        raise ValueError(f"{variant.name}: arguments without a type {sorted(missing)}, unknown {sorted(unknown)}")
    source = ASTSource(
        variant.kernel,
        {name: "constexpr" if name in variant.constants else variant.signature[name] for name in names},
        variant.constants,
        {(names.index(name),): [["tt.divisibility", 16]] for name in variant.aligned},
    )
    kind, _, arch = target.partition("_")
    gpu = GPUTarget("cuda", int(arch), 32) if kind == "sm" else GPUTarget("hip", target, 64)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages, **variant.options}
    compiled = triton.compile(source, target=gpu, options=options)
    read = _from_cubin if "cubin" in compiled.asm else _from_assembly
    registers, spilled = read(compiled.asm)
    return Usage(variant.name, target, registers, spilled, int(compiled.metadata.shared))


def _from_cubin(asm: Any) -> tuple[int, int]:
    """Registers and bytes of stack a thread. A Triton kernel has a stack for spills alone."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", told)}
    return usage["REG"], usage["STACK"] + usage["LOCAL"]


def _from_assembly(asm: Any) -> tuple[int, int]:
    """Vector registers and bytes of scratch a thread. Scalar registers spill into vector ones, not into memory."""
    usage = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)", asm["amdgcn"])}
    return usage["vgpr_count"], max(usage["private_segment_fixed_size"], 4 * usage["vgpr_spill_count"])


def kernel_modules() -> list[str]:
    """The modules under `mhc_lab.ops` that have kernels for GPUs."""
    from mhc_lab import ops

    folders = (info.name for info in pkgutil.iter_modules(ops.__path__, "mhc_lab.ops.") if info.ispkg)
    return [f"{name}.gpu" for name in folders if importlib.util.find_spec(f"{name}.gpu") is not None]


def compile_all(
    modules: Sequence[str], targets: Sequence[str] = tuple(TARGETS), only: str = "", jobs: int | None = None
) -> Iterator[Usage]:
    """Every variant of every module whose name has `only` in it, for every target, `jobs` at a time, as they end."""
    # The kernels of this process may be the interpreter's: they are listed and compiled in processes of their own.
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # what launches have, said aloud: Triton warns otherwise
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs or len(os.sched_getaffinity(0)), mp_context=spawn) as pool:
        listed = [name for module in modules for name in pool.submit(_names, module).result() if only in name[1]]
        twice = {name for _, name in listed if [n for _, n in listed].count(name) > 1}
        if twice:
            raise ValueError(f"kernel variants with one name: {sorted(twice)}")
        futures = [pool.submit(_compile, module, name, target) for module, name in listed for target in targets]
        for future in as_completed(futures):
            yield future.result()


def _names(module: str) -> list[tuple[str, str]]:
    return [(module, variant.name) for variant in importlib.import_module(module).variants()]


def _compile(module: str, name: str, target: str) -> Usage:
    variant = next(v for v in importlib.import_module(module).variants() if v.name == name)
    try:
        return compile_variant(variant, target)
    except Exception as error:  # whatever a compiler throws is this kernel's result; the others are still compiled
        reason = str(error).strip().splitlines() or [""]
        return Usage(name, target, error=f"does not compile: {type(error).__name__}: {reason[-1]}")


def table(usages: Sequence[Usage]) -> str:
    """A Markdown table, one row a kernel, one column a GPU."""
    found = {(usage.kernel, usage.target): usage for usage in usages}
    kernels = sorted({usage.kernel for usage in usages})
    targets = [target for target in TARGETS if any(usage.target == target for usage in usages)]
    lines = ["| kernel | " + " | ".join(targets) + " |", "| --- |" + " --: |" * len(targets)]
    for kernel in kernels:
        cells = [_cell(found.get((kernel, target))) for target in targets]
        lines.append(f"| {kernel} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(usage: Usage | None) -> str:
    if usage is None:
        return ""
    if usage.error:
        return "does not compile"
    text = f"{usage.registers} / {usage.spilled} / {usage.shared}"
    return f"**{text}**" if usage.fault else text


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code: 0 if every kernel fits every GPU, 1 if not, 2 for a wrong argument."""
    parser = argparse.ArgumentParser(prog="python -m mhc_lab.ops.ahead_of_time", description=__doc__)
    parser.add_argument("--targets", default=",".join(TARGETS), help="GPUs to compile for (default: %(default)s)")
    parser.add_argument("--only", default="", help="kernels with this in their name")
    parser.add_argument("--modules", default="", help="modules with a function variants(); default: those of ops")
    parser.add_argument("--jobs", type=int, default=None, help="compilations at once (default: the cores)")
    parser.add_argument("--json", action="store_true", help="print JSON rather than a Markdown table")
    arguments = parser.parse_args(argv)
    targets = arguments.targets.split(",")
    if not set(targets) <= set(TARGETS):
        parser.error(f"--targets {arguments.targets}: choose among {', '.join(TARGETS)}")
    usages = []
    modules = arguments.modules.split(",") if arguments.modules else kernel_modules()
    for usage in compile_all(modules, targets, arguments.only, arguments.jobs):
        usages.append(usage)
        if sys.stderr.isatty():
            print(f"\r{len(usages)} compiled", end="", file=sys.stderr, flush=True)
    if not usages:
        parser.error("there is no such kernel")
    faults = [f"{usage.kernel} on {usage.target}: {usage.fault}" for usage in usages if usage.fault]
    if arguments.json:
        print(json.dumps([{**dataclasses.asdict(usage), "fault": usage.fault} for usage in usages], indent=1))
    else:
        print("Registers a thread / bytes spilled a thread / bytes of shared memory a block\n")
        print(table(usages))
    for fault in sorted(faults):
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    # Under its own name: the children of the pool look for its functions there.
    from mhc_lab.ops.ahead_of_time import main as command

    raise SystemExit(command())
