"""Paths as addresses: `%`, `?` and `#` mean something in a URL, and nothing in a path."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

_SQLITE = "sqlite:///"


def sqlite_url(file: Path) -> str:
    """The URL of an sqlite file."""
    return _SQLITE + quote(str(file), safe="/")


def sqlite_file(url: str) -> Path | None:
    """The file behind an sqlite URL; None for a server or another database."""
    return Path(unquote(url.removeprefix(_SQLITE).partition("?")[0])) if url.startswith(_SQLITE) else None


def for_mlflow(url: str) -> str:
    """A URL as MLflow takes it: it would make a folder of a quoted path's name, unless the driver is named."""
    return url.replace("sqlite:", "sqlite+pysqlite:", 1) if url.startswith(_SQLITE) and "%" in url else url
