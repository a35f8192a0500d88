"""Where MLflow keeps things: URIs, the store made before any worker opens it, clients without global state."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from mhc_lab.addresses import for_mlflow, sqlite_file, sqlite_url
from mhc_lab.errors import LabError
from mhc_lab.machine import ensure_home, existing
from mhc_lab.run_folder import runs_dir
from mhc_lab.secrets import TRACKING_VARIABLE, public, whole

if TYPE_CHECKING:
    from mlflow import MlflowClient

SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # its page is then a table of runs with metrics
CONNECT_SECONDS = 2.0
# What sqlite and Alembic say of a file that is no database, or one whose making was cut off.
_DAMAGES = ("file is not a database", "malformed", "_alembic_tmp", "no such table", "no such column", "disk image")
REQUEST_SECONDS = 10


def default_uri(results: Path) -> str:
    """The sqlite store of a results folder; its artifacts lie beside it in `mlflow-artifacts`."""
    return sqlite_url((runs_dir(results) / "mlflow.db").resolve())


def place_name(uri: str, results: Path) -> str:
    """How a file names a store: "" for that of its own results folder, which may be moved and copied; of others the
    address without its secrets."""
    return "" if uri == default_uri(results) else public(uri)


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in SERVERS


def resolve_uri(uri: str, results: Path) -> str:
    """`uri` with an absolute path where it names a file, the default of `results` where it is empty.

    What a file left out of an address, its password, comes from the environment. Raises LabError for what is neither a
    server nor a database, and for an address whose password is not at hand.
    """
    if not uri:
        return default_uri(results)
    shown = public(uri)
    found = whole(uri)
    if found is None:
        raise LabError(
            f"tracking.uri={shown}: the password is kept in no file: give --tracking-uri with it, or set "
            f"{TRACKING_VARIABLE}"
        )
    uri = found
    scheme = urlsplit(uri).scheme.split("+")[0]
    file = sqlite_file(uri)
    if scheme not in (*SERVERS, *DATABASES) or (scheme == "sqlite" and file is None) or not _names_a_host(uri):
        raise LabError(f"tracking.uri={shown}: must be http(s)://host:port, sqlite:///file or another database URL")
    if file is not None and file.is_dir():
        raise LabError(f"tracking.uri={shown}: {file} is a folder; name a file, for example sqlite:///mlflow.db")
    return sqlite_url(file.resolve()) if file else uri


def _names_a_host(uri: str) -> bool:
    """Whether a server's address has a host and a port that is a number; true for databases."""
    try:
        return not is_server(uri) or bool(urlsplit(uri).hostname and (urlsplit(uri).port or True))
    except ValueError:
        return False


def check_reachable(uri: str) -> None:
    """OSError within CONNECT_SECONDS where no server listens or an sqlite file cannot be written; asks nothing of a
    database.

    MLflow itself would retry for minutes before it says so.
    """
    file = sqlite_file(uri)
    for place in () if file is None else (existing(file), existing(file.parent)):  # its journal lies beside it
        if not os.access(place, os.W_OK):
            raise PermissionError(f"{place} cannot be written")
    if is_server(uri):
        parts = urlsplit(uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()


ensure_home()  # MLflow asks for it when it is imported


@cache
def client(uri: str) -> MlflowClient:
    """A client of this URI, one a process."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    from mlflow import MlflowClient

    # It greets every new database with lines of its own.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    address = for_mlflow(uri)
    return MlflowClient(tracking_uri=address, registry_uri=address)


def prepare_store(uri: str, experiment: str, results: Path) -> str:
    """Make the store and the experiment if they are not there; returns the experiment's id.

    Fresh processes that all meet a missing sqlite file crash in its migrations, so this is done under a lock, and
    in the parent before workers start. Artifacts get an absolute place: beside an sqlite file, under `results` for
    another database, the server's own choice for a server.

    Raises LabError for a folder that cannot be written, OSError or MLflow's errors for a server that does not answer.
    """
    check_reachable(uri)
    file = sqlite_file(uri)
    home = file.parent if file else runs_dir(results).resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
        # One lock for all experiments of a file, kept by the file; servers guard themselves.
        lock = FileLock(f"{file}.lock" if file else home / "mlflow-store.lock")
        lock.acquire()
    except OSError as error:
        raise LabError(f"{home}: cannot be written: {error.strerror}; choose another --results") from error
    try:
        return _experiment(uri, experiment, None if is_server(uri) else (home / "mlflow-artifacts").as_uri(), results)
    finally:
        lock.release()


class DamagedStore(OSError):
    """A file that is no whole MLflow database, and what mends it."""


def _experiment(uri: str, name: str, artifacts: str | None, results: Path) -> str:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DatabaseError

    file = sqlite_file(uri)
    try:
        found = client(uri).get_experiment_by_name(name)
        if found is None:
            return str(client(uri).create_experiment(name, artifact_location=artifacts, tags=_TRAINING))
    except (DatabaseError, MlflowException) as error:
        if file is not None and any(word in str(error) for word in _DAMAGES):
            first = str(error).splitlines()[0]
            raise DamagedStore(
                f"{file}: is damaged ({first}): remove it, and `mhc-lab sync` fills it again from the run folders"
            ) from error
        raise
    if found.lifecycle_stage == "deleted":
        raise LabError(
            f"experiment '{name}' was deleted from {public(uri)}: restore it, or give tracking.experiment=<another>"
        )
    if file is not None and artifacts is not None and uri == default_uri(results):
        _follow(file, str(found.artifact_location), artifacts)
    return str(found.experiment_id)


def _follow(file: Path, was: str, now: str) -> None:
    """Artifacts lie beside their database: where the results folder was moved or copied, it is told so."""
    if _path(was) == _path(now):
        return
    with sqlite3.connect(file) as database:
        database.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (now, was))
        database.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE substr(artifact_uri, 1, ?) = ?",
            (now, len(was) + 1, len(was), was),
        )
    database.close()
    client.cache_clear()


def _path(location: str) -> str:
    return unquote(urlsplit(location).path) if location.startswith("file:") else location


def errors() -> tuple[type[Exception], ...]:
    """What a tracking server that is down, locked or refuses may raise; filelock's Timeout is an OSError."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (OSError, MlflowException, SQLAlchemyError, ImportError)  # the last: a database without its driver
