"""`data=installed`: the text of the Python packages on this machine, for studies that outgrow the standard library."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from mhc_lab.data.sources import Split
from mhc_lab.errors import LabError

ENDINGS = (".py", ".pyi", ".md", ".rst", ".txt")
LARGEST = 2**20  # bytes of a file: what is longer was made by a machine
_LEFT_OUT = ("__pycache__", "mhc_lab", ".dist-info", ".egg-info", ".data")


def read_installed(val_fraction: float) -> Split:
    """Sources and notes of the installed packages: hundreds of MB beside torch; reproducible on this machine alone.

    Each text counts once, however many packages carry it. Files stand in the order of their content's hash, which
    also says which whole files are held back, so that neither names nor places matter, and a package that is added
    moves nothing of the others. Left out: this project, files that are no UTF-8 text, and those above 1 MiB.
    Raises LabError where no package is installed.
    """
    texts: dict[bytes, bytes] = {}
    packages = set()
    for package, file in _files():
        try:
            content = file.read_bytes() if file.stat().st_size <= LARGEST else b""
            content.decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # another user's, or of an older encoding
        if content and b"\0" not in content:
            texts[hashlib.sha256(content).digest()] = content
            packages.add(package)
    if not texts:
        raise LabError("data=installed: no package is installed beside this one; use data=stdlib or data=text")
    parts: dict[bool, list[bytes]] = {True: [], False: []}
    for digest in sorted(texts):
        parts[int.from_bytes(digest[-6:], "big") / 2**48 < val_fraction].append(texts[digest])
    description = f"text of {len(packages)} installed Python packages, {len(texts)} files"
    return Split(b"".join(parts[False]), b"".join(parts[True]), description)


def _files() -> Iterator[tuple[str, Path]]:
    """Text files by the package whose they are."""
    for root in dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")):
        for folder, inner, files in os.walk(root):
            inner[:] = [name for name in inner if not name.endswith(_LEFT_OUT)]
            for name in files:
                if name.endswith(ENDINGS):
                    file = Path(folder, name)
                    yield file.relative_to(root).parts[0], file
