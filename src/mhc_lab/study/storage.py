"""The Optuna storage of studies: where it lies, how a trial is taken, and what becomes of a dead worker's trials."""

from __future__ import annotations

import contextlib
import copy
import datetime
import errno
import os
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from mhc_lab.addresses import sqlite_file, sqlite_url
from mhc_lab.errors import LabError
from mhc_lab.run_folder import runs_dir, write_whole
from mhc_lab.secrets import HIDDEN, STORAGE_VARIABLE, public, redact, whole
from mhc_lab.study.folder import StudyFolder
from mhc_lab.study.patient import PatientStorage

# As study.json holds it: the results folder may be moved, and is kept in git.
DEFAULT_STORAGE = "sqlite:///{results}/runs/studies.db"
MAX_RETRIES = 2

# User attributes that a trial has of its worker, and not of its point. STOPPED: the worker has queued the point again.
WORKER, STOPPED = "worker", "stopped"
_RESULTS = "results"  # a study's: the folder that its runs lie in

_CONNECT_SECONDS = 5
_CONNECT_PAUSES = (0.5, 1.5)  # seconds between attempts


class NothingWaits(Exception):
    """Another worker took the last trial of the queue."""


StaleTrial = Callable[["optuna.Study", FrozenTrial], None]


def resolve(storage: str, results: Path) -> str:
    """The URL to connect to, from the form that study.json holds; psycopg is the driver where none is named.

    A password that study.json leaves out comes from the environment: MHC_LAB_STORAGE has the whole address, or it is
    PostgreSQL's own affair where PGPASSWORD holds it.
    """
    if storage == DEFAULT_STORAGE:
        return sqlite_url((runs_dir(results) / "studies.db").absolute())
    if HIDDEN in storage:
        found = whole(storage, STORAGE_VARIABLE)
        if found is None and storage.startswith("postgres") and "PGPASSWORD" in os.environ:
            found = storage.replace(f":{HIDDEN}@", "@")
        if found is None or HIDDEN in found:
            hint = "set PGPASSWORD, or give" if storage.startswith("postgres") else "give"
            raise LabError(
                f"{storage}: the password is not kept with the study; {hint} the whole URL with --storage or "
                f"{STORAGE_VARIABLE}"
            )
        storage = found
    scheme, colon, rest = storage.partition(":")
    return f"{'postgresql+psycopg' if scheme in ('postgresql', 'postgres') else scheme}{colon}{rest}"


def absolute(storage: str) -> str:
    """An sqlite URL with an absolute path, any other as it is; LabError for sqlite without a file."""
    if not storage.startswith("sqlite"):
        return storage
    url = make_url(storage)
    if not url.database or url.database == ":memory:":
        raise LabError(f"--storage {public(storage)}: workers need a file, for example sqlite:///studies.db")
    return url.set(database=str(Path(url.database).absolute())).render_as_string(hide_password=False)


def without_password(storage: str) -> str:
    """The form that study.json holds."""
    if storage == DEFAULT_STORAGE:
        return storage
    shown = public(storage)
    try:
        make_url(storage)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:  # ValueError: of a port that is no number
        raise LabError(
            f"--storage {shown}: not a database URL such as sqlite:///studies.db or postgresql+psycopg://host/database"
        ) from error
    return shown


class StudyStorage:
    """One study in its database. `interval` and `grace` are the heartbeat's, in seconds.

    `exhausted` is told of each trial whose worker died for the last time that is allowed.
    """

    def __init__(
        self, url: str, name: str, results: Path, *, interval: int, grace: int, exhausted: StaleTrial | None = None
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        self._runs = runs_dir(results)
        self._grace = datetime.timedelta(seconds=grace)
        self._exhausted = exhausted
        self._retry = RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)
        sqlite = url.startswith("sqlite")
        self._lock = FileLock(self._runs / f"{name}.lock") if sqlite else None
        try:
            self._runs.mkdir(parents=True, exist_ok=True)
            if not os.access(self._runs, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            self._storage = _connected(
                lambda: PatientStorage(
                    url,
                    engine_kwargs=_engine_arguments(url),
                    heartbeat_interval=interval,
                    grace_period=grace,
                    heartbeat_stale_trial_callback=self._requeue,
                )
            )
        except OSError as error:
            raise LabError(f"{self._runs}: cannot be written: {error.strerror}; choose another --results") from error
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            # The driver's first line may end in a colon; its reason stands in one of the next.
            why = redact(" ".join(str(error).split()))[:200]
            file = sqlite_file(url)
            if file is not None and file.exists():
                raise LabError(
                    f"{file}: is no database that can be used ({why}): remove it, the run folders hold all results"
                ) from error
            raise LabError(f"--storage {public(url)}: cannot be reached: {why}") from error
        self.name = name

    def create(self, objectives: int = 1) -> optuna.Study:
        """The study, made if need be. By one process before the workers: fresh sqlite files bear no crowd.

        `objectives`: how many values a trial has, all minimised; a study that is there has its own number.
        """
        return optuna.create_study(
            storage=self._storage,
            study_name=self.name,
            load_if_exists=True,
            directions=["minimize"] * objectives,
        )

    def open(self) -> optuna.Study:
        """The study as workers take from it: `optimize` raises NothingWaits where no trial is queued."""
        try:
            return _Queue(storage=self._storage, study_name=self.name)
        except KeyError as error:
            raise LabError(
                f"the storage has no study '{self.name}': start it with mhc-lab ablate or mhc-lab sweep"
            ) from error

    def claim(self, study: optuna.Study) -> None:
        """Bind a grid in a database of the user's to this results folder: the run folders say what is done, so two
        folders would each wait for runs that the other holds. The folder may be moved; LabError for another one."""
        if study.user_attrs.get(_RESULTS) is None:
            study.set_user_attr(_RESULTS, _results_id(self._runs))
        if study.user_attrs[_RESULTS] != _results_id(self._runs):
            raise LabError(
                f"study '{self.name}' in this database belongs to another results folder: use that --results, "
                f"another --study NAME or another --storage"
            )

    def taking(self) -> AbstractContextManager[object]:
        """Held while a trial is taken: on sqlite two workers can otherwise take the same one."""
        return self._lock if self._lock is not None else contextlib.nullcontext()

    def taken(self) -> None:
        """Let the other workers go on while this one runs its trial."""
        if self._lock is not None:
            self._lock.release()

    def reap(self, study: optuna.Study) -> None:
        """Requeue the trials of dead workers; to be called while `taking()`.

        A missing heartbeat tells of any worker, after the grace; a worker of this machine is missed at once.
        """
        optuna.storages.fail_stale_trials(study)
        for trial in trials(study, TrialState.RUNNING):
            if self._abandoned(trial):
                with contextlib.suppress(UpdateFinishedTrialError):  # another worker was quicker
                    self._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
                    self._requeue(study, trial)

    def _requeue(self, study: optuna.Study, trial: FrozenTrial) -> None:
        tries = len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) + 1
        again = copy.deepcopy(trial)  # the callback writes into what it is given
        again.user_attrs = {key: value for key, value in trial.user_attrs.items() if key not in (WORKER, STOPPED)}
        self._retry(study, again)
        if tries > MAX_RETRIES and self._exhausted is not None:
            self._exhausted(study, trial)

    def _abandoned(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get(WORKER)
        if worker is not None:
            return _dead_here(worker)
        # Its worker died between taking it and signing it, before the first heartbeat.
        assert trial.datetime_start is not None
        return datetime.datetime.now() - trial.datetime_start > self._grace


class _Queue(optuna.Study):
    """Gives what was queued and nothing else: Optuna would make up a trial of its own, beyond the budget, for a worker
    that another one was quicker than."""

    def _pop_waiting_trial_id(self) -> int:
        trial_id = super()._pop_waiting_trial_id()
        if trial_id is None:
            raise NothingWaits
        return trial_id


def _connected(connect: Callable[[], RDBStorage]) -> RDBStorage:
    """A server that is just being started gets a few seconds, and so does another command that makes the tables."""
    for pause in _CONNECT_PAUSES:
        try:
            return connect()
        except (
            sqlalchemy.exc.OperationalError,
            sqlalchemy.exc.InterfaceError,
            sqlalchemy.exc.IntegrityError,  # two made one type at a time
            sqlalchemy.exc.ProgrammingError,  # or one table
        ):
            time.sleep(pause)
    return connect()


def _engine_arguments(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}  # how long a writer waits for another
    arguments: dict[str, Any] = {"pool_pre_ping": True}  # a server may have closed an idle connection
    if url.startswith("postgresql+psycopg:"):
        arguments["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
    return arguments


def _results_id(runs: Path) -> str:
    """What a results folder is known by wherever it is mounted or moved to."""
    file = runs / "results-id"
    if not file.is_file():
        runs.mkdir(parents=True, exist_ok=True)
        write_whole(file, uuid.uuid4().hex + "\n")
    return file.read_text().strip()


def trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=states or None)


def close(study: optuna.Study, trial: FrozenTrial) -> None:
    """Take a waiting trial out of the queue."""
    with contextlib.suppress(UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)


def process_name() -> str:
    """This process, as a trial names its worker: where pids count, pid and start time, since pids come again."""
    return f"{_pid_space()} {os.getpid()} {_started(os.getpid())}"


def _pid_space() -> str:
    """Where pids name the same processes: this boot of this machine, and of containers on it their own namespace.

    Not the host's name: machines may share one.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # no Linux
        boot = f"{socket.gethostname()}-{uuid.getnode():x}"
    try:
        space = Path("/proc/self/ns/pid").readlink().name.removeprefix("pid:")
    except OSError:
        space = ""
    return f"{boot}{space}"


def _dead_here(worker: str) -> bool:
    space, pid, started = worker.rsplit(" ", 2)
    if space != _pid_space():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """When a process began, in clock ticks since boot; '-' where the system has no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "-"
    return stat.rpartition(")")[2].split()[19]


def each_run(study: optuna.Study, *states: TrialState) -> Iterator[str]:
    """The run ids that trials in these states stand for."""
    for trial in trials(study, *states):
        if "run_id" in trial.user_attrs:
            yield str(trial.user_attrs["run_id"])


def stored_storage(folder: StudyFolder, given: str | None) -> str:
    """The storage as study.json holds it: the one given, else the study's, else the default."""
    if given is not None:
        without_password(given)  # refuses what is no URL
        return absolute(given)
    return str(folder.content()["storage"]) if folder.study_file.is_file() else DEFAULT_STORAGE
