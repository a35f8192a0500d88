from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from mhc_lab.errors import LabError
from mhc_lab.study.status import state, status


def test_status_counts_the_cells_of_each_row_and_says_why(lab):
    lab.ablate("killed_twice_at_1", seeds=[0, 1])
    runs = lab.runs(lab.grid([0, 1]))
    runs["mhc", 0].record_file.unlink()
    runs["orthogonal", 0].write_record(
        {**(runs["orthogonal", 0].record() or {}), "status": "diverged", "reason": "NaN"}
    )
    runs["hc", 0].write_record({**(runs["hc", 0].record() or {}), "status": "killed", "reason": "interrupted"})
    with runs["mhc", 0].lock():
        assert state(runs["mhc", 0]) == ("running", "")
        console = Console(width=200, record=True, file=io.StringIO())
        status(lab.results, "grid", console)
        text = console.export_text()
    assert state(runs["mhc", 0]) == ("waiting", "")
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert [part.strip() for part in lines["identity"].split("│")][1:-1] == [
        "identity",
        "1",
        "",
        "1",
        "",
        "",
    ]
    assert "identity seed 1 failed: killed by SIGKILL (kill -9, or out of memory in a container)" in text
    assert "hc seed 0 waiting: killed: interrupted" in text
    assert "orthogonal seed 0 diverged: NaN" in text
    assert "1 finished, 1 diverged, 4 failed, 1 running, 1 waiting" in text
    assert "repeat: again" in text


def test_an_unknown_study_names_the_nearest(lab):
    lab.folder().write(lab.grid(), storage="", command="")
    with pytest.raises(LabError, match="did you mean 'grid'"):
        status(lab.results, "gridd")


def test_a_run_at_work_says_where_and_for_how_long(lab):
    lab.ablate(seeds=[0])
    run = lab.runs(lab.grid([0]))["mhc", 0]
    run.record_file.unlink()
    with run.lock():
        run.begin()
        assert re.fullmatch(r"on \S+ \(pid \d+\) for 0 s, at step \d+ of \d+", state(run)[1])
        run.begun_file.write_text("{")  # a note that is damaged is worth nothing
        assert state(run) == ("running", "")
