"""A day ends in time, does first what is missing, and a part that fails or hangs costs its own share only."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mhc_lab.bench import day
from mhc_lab.bench.day import End, Part, run_day
from mhc_lab.bench.options import Options
from mhc_lab.errors import LabError

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def options(results: Path, **more: Any) -> Options:
    return Options("day", device="cpu", quick=True, threads=1, results=results, **more)


def python(text: str, name: str = "part", share: float = 0.5) -> Part:
    return Part(name, [sys.executable, "-c", text], share, f"{name}.json")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"


def test_what_ignores_its_limit_is_killed_with_all_that_it_began() -> None:
    said: list[str] = []
    start = time.monotonic()
    ended = day._run([sys.executable, "-c", STUBBORN], 3.0, 1.0, said.append)
    assert time.monotonic() - start < 30
    assert ended.code is None
    assert str(ended) == "stopped at its limit"
    until = time.monotonic() + 30
    while alive(int(said[0])) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(int(said[0]))


def test_parts_that_fail_or_hang_cost_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [
        python("raise SystemExit('no such thing')", "fails"),
        python("import time; time.sleep(600)", "hangs", 0.5),
        python("print('fine')", "works"),
    ]
    monkeypatch.setattr(day, "_parts", lambda *_: parts)
    said: list[str] = []
    start = time.monotonic()
    _, page = run_day(options(tmp_path, minutes=0.1), said.append)
    assert time.monotonic() - start < 30
    content = json.loads(page.with_suffix(".json").read_text())
    assert [part["ended"] for part in content["parts"]] == ["failed (no such thing)", "stopped at its limit", "done"]
    assert "| hangs |" in page.read_text()
    assert "  fine" in said


def test_what_is_missing_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(day, "_run", lambda *_: End(0, 0.0, ""))
    monkeypatch.setattr(day, "_fitting", lambda *_: ([], 1))
    said: list[str] = []
    beside = day.report.folder_of(options(tmp_path / "results"))
    beside.mkdir(parents=True)
    for name in ("correctness", "ops"):  # in the repository, and in the folder given
        (beside / f"{name}.json").write_text('{"rows": []}')
    run_day(options(tmp_path / "out"), said.append)
    order = [line.split(":")[0] for line in said if ": done" in line]
    assert order == ["step", "sizes", "study", "correctness", "ops"]


def sizes(results: Path, rows: list[dict[str, Any]]) -> None:
    day.report.write(day.report.folder_of(options(results)), "sizes", {"rows": rows}, "")


def size(name: str, ms: float, count: int = 4) -> dict[str, Any]:
    return {"overrides": [name], "steps": 1000, "ms": {str(number): ms for number in range(count)}}


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [(2000, (["large"], 5)), (900, (["large"], 3)), (450, (["small"], 4)), (100, (["small"], 1)), (10, (["small"], 1))],
)
def test_the_largest_size_that_fits(tmp_path: Path, seconds: float, chosen: tuple[list[str], int]) -> None:
    # A seed of four rows: 4 x (1.15 x 50 + 12) = 278 s, and 4 x (1.15 x 10 + 12) = 94 s.
    sizes(tmp_path, [size("huge", 900, count=3), size("large", 50), size("small", 10)])
    assert day._fitting(options(tmp_path), seconds) == chosen


def test_no_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError, match="no size was timed"):
        day._fitting(options(tmp_path), 100)
    sizes(tmp_path, [size("huge", 900, count=3)])
    with pytest.raises(LabError, match="no size fits"):
        day._fitting(options(tmp_path), 100)


def test_a_device_broken_by_one_shape_is_tried_again_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.json"
    part = Part("correctness", ["--append"], 0.5, "c.json")

    def run(*_: Any) -> End:
        rows = json.loads(file.read_text())["rows"] if file.exists() else []
        file.write_text(json.dumps({"rows": [*rows, 1]}))
        return End(0, 0.0, "the device takes nothing more in this process" if len(rows) < 2 else "c.md")

    monkeypatch.setattr(day, "_run", run)
    assert str(day._repeated(part, 10, options(tmp_path), print)) == "done"
    assert len(json.loads(file.read_text())["rows"]) == 3


def test_sizes_and_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(day, "FEWEST_SEEDS", 1)
    monkeypatch.setattr(day, "MOST_SEEDS", 1)
    parts = day._parts
    monkeypatch.setattr(day, "_parts", lambda *given: parts(*given)[3:])
    said: list[str] = []
    run_day(options(Path("out"), minutes=3), said.append)
    assert [line.split(",")[0] for line in said if line.startswith(("sizes:", "study: d"))] == [
        "sizes: done",
        "study: done",
    ]
    (table,) = Path("out").glob("day-*/table.md")
    assert all(row in table.read_text() for row in ("identity_hc", "hc", "mhc"))
    (content,) = (json.loads(file.read_text()) for file in Path("out").glob("bench/*/sizes.json"))
    assert set(content["rows"][0]["ms"]) == {"identity", "identity_hc", "hc", "mhc"}
    assert content["runs"][0]["command"].startswith("python -m mhc_lab.bench sizes")
