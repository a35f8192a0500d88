from __future__ import annotations

import inspect
import sqlite3

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import DataError, OperationalError, PendingRollbackError

from mhc_lab.study import patient
from mhc_lab.study.patient import PatientStorage, _patiently

# Made once, by the command that begins a study, or by nobody: these may fail at once.
NOT_AT_WORK = {"create_new_study", "delete_study"}


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only in pauses."""

    class Clock:
        def __init__(self) -> None:
            self.now = 0.0
            self.pauses: list[float] = []

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.pauses.append(seconds)
            self.now += seconds

    made = Clock()
    monkeypatch.setattr(patient, "time", made)
    return made


class _Lost(Exception):
    """A server driver's own error."""


def _failing(times: int, error: Exception):
    calls = []

    def call(_storage, value):
        calls.append(value)
        if len(calls) <= times:
            raise error
        return value

    return _patiently(call), calls


def _lost(cause: Exception | None = None) -> OperationalError:
    return OperationalError("SELECT 1", {}, cause or _Lost("server closed the connection"))


def _wrapped(cause: Exception) -> StorageInternalError:
    """As Optuna raises it."""
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = cause
    return error


def _asked_again() -> PendingRollbackError:
    """As where Optuna takes the lost server for a query that was too long, and makes a shorter one."""
    error = PendingRollbackError("Can't reconnect until invalid transaction is rolled back.")
    error.__context__ = _lost()
    return error


@pytest.mark.parametrize(
    "error", [_lost(), _wrapped(_lost()), _wrapped(_asked_again())], ids=["bare", "wrapped", "asked again"]
)
def test_a_call_that_lost_its_server_is_made_again(clock, error):
    call, calls = _failing(4, error)
    assert call(None, 7) == 7
    assert calls == [7] * 5
    assert clock.pauses == [0.1, 0.2, 0.4, 0.8]


def test_patience_ends(clock):
    call, _ = _failing(10**6, _lost())
    with pytest.raises(OperationalError):
        call(None, 7)
    assert patient.PATIENCE_SECONDS - 10 < clock.now <= patient.PATIENCE_SECONDS
    assert max(clock.pauses) == 5.0


@pytest.mark.parametrize(
    "error",
    [
        _wrapped(DataError("INSERT", {}, _Lost("value too long"))),
        _wrapped(_lost(sqlite3.OperationalError("database is locked"))),
        _wrapped(PendingRollbackError("This session has been rolled back.")),
        KeyError("no such trial"),
    ],
    ids=["what was asked is wrong", "sqlite", "not for want of a server", "no database error"],
)
def test_other_errors_are_told_at_once(clock, error):
    call, calls = _failing(1, error)
    with pytest.raises(type(error)):
        call(None, 7)
    assert calls == [7]
    assert clock.pauses == []


def test_every_call_that_opens_a_session_is_patient():
    """A new version of Optuna may bring others."""
    impatient = {
        name
        for name, call in inspect.getmembers(RDBStorage, inspect.isfunction)
        if "_create_scoped_session(" in inspect.getsource(call) and getattr(PatientStorage, name) is call
    }
    assert impatient == NOT_AT_WORK
