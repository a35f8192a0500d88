"""Every mistake a user can make is one clear line on stderr and exit code 2, and costs no result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mhc_lab import cli
from mhc_lab.config import compose
from mhc_lab.config.run_id import run_id
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.run_folder import RunFolder

DONE = ["residual=identity", "data=synthetic", "data.batch_size=64"]

TRAIN = [
    (["residul=mhc"], "did you mean 'residual'"),
    (["resdual.t_max=3"], "did you mean 'residual'"),
    (["residual=mhcc"], "did you mean 'mhc'"),
    (["residual.tmax=3"], "did you mean 't_max'"),
    (["residual"], "group=option or a.b=value"),
    (["model.dim=wide"], "model.dim"),
    (["residual.h_res=sometimes"], "residual.h_res"),
    (["residual.streams=0"], "from 1 to 1024"),
    (["residual.streams=2.5"], "residual.streams"),
    (["residual.t_max=0"], "at least 1"),
    (["residual.alpha_init=nan"], "finite"),
    (["optim.learning_rate=-1"], "above 0"),
    (["residual=identity", "residual.h_res=fixed"], "has no h_res"),
    (["residual=orthogonal", "residual.t_max=4"], "has no t_max"),
    (["residual.plugin=nowhere.py"], "no such file"),
    (["data=text"], "data.files"),
    (["data=text", "data.files=[nowhere.txt]"], "nowhere.txt"),
    (["data=text", "data.files=[empty.txt]"], "empty"),
    (["data=text", "data.files=[short.txt]"], "one window"),
    (["trainer.accelerator=gpu", "trainer.strategy=ddp", "trainer.devices=64", "data.batch_size=64"], "GPU"),
    (["trainer.devices=2"], "trainer=ddp"),
    (["model.heads=3"], "heads"),
    (["launcher.workers=2"], "a setting of ablate and sweep"),
    (["launcher=local"], "a setting of ablate and sweep"),
    ([*DONE, "--rerun", "--keep"], "exclude each other"),
    ([*DONE, "--rerun", "trainer.accelerator=gpu", "trainer.devices=64", "trainer.strategy=ddp"], "no CUDA GPU"),
    ([*DONE, "--rerun", "trainer.num_nodes=2", "trainer.strategy=ddp"], "torchrun"),
    ([*DONE, "--results", "file/results", "--rerun"], "choose another --results"),
    (["--config-dir", "nowhere"], "no such folder"),
    ([*DONE, "--rerun", "--tracking-uri", "./mlruns"], "tracking.uri=./mlruns"),
    ([*DONE, "--rerun", "--tracking-uri", "http://localhost:abc"], "http://localhost:abc"),
    ([*DONE, "--rerun", "--tracking-uri", "\udce9"], "error: tracking.uri=\\udce9: holds a character"),
    ([*DONE, "--rerun", "--tracking-uri", "http://"], "tracking.uri=http://: must be"),
    ([*DONE, "--rerun", "--tracking-uri", "sqlite:///"], "is a folder"),
]

OTHERS = [
    (["ablate", "tabel1"], "did you mean 'table1'"),
    (["ablate", "./nowhere.yaml"], "no such grid file"),
    (["ablate", "./no_baseline.yaml"], "baseline"),
    (["ablate", "./wrong_baseline.yaml"], "did you mean 'identity'"),
    (["ablate", "./not_yaml.yaml"], "not valid YAML"),
    (["ablate", "./row_key.yaml"], "row 'mhc'"),
    (["ablate", "demo", "residual.tmax=3"], "error: no key 'tmax' in group 'residual'; did you mean 't_max'"),
    (["ablate", "demo", "trainer.max_steps=0"], "error: trainer.max_steps=0: must be at least 1"),
    (["ablate", "demo", "trainer.max_steps=abc"], "error: trainer.max_steps=abc: must be"),
    (["sweep", "smoke", "trainer.max_steps=abc"], "error: trainer.max_steps=abc: must be"),
    (["sweep", "smoke", "--workers", "0"], "error: --workers 0: must be at least 1"),
    (["ablate", "demo", "seed=3"], "--seeds"),
    (["ablate", "demo", "--seeds", "3-1"], "--seeds 3-1"),
    (["ablate", "demo", "--workers", "0"], "error: --workers 0: must be at least 1"),
    (["ablate", "demo", "--study", "../elsewhere"], "study"),
    (["ablate", "demo", "data=synthetic", "--results", "file/results"], "choose another --results"),
    (["worker", "nothing"], "no study 'nothing'"),
    (["status", "nothing"], "no study 'nothing'"),
    (["export", "nothing"], "nothing"),
    (["export", "nothing", "--format", "docx"], "docx"),
    (["export", "demo", "--format", "md", "--open"], "add html to --format"),
    (["export", "demo", "--margin", "0"], "--margin 0: must be a number above 0"),
    (["sync", "nowhere"], "no run folder"),
    (["sync", "a" * 300], "longer than a file's name can be"),
    (["retarget", "a" * 300], "longer than a file's name can be"),
    (["status", "--results", "a" * 300], "longer than a file's name can be"),
    (["sync", "--tracking-uri", "http://127.0.0.1:9"], "cannot be reached"),
    (["sync", "--tracking-uri", "mlruns"], "tracking.uri=mlruns"),
    (["ui"], "nothing is tracked"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a run that is finished, and files that are wrong."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("too short")
    rows = "rows: {identity: {overrides: [residual=identity]}, mhc: {overrides: [residual=mhc]}}\nseeds: [0]\n"
    (tmp_path / "no_baseline.yaml").write_text(rows)
    (tmp_path / "wrong_baseline.yaml").write_text(rows + "baseline: identiti\n")
    (tmp_path / "not_yaml.yaml").write_text("rows: [\n")
    (tmp_path / "row_key.yaml").write_text(rows.replace("residual=mhc", "residual=mhc, residual.tmax=3"))
    config = compose(DONE)
    folder = RunFolder.create(Path("results"), config, corpus_fingerprint(config))
    folder.checkpoint_file.write_text("weights")
    folder.metrics_file.write_text('{"step": 1, "train_loss": 1.0}\n')
    folder.write_record(
        {"run_id": run_id(config, corpus_fingerprint(config)), "status": "finished", "metrics": {"val_loss": 1.0}}
    )
    return tmp_path


def content(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock"}


def check(arguments: list[str], says: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished,) = (place / "results" / "runs").iterdir()
    before = content(finished)
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert content(finished) == before


@pytest.mark.parametrize(("arguments", "says"), TRAIN, ids=lambda value: " ".join(value) if value else None)
def test_train(arguments: list[str], says: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(["train", *arguments], says, place, capsys)


@pytest.mark.parametrize(("arguments", "says"), OTHERS, ids=lambda value: " ".join(value) if value else None)
def test_other_verbs(arguments: list[str], says: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(arguments, says, place, capsys)


def test_as_a_user_runs_it(place: Path) -> None:
    command = [str(Path(sys.executable).parent / "mhc-lab"), "train", "residual.streams=0"]
    ended = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == "error: residual.streams=0: must be from 1 to 1024\n"
