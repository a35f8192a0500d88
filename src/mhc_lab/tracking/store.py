"""Where MLflow keeps things: URIs, the store made before any worker opens it, clients without global state."""

from __future__ import annotations

import logging
import os
import socket
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from mhc_lab.errors import LabError
from mhc_lab.run_folder import runs_dir

if TYPE_CHECKING:
    from mlflow import MlflowClient

SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
CONNECT_SECONDS = 2.0
REQUEST_SECONDS = 10


def default_uri(results: Path) -> str:
    """The sqlite store of a results folder; its artifacts lie beside it in `mlflow-artifacts`."""
    return f"sqlite:///{(runs_dir(results) / 'mlflow.db').resolve()}"


def sqlite_file(uri: str) -> Path | None:
    """The file behind an sqlite URI, or None for a server or another database."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in SERVERS


def resolve_uri(uri: str, results: Path) -> str:
    """`uri` with an absolute path where it names a file, the default of `results` where it is empty.

    Raises LabError for what is neither a server nor a database.
    """
    if not uri:
        return default_uri(results)
    scheme = urlsplit(uri).scheme.split("+")[0]
    file = sqlite_file(uri)
    if scheme not in (*SERVERS, *DATABASES) or (scheme == "sqlite" and file is None) or not _names_a_host(uri):
        raise LabError(f"tracking.uri={uri}: must be http(s)://host:port, sqlite:///file or another database URL")
    if file is not None and file.is_dir():
        raise LabError(f"tracking.uri={uri}: {file} is a folder; name a file, for example sqlite:///mlflow.db")
    return f"sqlite:///{file.resolve()}" if file else uri


def _names_a_host(uri: str) -> bool:
    """Whether a server's address has a host and a port that is a number; true for databases."""
    try:
        return not is_server(uri) or bool(urlsplit(uri).hostname and (urlsplit(uri).port or True))
    except ValueError:
        return False


def check_reachable(uri: str) -> None:
    """OSError within CONNECT_SECONDS where no server listens; asks nothing of a database.

    MLflow itself would retry for minutes before it says so.
    """
    if is_server(uri):
        parts = urlsplit(uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()


@cache
def client(uri: str) -> MlflowClient:
    """A client of this URI, one a process."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    from mlflow import MlflowClient

    # It greets every new database with lines of its own.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


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
        return _experiment(uri, experiment, None if is_server(uri) else str(home / "mlflow-artifacts"))
    finally:
        lock.release()


def _experiment(uri: str, name: str, artifacts: str | None) -> str:
    found = client(uri).get_experiment_by_name(name)
    if found is None:
        return str(client(uri).create_experiment(name, artifact_location=artifacts))
    if found.lifecycle_stage == "deleted":
        raise LabError(f"experiment '{name}' was deleted from {uri}: restore it, or give tracking.experiment=<another>")
    return str(found.experiment_id)


def errors() -> tuple[type[Exception], ...]:
    """What a tracking server that is down, locked or refuses may raise; filelock's Timeout is an OSError."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (OSError, MlflowException, SQLAlchemyError, ImportError)  # the last: a database without its driver
