"""Bytes are read whole, split as promised, and the user hears what is wrong with the files."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from mhc_lab.data.sources import read_stdlib, read_text
from mhc_lab.errors import LabError


def _write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_stdlib_takes_the_library_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = {"b.py": "B", "a/z.py": "AZ", "a/__init__.py": "", "a.py": "A"}
    other = ["test/t.py", "a/tests/t.py", "idlelib/idle_test/t.py", "site-packages/p.py", "dist-packages/p.py"]
    other += ["a/__pycache__/c.py", "_sysconfigdata_x.py", "config-3/c.py", "pydoc_data/topics.py", "a/notes.txt"]
    _write(tmp_path, {**library, **dict.fromkeys(other, "no")})
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert read_stdlib(1e-12).train == b"AAZB"  # a.py, a/__init__.py, a/z.py, b.py
    assert read_stdlib(1 - 1e-12).val == b"AAZB"


def test_stdlib_holds_whole_files_back() -> None:
    first, second = read_stdlib(0.05), read_stdlib(0.3)
    assert len(first.train) + len(first.val) == len(second.train) + len(second.val)
    assert 0.01 < len(first.val) / len(first.train) < 0.15
    assert len(second.val) > 2 * len(first.val)


def test_stdlib_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(LabError, match="use data=text"):
        read_stdlib(0.05)


def test_text_holds_the_end_of_each_file_back(tmp_path: Path) -> None:
    _write(tmp_path, {"a.txt": "a" * 80 + "A" * 20, "b.txt": "b" * 40 + "B" * 10})
    split = read_text([f"{tmp_path}/*.txt"], 0.2)
    assert sorted(split.train) == sorted(b"a" * 80 + b"b" * 40)
    assert sorted(split.val) == sorted(b"A" * 20 + b"B" * 10)


def test_text_reads_each_file_once_whatever_the_patterns(tmp_path: Path) -> None:
    files = {"one.txt": "first " * 9, "below/two.txt": "second " * 8, "below/three.md": "third " * 7, "empty.txt": ""}
    _write(tmp_path, files)
    paths = [str(tmp_path / name) for name in files if name != "empty.txt"]
    listed = read_text(paths, 0.1)
    assert len(listed.train + listed.val) == sum(map(len, files.values()))
    assert read_text(paths[::-1], 0.1) == listed
    globbed = read_text([f"{tmp_path}/**/*.txt", f"{tmp_path}/below/*", paths[0]], 0.1)
    assert (globbed.train, globbed.val) == (listed.train, listed.val)


def test_text_takes_a_name_with_brackets_as_it_is(tmp_path: Path) -> None:
    _write(tmp_path, {"a[1].txt": "brackets", "a1.txt": "glob"})
    assert read_text([f"{tmp_path}/a[1].txt"], 0.01).train == b"brackets"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("missing.txt", "missing.txt: no such file"),
        ("*.md", r"\*.md matches no file"),
        ("nowhere/*.txt", "nowhere cannot be read: No such file or directory"),
        ("full.txt/*.txt", "full.txt cannot be read: Not a directory"),
        ("below", r"is a folder: name its files, for example .*/below/\*\*/\*.txt"),
        ("empty.txt", "empty.txt is empty"),
        ("below/*.txt", r"below/\*.txt is empty"),
    ],
)
def test_text_errors(tmp_path: Path, pattern: str, message: str) -> None:
    _write(tmp_path, {"full.txt": "text", "empty.txt": "", "below/also.txt": ""})
    with pytest.raises(LabError, match=message):
        read_text([f"{tmp_path}/full.txt", f"{tmp_path}/{pattern}"], 0.1)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="since Python 3.13 this is a pattern like any other")
def test_text_pattern_that_python_refuses(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"data.files: .*/\*\*.txt: Invalid pattern"):
        read_text([f"{tmp_path}/**.txt"], 0.1)


@pytest.mark.parametrize("pattern", ["closed/*.txt", "closed/a.txt", "closed.txt"])
def test_text_closed_to_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    _write(tmp_path, {"closed/a.txt": "text", "closed.txt": "text"})
    closed = tmp_path / ("closed.txt" if pattern == "closed.txt" else "closed")
    closed.chmod(0)
    if os.access(closed, os.R_OK):  # root reads everything: let the calls that touch the place fail as they would
        _refuse(monkeypatch, closed)
    with pytest.raises(LabError, match="cannot be read: Permission denied"):
        read_text([f"{tmp_path}/{pattern}"], 0.1)
    closed.chmod(0o700)


def _refuse(monkeypatch: pytest.MonkeyPatch, closed: Path) -> None:
    for name in ("iterdir", "read_bytes"):
        real = getattr(Path, name)

        def refusing(path: Path, real: object = real) -> object:
            if path.is_relative_to(closed):
                raise PermissionError(13, "Permission denied", str(path))
            assert callable(real)
            return real(path)

        monkeypatch.setattr(Path, name, refusing)
