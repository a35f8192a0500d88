from __future__ import annotations

import io

import pytest
from rich.console import Console

from mhc_lab.errors import LabError
from mhc_lab.run_folder import write_json
from mhc_lab.study import engine
from mhc_lab.study.engine import ablate
from mhc_lab.study.folder import StudyFolder
from mhc_lab.study.holding import StudyInterrupted
from mhc_lab.study.plan import plan
from mhc_lab.study.spec import load_grid


def test_a_plan_takes_times_from_finished_runs_of_the_row(lab):
    lab.ablate(seeds=[0])
    old = lab.runs()["mhc", 0]
    write_json(old.record_file, {**(old.record() or {}), "code_fingerprint": "older", "seconds": 30.0})
    made = plan(lab.grid([0, 1]), lab.folder(), workers=2)
    states = {(cell.row, cell.seed): made.states[cell.run_id] for cell in made.grid.cells}
    assert states["identity", 0] == "done"
    assert states["mhc", 0] == "other code"
    assert states["mhc", 1] == "to run"
    assert made.seconds == {"identity": 0.1, "hc": 0.1, "mhc": 30.0, "orthogonal": 0.1}
    assert made.total_seconds == pytest.approx(6 + (30.3 + 4 * 0.5) / 2)  # workers and runs have to start
    console = Console(width=120, record=True, file=io.StringIO())
    made.print(console)
    text = console.export_text()
    assert "8 cells, 8 runs: 3 done, 4 to run, about 22 s with 2 workers" in text
    assert "1 were made with other code: --rerun or --keep" in text


def test_a_dry_run_measures_what_it_does_not_know_and_writes_nothing(lab, capsys):
    short = ["model.blocks=1", "model.dim=16", "model.sequence_length=16", "data.batch_size=2", "trainer.threads=1"]
    ablate(str(lab.file), seeds=[0], overrides=short, results=lab.results, dry_run=True)
    assert "4 cells, 4 runs: 0 done, 4 to run, about" in capsys.readouterr().out
    assert not lab.results.exists()


def test_an_interrupted_command_says_how_to_go_on(lab, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "run_cells", interrupted)
    with pytest.raises(StudyInterrupted, match="repeat the same command") as error:
        ablate(str(lab.file), results=lab.results)
    assert error.value.exit_code == 130


def test_a_study_is_run_by_one_command_at_a_time(lab):
    lab.folder().path.mkdir(parents=True)
    with lab.folder().lock(), pytest.raises(LabError, match=r"being run by another command.*mhc-lab worker grid"):
        ablate(str(lab.file), results=lab.results)


def test_an_unwritable_results_folder(lab):
    lab.results.write_text("a file")
    with pytest.raises(LabError, match=r"cannot be written: .*choose another --results"):
        ablate(str(lab.file), results=lab.results)


def test_a_study_cannot_be_called_runs(lab):
    with pytest.raises(LabError, match="study 'runs'"):
        ablate(str(lab.file), results=lab.results, study="runs")


def test_rows_that_come_to_the_same_settings_are_measured_once(lab, monkeypatch):
    measured = []

    def time_rows(configs, *_, **__):
        measured.extend(configs)
        return {"rows": {name: {"ms_per_step": 100.0} for name in configs}}

    monkeypatch.setattr("mhc_lab.training.timing.time_rows", time_rows)
    same = "".join(f"  r{i}: {{overrides: [residual=identity]}}\n" for i in range(300))
    (lab.file.parent / "many.yaml").write_text(f"baseline: r0\nseeds: [0]\nrows:\n{same}  mhc: {{overrides: []}}\n")
    grid = load_grid(str(lab.file.parent / "many.yaml"))
    made = plan(grid, StudyFolder(lab.results, "many"), workers=1)
    assert measured == ["r0", "mhc"]
    assert set(made.seconds) == {row.name for row in grid.rows}
    console = Console(width=120, record=True, file=io.StringIO())
    made.print(console)
    text = console.export_text()
    assert "other code" in text  # one line a row, where cells are so many
    assert "rows r0, r1, r2, r3, r4, r5 and 294 more come to the same settings" in text
    assert "301 cells, 2 runs: 0 done, 2 to run" in text
