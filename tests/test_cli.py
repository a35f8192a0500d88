from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mhc_lab import cli
from mhc_lab.errors import LabError, RunsFailed
from mhc_lab.identity.code import Executed, code_fingerprint
from mhc_lab.run_folder import RunFolder


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("0,1,2", [0, 1, 2]), ("0-4", [0, 1, 2, 3, 4]), ("7,0-1", [7, 0, 1])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert cli.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "0,", "3-1", "-1", "1.5", "0-1-2"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(LabError, match="--seeds"):
        cli.parse_seeds(text)


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (LabError("a mistake"), 2, "error: a mistake\n"),
        (RunsFailed("2 of 4 cells failed"), 3, "error: 2 of 4 cells failed\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    raised: LabError, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ablate(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("mhc_lab.study.engine.ablate", ablate)
    assert cli.main(["ablate", "demo"]) == code
    assert capsys.readouterr().err == says


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), typer.Abort()])
def test_ctrl_c_says_how_to_go_on(
    raised: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ablate(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("mhc_lab.study.engine.ablate", ablate)
    assert cli.main(["ablate", "demo"]) == 130
    assert "repeat the same command" in capsys.readouterr().err


def test_a_bug_of_ours_shows_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def ablate(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("mhc_lab.study.engine.ablate", ablate)
    assert cli.main(["ablate", "demo"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: ours" in err
    assert err.splitlines()[-1].startswith("error: this is a bug")


@pytest.mark.parametrize(
    "arguments", [["trian"], ["train", "--no-such"], ["ablate"], ["ablate", "g", "--workers", "x"]]
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert "Usage:" in err
    assert "Traceback" not in err


def test_ablate_hands_on_what_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr("mhc_lab.study.engine.ablate", lambda grid, **options: given.update(options, grid=grid))
    command = ["ablate", "table1", "residual.streams=2", "trainer.max_steps=5", "--seeds", "0-1", "--workers", "3"]
    command += ["--study", "mine", "--storage", "sqlite:///s.db", "--tracking-uri", "http://h:1"]
    command += ["--results", str(tmp_path), "--config-dir", str(tmp_path), "--dry-run", "--rerun", "--title", "T"]
    assert cli.main(command) == 0
    assert given == {
        "grid": "table1",
        "overrides": ["residual.streams=2", "trainer.max_steps=5"],
        "seeds": [0, 1],
        "workers": 3,
        "study": "mine",
        "storage": "sqlite:///s.db",
        "tracking_uri": "http://h:1",
        "results": tmp_path,
        "config_dir": tmp_path,
        "dry_run": True,
        "rerun": True,
        "keep": False,
        "tuned": None,
        "title": "T",
    }


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [("failed", 3, "out of memory"), ("killed", 130, "interrupted: 7 of 300 steps are lost")],
)
def test_a_run_without_result(
    status: str,
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = {"status": status, "reason": "out of memory", "metrics": {"steps": 7}}
    monkeypatch.setattr("mhc_lab.training.launch.launch", lambda *_, **__: record)
    assert cli.main(["train", "data=synthetic", "tracking=none", "--results", str(tmp_path)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_worker_hands_on_what_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[object] = []
    monkeypatch.setattr("mhc_lab.study.worker.work", lambda *a, **options: given.append((*a, options)))
    assert cli.main(["worker", "table1", "--results", str(tmp_path), "--storage", "postgresql://h/d"]) == 0
    assert given == [(tmp_path, "table1", {"storage": "postgresql://h/d", "trust_plugin": False})]


def test_a_dry_run_of_train_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "residual=mhc", "residual.t_max=7", "data=synthetic", "--results", str(tmp_path), "--dry-run"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "t_max: 7" in out
    assert str(tmp_path / "runs" / "mhc-") in out
    assert list(tmp_path.iterdir()) == []


def test_status_without_studies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no study in {tmp_path}; single runs: mhc-lab runs\n"


@pytest.mark.parametrize("arguments", [["-h"], ["train", "-h"], ["runs", "-h"], ["--version"]])
def test_asking_is_no_mistake(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "Usage:" in out or out.startswith("mhc-lab ")


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "mhc_lab", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mhc-lab ")


def test_a_diverged_run_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def launch(folder: RunFolder, **_: object) -> dict[str, object]:
        metrics = {"steps": 9, "val_loss": None}
        record = {"status": "diverged", "reason": "training loss NaN at step 9", "metrics": metrics}
        folder.write_record({**record, "code_fingerprint": code_fingerprint(Executed.by(folder.config()))})
        return record

    monkeypatch.setattr("mhc_lab.training.launch.launch", launch)
    command = ["train", "data=synthetic", "tracking=none", "--results", str(tmp_path)]
    for _ in range(2):  # the second takes the result that is there
        assert cli.main(command) == 3
        assert "diverged: training loss NaN at step 9" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mhc_lab import cli; code = cli.main(['--help']); "
        "slow = {'torch', 'lightning', 'mlflow', 'optuna', 'pandas', 'numpy', 'scipy', 'omegaconf'}; "
        "heavy = slow & set(sys.modules); "
        "sys.exit(code or ', '.join(heavy) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert all(
        verb in ended.stdout for verb in ("train", "ablate", "worker", "status", "export", "sync", "doctor", "ui")
    )


@pytest.mark.parametrize("verb", ["train", "ablate", "worker", "status", "export", "sync", "doctor", "ui"])
def test_each_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    assert "--results" in capsys.readouterr().out
