"""What the command does: measure, say how far it is, write what was found."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from mhc_lab.bench import ops_report, report
from mhc_lab.bench.correctness import run_correctness
from mhc_lab.bench.day import run_day
from mhc_lab.bench.options import Options
from mhc_lab.bench.run import Found, run_ops
from mhc_lab.errors import LabError
from mhc_lab.machine import refuse_unwritable

NEEDS_ALL = (
    "needs the whole package (pip install mhc-lab); `bench ops` and `bench correctness` need torch and triton alone"
)


def bench(options: Options) -> None:
    """Run one benchmark and write results/bench/<device>/<what>.json and .md. Raises LabError for what cannot be."""
    options.check()
    refuse_unwritable(options.results)
    if options.what == "ops":
        _ops(options)
        return
    alone = {"correctness": run_correctness, "day": run_day}
    for path in (alone.get(options.what) or _of_all(options.what))(options, say):
        say(str(path))


def _of_all(what: str) -> Callable[[Options, Callable[[str], None]], list[Path]]:
    """`run_step` of `bench.step` and its like, which import the whole package."""
    try:
        module = importlib.import_module(f"mhc_lab.bench.{what}")
    except ImportError as error:
        raise LabError(f"bench {what} {NEEDS_ALL}: {error}") from error
    run: Callable[[Options, Callable[[str], None]], list[Path]] = getattr(module, f"run_{what}")
    return run


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
