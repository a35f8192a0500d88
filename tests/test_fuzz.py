"""Damage and nonsense by the thousand, from a seed: a command answers with 0, 2 or 3 and one line, never a traceback.

nox -s fuzz -- --seed N
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from mhc_lab import cli
from mhc_lab.config import compose
from mhc_lab.config.schema import GROUPS, RunConfig
from mhc_lab.errors import LabError

pytestmark = pytest.mark.fuzz

SEED = int(os.environ.get("MHC_LAB_FUZZ_SEED", "0"))
FOLDERS, COMPOSITIONS, COMMANDS = 1000, 2000, 500
TINY = ["tracking=none", "model.blocks=1", "model.dim=16", "model.heads=2", "model.sequence_length=16",
        "data.batch_size=2", "data.val_windows=4", "trainer.max_steps=2", "trainer.threads=1"]  # fmt: skip
VALUES = ["0", "1", "-1", "2.5", "1e3", "1e400", "nan", "on", "off", "null", "", "[]", "[1,2]", "{a: 1}", "010",
          "~", "${seed}", "${oc.env:HOME}", "../../x", "a" * 300, "ü", "\x00", "0x1F", "1_000", "true"]  # fmt: skip
JSON_VALUES: list[Any] = [None, [], {}, "x", -1, 1e400, True, "../../../etc", [[1]], {"a": None}, 2**70, "\u0000", ""]
LARGE: list[Any] = [0, 2**63, -(2**70), 1e308, 5e-324, "1", "nan", False, [1], "=x", "a\nb", "x" * 5000]
_GONE = object()


def answered(code: int, err: str, what: str) -> None:
    assert code in (0, 2, 3), f"{what}: {code}\n{err}"
    assert "Traceback" not in err, f"{what}\n{err}"
    if code == 2:
        assert err.strip(), what


def damage(file: Path, rng: random.Random) -> str:
    """One fault of one file; what it was."""
    content = file.read_bytes()
    how = rng.choice(["cut", "byte", "garbage", "empty", "gone", "folder", "link", "inside", "inside", "inside"])
    if how == "cut":
        file.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif how == "byte" and content:
        place = rng.randrange(len(content))
        file.write_bytes(content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :])
    elif how == "garbage":
        file.write_bytes(rng.randbytes(rng.randrange(200)))
    elif how == "empty":
        file.write_bytes(b"")
    elif how in ("gone", "folder", "link"):
        file.unlink()
        if how == "folder":
            file.mkdir()
        elif how == "link":
            file.symlink_to("/etc/hostname")
    elif how == "inside" and file.suffix == ".json":
        changed = json.loads(content)
        holder, key = rng.choice(list(places(changed)))
        if isinstance(holder, dict) and rng.random() < 0.4:
            del holder[key]
        else:
            holder[key] = rng.choice(JSON_VALUES)
        file.write_text(json.dumps(changed))
    else:
        lines = content.split(b"\n")
        lines[rng.randrange(len(lines))] = rng.choice([b"", b"a: [", b"seed: x", b"{}", b"\xff", b"model: 3"])
        file.write_bytes(b"\n".join(lines))
    return f"{file.name} {how}"


def places(content: Any, most: int = 10**9) -> Any:
    """Every value inside: what holds it, and its key there; of a list at `most` so many, as they are alike."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items)[: None if isinstance(content, dict) else most]:
        yield content, key
        yield from places(value, most)


def test_damaged_folders(studied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(SEED)
    for number in range(FOLDERS):
        results = tmp_path / str(number)  # one of its own: MLflow keeps a database that it has seen open
        shutil.copytree(studied / "results", results)
        files = [*(results / "g").glob("*.json"), *(results / "runs").glob("*-*/*")]
        chosen = rng.sample([file for file in files if file.is_file() and file.suffix != ".lock"], 2)
        what = f"folder {number} of seed {SEED}: " + ", ".join(damage(file, rng) for file in chosen)
        command = rng.choice([["status"], ["status", "g"], ["status", "g", "--json"], ["runs"], ["runs", "--json"],
                              ["export", "g", "--format", "md,csv"], ["sync"],
                              ["ablate", str(studied / "g.yaml"), "--dry-run"]])  # fmt: skip
        code = cli.main([*command, "--results", str(results)])
        answered(code, capsys.readouterr().err, f"{what}: {' '.join(command)}")
        shutil.rmtree(results)


@pytest.mark.parametrize("name", ["g/study.json", "g/timing.json", "record.json", "metrics.jsonl", "gains.jsonl"])
def test_every_place_in_turn(name: str, studied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each value of a file, and the last line of a log, replaced by each of many, and taken away."""
    results = tmp_path / "results"
    shutil.copytree(studied / "results", results)
    (run,) = (results / "runs").glob("mhc-*")
    file = results / name if "/" in name else run / name
    *before, text = file.read_text().rstrip("\n").split("\n") if name.endswith("l") else [file.read_text()]
    commands = [["status", "g"], ["runs"], ["export", "g", "--format", "md,csv"],
                ["ablate", str(studied / "g.yaml"), "--dry-run"]]  # fmt: skip
    if name.endswith("l"):  # what figures alone are made of
        commands = [["export", "g", "--format", "html"]]
    for index, (_, key) in enumerate(places(json.loads(text), 1)):
        for value in (*JSON_VALUES, *LARGE, _GONE):
            changed = json.loads(text)
            holder, same = list(places(changed, 1))[index]
            assert same == key
            if value is not _GONE:
                holder[key] = value
            elif isinstance(holder, dict):
                del holder[key]
            file.write_text("\n".join([*before, json.dumps(changed)]) + "\n")
            for command in commands:
                code = cli.main([*command, "--results", str(results)])
                answered(code, capsys.readouterr().err, f"{name}: {key} = {str(value)[:30]}: {command[0]}")


def keys() -> list[str]:
    config = RunConfig()
    return ["seed", "control", *(f"{group}.{key}" for group in GROUPS for key in vars(getattr(config, group)))]


def test_compositions() -> None:
    rng = random.Random(SEED)
    known = [*keys(), *GROUPS, "nothing", "model.nothing", "a.b.c", "+seed", "~model", "", "=", "model."]
    options = ["mhc", "hc", "identity", "nano", "tiny", "text", "stdlib", "synthetic", "cpu", "cosine", "none"]
    for number in range(COMPOSITIONS):
        overrides = [f"{rng.choice(known)}={rng.choice([*VALUES, *options])}" for _ in range(rng.randint(1, 3))]
        said = ""
        try:
            compose(overrides)
        except LabError as refusal:
            said = str(refusal)
        except Exception as error:
            raise AssertionError(f"composition {number} of seed {SEED}: {overrides}") from error
        assert len(said) < 1000, overrides
        assert "\n" not in said, overrides


def test_command_lines(studied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(studied)
    rng = random.Random(SEED)
    verbs = ["train", "ablate", "sweep", "export", "status", "runs", "list", "sinkhorn", "retarget", "worker", "sync"]
    words = [*VALUES, "g", "g.yaml", "demo", "smoke", "--dry-run", "--seeds", "0-4", "--workers", "--study",
             "--results", "results", "--format", "csv", "--json", "--storage", "sqlite://",
             "postgresql://u:p@h:x/d", "--rerun", "--keep", "--trials", "--tracking-uri", "http://[",
             "--config-dir", "conf", "--help", "-h",
             "seed=1", "residual=mhc", "--tuned", "--checkpoint", "--t-max", "--baseline"]  # fmt: skip
    for number in range(COMMANDS):
        verb = rng.choice(verbs)
        line = [verb, *(rng.choice(words) for _ in range(rng.randint(0, 4)))]
        line = [word.replace("\x00", "") for word in line]  # no command line can hold one
        if verb in ("train", "ablate", "sweep"):
            line.append("--dry-run")
        if verb == "sinkhorn":
            line += ["--matrices", "4", "--layers", "2", "--t-max", "2"]  # in a second
        if verb == "worker" and "g" in line:
            continue  # a worker that works
        code = cli.main([*line, *TINY] if verb in ("train", "ablate") and "--help" not in line else line)
        answered(code, capsys.readouterr().err, f"line {number} of seed {SEED}: {line}")
