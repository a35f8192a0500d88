"""So many minutes on a machine, used well: correctness, operations, steps, then a study, in time wherever it is.

Each part is a command of its own that writes as it goes. So a part that fails, hangs or breaks the device costs its
own share of the time, and what was measured before it is there.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mhc_lab.bench import report
from mhc_lab.bench.options import Options
from mhc_lab.errors import LabError

Say = Callable[[str], None]

DIMS, TOKENS = "1280,2560,4096", "8192"
KNOWN = Path("results")  # of the repository: what is in there already comes last
STUDY = "study"
GRACE, GRACE_OF_STUDY = 1.0, 15.0  # seconds from SIGTERM to a kill; a study has runs to end
LEAST = 2.0  # seconds: a part is not begun for less
MOST_SEEDS, FEWEST_SEEDS = 5, 3
STARTING = {"cuda": 15.0, "cpu": 12.0}  # seconds of a run that are not training steps
TIMES_OVER = 0.15  # of a study's steps: validation, probes, and the timing of its rows
EXPORTING = 0.1  # of the time that the study gets, kept for its table
HEAD = """\
Each part is a command that writes as it goes, within a share of the time; what this machine's results already had came
last. A part that was stopped at its limit has written what it had."""


@dataclass(frozen=True)
class Part:
    """A command, the share of all time that it may take, and the file under results that says it has been run."""

    name: str
    arguments: Sequence[str]
    share: float
    file: str
    grace: float = GRACE


@dataclass(frozen=True)
class End:
    """How a part went: its exit status (none: stopped at its limit), its seconds, the last line that it said."""

    code: int | None
    seconds: float
    said: str

    def __str__(self) -> str:
        if self.code is None:
            return "stopped at its limit"
        return "done" if self.code == 0 else f"failed ({self.said})"


def run_day(options: Options, say: Say) -> list[Path]:
    """Run all parts within options.minutes; day.json and day.md beside what they write; their paths."""
    end = time.monotonic() + 60 * options.minutes
    folder = report.folder_of(options)
    content: report.Json = {"runs": [report.circumstances(options)], "minutes": options.minutes, "parts": []}
    paths: list[Path] = []
    parts = sorted(_parts(options, folder.name), key=lambda part: _known(part, options))
    for part in parts:
        left = end - time.monotonic()
        seconds = left if part is parts[-1] else min(left, 60 * options.minutes * part.share)
        ended = _study(part, seconds, options, say) if part.name == STUDY else _repeated(part, seconds, options, say)
        for half in folder.glob(".*.[0-9]*"):  # what the part was writing when it was stopped
            half.unlink(missing_ok=True)
        say(f"{part.name}: {ended}, {ended.seconds:.0f} s")
        content["parts"].append(
            {"name": part.name, "file": part.file, "ended": str(ended), "code": ended.code, "seconds": ended.seconds}
        )
        paths = report.write(folder, "day", content, markdown(content))
    return paths


def _parts(options: Options, device: str) -> list[Part]:
    common = ["--device", options.place.type, "--threads", str(options.threads), "--out", str(options.results)]
    common += ["--quick"] if options.quick else []
    shapes = ["--dims", DIMS, "--tokens", TOKENS] if options.on_gpu else []
    shapes = ["--dims", "32", "--tokens", "48", "--rounds", "2"] if options.quick else shapes
    bench, lab = [sys.executable, "-m", "mhc_lab.bench"], [sys.executable, "-m", "mhc_lab"]
    rivals, beside = ["--rivals", "eager,liger"], f"bench/{device}"
    study = f"day-{device}"
    ablate = [*lab, "ablate", "day", "--study", study, "--results", str(options.results)]
    return [
        Part("correctness", [*bench, "correctness", "--append", *common], 0.2, f"{beside}/correctness.json"),
        Part("ops", [*bench, "ops", *shapes, *rivals, *common], 0.25, f"{beside}/ops.json"),
        Part("step", [*bench, "step", "--variants", "mhc", "--rivals", "", *common], 0.15, f"{beside}/step.json"),
        Part("sizes", [*bench, "sizes", *common], 0.1, f"{beside}/sizes.json"),
        Part(STUDY, ablate, 0.5, f"{study}/table.md", GRACE_OF_STUDY),
    ]


def _known(part: Part, options: Options) -> bool:
    """Whether there are results of this device already, here or in the repository."""
    return any((results / part.file).exists() for results in (KNOWN, options.results))


def _repeated(part: Part, seconds: float, options: Options, say: Say) -> End:
    """A part, and again where a kernel broke the device for its process and others are still to be tried."""
    start = time.monotonic()
    while True:
        before = _rows(options.results / part.file)
        ended = _run(part.arguments, seconds - (time.monotonic() - start), part.grace, say)
        broken = "--append" in part.arguments and ended.said.startswith("the device takes nothing more")
        if not broken or _rows(options.results / part.file) == before:
            return End(ended.code, time.monotonic() - start, ended.said)


def _rows(file: Path) -> int:
    return len(json.loads(file.read_text(encoding="utf-8"))["rows"]) if file.exists() else 0


def _study(part: Part, seconds: float, options: Options, say: Say) -> End:
    """The grid `day` at the largest size that fits, and its table whatever there is of it."""
    start = time.monotonic()
    try:
        chosen = _fitting(options, seconds)
    except LabError as error:
        return End(2, 0.0, str(error))
    overrides, seeds = chosen
    say(f"study: {seeds} seeds with {' '.join(overrides)}")
    reserve = max(EXPORTING * seconds, min(20.0, seconds / 3))
    command = [*part.arguments, *overrides, "tracking=none", "--seeds", f"0-{seeds - 1}"]
    ended = _run(command, seconds - reserve, part.grace, say)
    if ended.code != 0:
        name, results = part.arguments[part.arguments.index("--study") + 1], str(options.results)
        rest = seconds - (time.monotonic() - start)
        _run([sys.executable, "-m", "mhc_lab", "export", name, "--results", results], rest, GRACE, say)
    return End(ended.code, time.monotonic() - start, ended.said)


def _fitting(options: Options, seconds: float) -> tuple[list[str], int]:
    """Overrides of the largest size whose runs fit with three seeds or more, else the smallest with what seeds fit."""
    file = report.folder_of(options).relative_to(options.results) / "sizes.json"
    for results in (options.results, KNOWN):
        content = report.earlier(results / file)
        if content is not None:
            break
    else:
        raise LabError("no size was timed: see the part `sizes`")
    complete = [row for row in content["rows"] if len(row["ms"]) >= 4]
    if not complete:
        raise LabError("no size fits into this device's memory")
    for row in complete:
        one = sum(
            row["steps"] * ms / 1e3 * (1 + TIMES_OVER) + STARTING[options.place.type] for ms in row["ms"].values()
        )
        seeds = min(MOST_SEEDS, int(seconds / one))
        if seeds >= FEWEST_SEEDS:
            break
    return [*row["overrides"]], max(1, seeds)


def _run(arguments: Sequence[str], seconds: float, grace: float, say: Say) -> End:
    """A command in a process group of its own, ended in time: first asked, then killed with all that it began."""
    if seconds < LEAST:
        return End(None, 0.0, "")
    started = time.monotonic()
    read, write = os.pipe()
    os.set_blocking(read, False)
    process = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=write, stderr=write, start_new_session=True, close_fds=True
    )
    os.close(write)
    lines = _Lines(read, say)
    grace = min(grace, seconds / 4)
    try:
        code = _wait(process, lines, started + seconds - grace)
        if code is None:
            _signal(process, signal.SIGTERM)
            _wait(process, lines, started + seconds)
    finally:  # also on Ctrl-C, which the group does not get from the terminal
        _signal(process, signal.SIGKILL)
        process.wait()
        lines.pass_on()
        os.close(read)
    return End(code, time.monotonic() - started, lines.last)


def _wait(process: subprocess.Popen[bytes], lines: _Lines, until: float) -> int | None:
    while time.monotonic() < until:
        lines.pass_on()
        code = process.poll()
        if code is not None:
            return code
        time.sleep(0.1)
    return None


def _signal(process: subprocess.Popen[bytes], what: signal.Signals) -> None:
    try:
        os.killpg(process.pid, what)
    except ProcessLookupError:
        return  # it has ended, and all of its group


class _Lines:
    """What a command says, passed on line by line without ever waiting for it."""

    def __init__(self, read: int, say: Say) -> None:
        self.read = read
        self.say = say
        self.rest = b""
        self.last = ""

    def pass_on(self) -> None:
        while True:
            try:
                piece = os.read(self.read, 1 << 16)
            except BlockingIOError:
                return
            if not piece:
                return
            *whole, self.rest = (self.rest + piece).split(b"\n")
            for line in whole:
                text = line.decode("utf-8", "replace").rstrip()
                self.say(f"  {text}")
                self.last = text or self.last


def markdown(content: report.Json) -> str:
    parts = ["# A day's measurements", *(report.describe(run) for run in content["runs"]), HEAD]
    rows = [[part["name"], f"{part['seconds']:.0f}", part["ended"], part["file"]] for part in content["parts"]]
    spent = datetime.timedelta(seconds=round(sum(part["seconds"] for part in content["parts"])))
    parts.append(f"{spent} of {content['minutes']:g} minutes:")
    parts.append(report.table(["part", "seconds", "how it ended", "file under results"], rows))
    return "\n\n".join(parts)
