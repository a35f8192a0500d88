"""What is known here about a run folder's mirror: mlflow.json, and the keys of studies."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock

from mhc_lab.files import MLFLOW, read_json
from mhc_lab.run_folder import RunFolder, runs_dir, write_json

LOCK_SECONDS = 60


@dataclass
class Sent:
    """What one server has of a run. `attempt` tells which of the folder's attempts its MLflow run is."""

    run_id: str
    attempt: str
    sent_lines: int = 0
    status: str | None = None  # as in record.json, once it was sent


@dataclass
class State:
    """The content of mlflow.json.

    `attempt` is a random id that RunFolder.clear() renews, and a tag of the MLflow run: a folder that was copied from
    another machine, twice even, finds its run again. `study_key` tells studies of one name apart on a shared server.
    """

    uri: str
    experiment: str
    study: str = ""
    study_key: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex)
    servers: dict[str, Sent] = field(default_factory=dict)


def read_state(folder: RunFolder) -> State | None:
    content = read_json(folder.mlflow_file, MLFLOW)
    if content is None:
        return None
    known = {name: content[name] for name in MLFLOW if name in content and name != "servers"}
    fields = ("run_id", "attempt", "sent_lines", "status")
    servers = {
        uri: Sent(**{name: sent[name] for name in fields if name in sent}) for uri, sent in content["servers"].items()
    }
    return State(**known, servers=servers)


def write_state(folder: RunFolder, state: State) -> None:
    write_json(folder.mlflow_file, asdict(state))


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Held while a folder's state is read, sent and written: a run's own push and a sync may meet."""
    with FileLock(folder.path / "mlflow.lock", timeout=LOCK_SECONDS):
        yield


def study_key(results: Path, study: str) -> str:
    """The key of a study of this results folder, made once."""
    file = runs_dir(results) / "mlflow-studies.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        keys = read_json(file) or {}
        if study not in keys:
            keys[study] = uuid.uuid4().hex
            write_json(file, keys)
        return str(keys[study])
