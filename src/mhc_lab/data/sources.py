"""Where the bytes come from, and which of them are held back for validation."""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mhc_lab.errors import LabError

_NOT_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "pydoc_data"}
_MAGIC = frozenset("*?[")


class Split(NamedTuple):
    """The bytes of a source, and in words what they are."""

    train: bytes
    val: bytes
    description: str


def read_stdlib(val_fraction: float) -> Split:
    """The .py files of the running Python's own standard library, in the order of their names.

    Left out: tests, installed packages, what describes the machine that Python was built on, and pydoc_data, the
    manual as one file that would be more than half of the validation text. Whole files are held back, chosen by a
    hash of their names, so that a change in one file moves no other.
    Raises LabError where Python came without its sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    names = sorted(_library_files(root))
    held_back = [_uniform(name) < val_fraction for name in names]
    try:
        contents = [(root / name).read_bytes() for name in names]
    except OSError as error:
        raise LabError(f"data=stdlib: {error.filename} cannot be read: {error.strerror}; use data=text") from error
    if not names:
        raise LabError(f"data=stdlib: this Python has no sources of its library in {root}; use data=text")
    train = b"".join(content for content, held in zip(contents, held_back, strict=True) if not held)
    val = b"".join(content for content, held in zip(contents, held_back, strict=True) if held)
    description = f"standard library of Python {platform.python_version()}, {len(names)} files"
    return Split(train, val, description)


def read_text(patterns: Sequence[str], val_fraction: float) -> Split:
    """Local files, byte by byte; the last `val_fraction` of each file is held back.

    `patterns` are absolute paths or globs (`**` for all folders below). A folder is refused: whatever else lies in
    it would be read as text. A file that several patterns name is read once. Files stand in the order of their
    content's hash, so that neither names nor places nor the order of the patterns matter.
    Raises LabError for a pattern without a file, without a byte, that cannot be read, or whose files are no text.
    """
    contents: dict[Path, bytes] = {}
    for pattern in patterns:
        try:
            found = {file.resolve(): _text_of(file) for file in _matches(pattern)}
        except OSError as error:
            raise LabError(f"data.files: {error.filename} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise LabError(f"data.files: {pattern}: {error}") from error
        if not any(found.values()):
            raise LabError(f"data.files: {pattern} is empty: name files with text in them")
        contents.update(found)
    ordered = sorted(contents.values(), key=lambda content: hashlib.sha256(content).digest())
    cuts = [len(content) - round(len(content) * val_fraction) for content in ordered]
    train = b"".join(content[:cut] for content, cut in zip(ordered, cuts, strict=True))
    val = b"".join(content[cut:] for content, cut in zip(ordered, cuts, strict=True))
    return Split(train, val, f"text, {len(ordered)} files")


def _text_of(file: Path) -> bytes:
    """A text file's bytes. LabError for tokens, archives and the like, which would be learned byte by byte."""
    content = file.read_bytes()
    if b"\0" in content:
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        said = "is UTF-16 text: write it as UTF-8" if wide else "is no text: it holds NUL bytes, as binary files do"
        raise LabError(f"data.files: {file} {said}")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        if _mostly_text(content):
            return content  # an older encoding: its bytes are what is learned
        raise LabError(
            f"data.files: {file} is no text (byte {error.start} is not UTF-8, and many bytes are control codes)"
        ) from error
    return content


def _mostly_text(content: bytes) -> bool:
    """Whether hardly a byte is a control code; random bytes are so in one of ten."""
    controls = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))
    return len(content.translate(None, controls)) >= 0.99 * len(content)


def _library_files(root: Path) -> list[str]:
    found: list[str] = []
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if name not in _NOT_LIBRARY and not name.startswith("config-")]
        names = [name for name in files if name.endswith(".py") and not name.startswith("_sysconfigdata")]
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in names]
    return found


def _uniform(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        raise LabError(f"data.files: {path} is a folder: name its files, for example '{path}/**/*.txt'")
    if path.is_file():  # before globbing: a real name may hold brackets
        return [path]
    first = next((i for i, part in enumerate(path.parts) if _MAGIC & set(part)), None)
    if first is None:
        raise LabError(f"data.files: {path}: no such file")
    base = Path(*path.parts[:first])
    next(base.iterdir(), None)  # raises what glob would pass over in silence: a folder that is missing or closed
    files = [file for file in base.glob(str(Path(*path.parts[first:]))) if file.is_file()]
    if not files:
        raise LabError(f"data.files: {pattern} matches no file")
    return files
