"""Passwords and tokens: in no file that a run writes, no message, no process list, however their address is spelled."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mhc_lab import secrets
from mhc_lab.command import command_line
from mhc_lab.secrets import HIDDEN, keep, public, redact, whole

PW = "s3cr3tPW"
TRACKING = [
    f"http://bob:{PW}@127.0.0.1:1",
    f"https://bob:{PW}@127.0.0.1:1/path",
    f"http://:{PW}@127.0.0.1:1",
    f"http://127.0.0.1:1/?password={PW}",
    f"http://127.0.0.1:1/?token={PW}",
    f"http://127.0.0.1:1/?api_key={PW}&x=1",
    f"http://127.0.0.1:1/?access_key={PW}",
    f"http://127.0.0.1:1/?sig={PW}",
    f"http://{PW}{PW}@127.0.0.1:1",
    f"HTTP://Bob:{PW}@127.0.0.1:1",
    f"postgresql://bob:{PW}@127.0.0.1:1/t",
    f"postgresql+psycopg://bob:{PW}@127.0.0.1:1/t",
    f"postgresql://127.0.0.1:1/t?user=bob&password={PW}",
    f"mysql+pymysql://bob:{PW}@127.0.0.1:1/t",
]
STORAGE = [
    f"postgresql://ada:{PW}@127.0.0.1:1/t",
    f"postgres://ada:{PW}@127.0.0.1:1/t",
    f"postgresql://ada@127.0.0.1:1/t?password={PW}",
    f"postgresql://ada@127.0.0.1:1/t?sslpassword={PW}",
    f"postgresql://ada@127.0.0.1:1/t?PASSWORD={PW}",
    f"postgresql:///t?host=/tmp&user=ada&password={PW}",
    f"postgresql://ada:{PW}@host:notaport/t",
    f"postgresql://ada:p@{PW}@127.0.0.1:1/t",
    f"postgresql://ada:{PW}/x@127.0.0.1:1/t",
    f"postgresql://ada:{PW} x@127.0.0.1:1/t",
    f"postgresql://ada:%20{PW}@127.0.0.1:1/t",
    f"postgresql://ada:{PW}@[::1]:1/t",
    f"postgresql://ada:{PW}#@127.0.0.1:1/t",
    f"ada:{PW}@127.0.0.1/t",
    f"mysql://ada:{PW}@127.0.0.1:1/t",
    f"oracle+nothing://ada:{PW}@127.0.0.1/t",
]
TINY = ["model.blocks=1", "model.dim=16", "model.heads=2", "model.sequence_length=16", "data.batch_size=2",
        "data.val_windows=4", "trainer.max_steps=1", "trainer.threads=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    for variable in (secrets.TRACKING_VARIABLE, secrets.STORAGE_VARIABLE, "PGPASSWORD"):
        monkeypatch.delenv(variable, raising=False)


def files_with(secret: str, place: Path) -> list[Path]:
    return [file for file in place.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]


@pytest.mark.parametrize("address", [*TRACKING, *STORAGE])
def test_an_address_is_shown_without_it(address: str) -> None:
    assert PW not in public(address)
    assert HIDDEN in public(address)
    assert PW not in redact(f'connection to "{address}" failed')


@pytest.mark.parametrize(
    "harmless",
    [
        "http://127.0.0.1:5000",
        "sqlite:////tmp/a b.db",
        "sqlite:////tmp/x@y:z.db",
        "postgresql://ada@host/t",
    ],
)
def test_what_holds_none_stays_as_it_is(harmless: str) -> None:
    assert public(harmless) == harmless


def test_the_whole_address_goes_on_through_the_environment() -> None:
    address = f"http://bob:{PW}@host:1"
    shown = keep(address)
    assert whole(shown) == address
    assert whole("http://host:1") == "http://host:1"
    assert whole(f"http://eve:{HIDDEN}@elsewhere") is None  # of another address
    del os.environ[secrets.TRACKING_VARIABLE]


def run(*arguments: str, place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mhc_lab", *arguments], cwd=place, capture_output=True, text=True)


def test_a_run_writes_none(tmp_path: Path) -> None:
    """The server does not answer: config, record, checkpoint, mlflow.json, logs and messages are all written."""
    done = run("train", "residual=mhc", f"--tracking-uri=http://bob:{PW}@127.0.0.1:1", *TINY, place=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "does not answer" in done.stderr
    assert PW not in done.stdout + done.stderr
    assert list(tmp_path.rglob("checkpoint.pt"))
    assert list(tmp_path.rglob("mlflow.json"))
    assert files_with(PW, tmp_path) == []


@pytest.mark.parametrize("address", STORAGE[::3])
def test_a_study_says_none(address: str, tmp_path: Path, mhc_lab: Any) -> None:
    grid = f"baseline: a\nseeds: [0]\noverrides: [tracking=none, {', '.join(TINY)}]\nrows: {{a: {{overrides: []}}}}\n"
    (tmp_path / "g.yaml").write_text(grid)
    done = mhc_lab("ablate", "./g.yaml", "--storage", address, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert PW not in done.stdout + done.stderr
    assert files_with(PW, tmp_path) == []


def test_a_command_line_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in [*TRACKING, *STORAGE]:
        monkeypatch.setattr(sys, "argv", ["mhc_lab/__main__.py", "ablate", "demo", "--storage", address])
        said = command_line()
        assert said.startswith("mhc-lab ablate demo --storage ")
        assert PW not in said


def test_mlflow_gets_none(tmp_path: Path, mhc_lab: Any) -> None:
    """A database with a password in a parameter that sqlite ignores is written to, and holds none."""
    address = f"sqlite:///{tmp_path}/own.db?password={PW}"
    done = mhc_lab("train", "residual=identity", f"--tracking-uri={address}", *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert PW not in done.stdout + done.stderr
    assert [file for file in files_with(PW, tmp_path) if PW not in file.name] == []


def test_a_table_of_thirty() -> None:
    assert len({*TRACKING, *STORAGE}) >= 30


def test_sync_takes_no_address_from_a_folder_and_follows_no_link(tmp_path: Path) -> None:
    done = run("train", "residual=identity", *TINY, "tracking=none", place=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "results" / "runs").glob("identity-*")
    private = tmp_path / "private.txt"
    private.write_text("MY KEY")
    (folder / "gains.jsonl").unlink()
    (folder / "gains.jsonl").symlink_to(private)
    config = (folder / "config.yaml").read_text()
    told = config.replace("backend: none", "backend: mlflow").replace("uri: ''", "uri: http://attacker.example:1")
    assert told != config
    (folder / "config.yaml").write_text(told)
    refused = run("sync", place=tmp_path)
    assert refused.returncode == 2
    assert "mhc-lab sync --tracking-uri http://attacker.example:1" in refused.stderr
    sent = run("sync", "--tracking-uri", f"sqlite:///{tmp_path}/mine.db", place=tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert [file for file in files_with("MY KEY", tmp_path) if file not in (private, folder / "gains.jsonl")] == []


@pytest.mark.parametrize("name", ["a%20b", "q?x=1", "h#1", "s p", "ü;&"])
def test_any_folder_holds_its_own_databases(name: str, tmp_path: Path, mhc_lab: Any) -> None:
    place = tmp_path / "outer"
    place.mkdir()
    done = mhc_lab("train", "residual=identity", *TINY, "--results", name, cwd=place)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in place.iterdir()] == [name]
    assert (place / name / "runs" / "mlflow.db").is_file()
    assert list((place / name / "runs" / "mlflow-artifacts").rglob("record.json"))


def test_a_moved_folder_and_a_copy_keep_to_themselves(tmp_path: Path) -> None:
    assert run("train", "residual=identity", *TINY, place=tmp_path).returncode == 0
    (tmp_path / "results").rename(tmp_path / "moved")
    done = run("train", "residual=identity", "seed=1", *TINY, "--results", "moved", place=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "does not answer" not in done.stderr
    assert not (tmp_path / "results").exists()
    records = list((tmp_path / "moved" / "runs" / "mlflow-artifacts").rglob("record.json"))
    assert len(records) == 2
    subprocess.run(["cp", "-r", str(tmp_path / "moved"), str(tmp_path / "copy")], check=True)
    before = (tmp_path / "moved" / "runs" / "mlflow.db").read_bytes()
    for state in (tmp_path / "copy" / "runs").glob("*/mlflow.json"):
        state.unlink()  # as if never sent: all is sent again
    assert run("sync", "--results", "copy", place=tmp_path).returncode == 0
    assert (tmp_path / "moved" / "runs" / "mlflow.db").read_bytes() == before


def test_a_damaged_store_is_named_with_what_mends_it(tmp_path: Path) -> None:
    assert run("train", "residual=identity", *TINY, place=tmp_path).returncode == 0
    store = tmp_path / "results" / "runs" / "mlflow.db"
    store.write_bytes(b"no database at all " * 100)
    for command in (["sync"], ["train", "residual=identity", "seed=1", *TINY]):
        done = run(*command, place=tmp_path)
        assert done.returncode == (2 if command == ["sync"] else 0), done.stderr
        assert "mlflow.db: is damaged" in done.stderr
        assert "remove it, and `mhc-lab sync` fills it again" in done.stderr
    store.unlink()
    assert run("sync", place=tmp_path).returncode == 0
    with sqlite3.connect(store) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (2,)
