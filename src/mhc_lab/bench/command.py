"""What the command does: measure, say how far it is, write what was found."""

from __future__ import annotations

from mhc_lab.bench import ops_report, report
from mhc_lab.bench.correctness import run_correctness
from mhc_lab.bench.day import run_day
from mhc_lab.bench.options import Options
from mhc_lab.bench.run import Found, run_ops
from mhc_lab.errors import LabError

NEEDS_ALL = (
    "needs the whole package (pip install mhc-lab); `bench ops` and `bench correctness` need torch and triton alone"
)


def bench(options: Options) -> None:
    """Run one benchmark and write results/bench/<device>/<what>.json and .md. Raises LabError for what cannot be."""
    options.check()
    {
        "ops": _ops,
        "step": _step,
        "memory": _memory,
        "correctness": _correctness,
        "sizes": _sizes,
        "day": _day,
    }[options.what](options)


def say(line: str) -> None:
    print(line, flush=True)


def _ops(options: Options) -> None:
    folder = report.folder_of(options)
    run = report.circumstances(options)
    before = report.earlier(folder / "ops.json") if options.append else None

    def keep(found: Found) -> None:
        content = ops_report.merged(before, found.rows, found.notes, run)
        report.write(folder, "ops", content, ops_report.markdown(content))

    found = run_ops(options, say, keep)
    for line in found.notes:
        say(f"not measured: {line}")
    if not found.rows:
        raise LabError("nothing could be measured: see the lines above")
    say(str(folder / "ops.json"))
    say(str(folder / "ops.md"))


def _correctness(options: Options) -> None:
    for path in run_correctness(options, say):
        say(path)


def _day(options: Options) -> None:
    for path in run_day(options, say):
        say(str(path))


def _sizes(options: Options) -> None:
    try:
        from mhc_lab.bench.sizes import run_sizes
    except ImportError as error:
        raise LabError(f"bench sizes {NEEDS_ALL}: {error}") from error
    for path in run_sizes(options, say):
        say(str(path))


def _step(options: Options) -> None:
    try:
        from mhc_lab.bench.step import run_step
    except ImportError as error:
        raise LabError(f"bench step {NEEDS_ALL}: {error}") from error
    for path in run_step(options, say):
        say(str(path))


def _memory(options: Options) -> None:
    try:
        from mhc_lab.bench.memory import run_memory
    except ImportError as error:
        raise LabError(f"bench memory {NEEDS_ALL}: {error}") from error
    for path in run_memory(options, say):
        say(str(path))
