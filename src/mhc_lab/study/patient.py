"""An Optuna storage that waits out a database server that is restarted."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError

PATIENCE_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds, doubled from one to the other

# Every call of RDBStorage that talks to the server while workers work. Optuna's cache, which stands before it, makes
# those with an underscore.
_CALLS = (
    "create_new_trial",
    "get_all_studies",
    "get_all_trials",
    "get_n_trials",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_param",
    "get_trial_system_attrs",
    "get_trial_user_attrs",
    "record_heartbeat",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
    "_create_new_trial",
    "_get_best_trial_id",
    "_get_stale_trial_ids",
    "_get_trials",
    "_set_trial_param",
)


class PatientStorage(RDBStorage):
    """Repeats a call that lost its server, for up to PATIENCE_SECONDS.

    A call whose answer alone was lost is made twice: a value is written again, a finished trial says so (and its worker
    takes that for an answer), a trial taken without its worker knowing is requeued after the heartbeat's grace, and of
    two that were queued for one place the second is given up by the worker that takes it.
    """


def _patiently(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def repeated(self: RDBStorage, *arguments: Any, **named: Any) -> Any:
        deadline, pause = time.monotonic() + PATIENCE_SECONDS, _FIRST_PAUSE
        while True:
            try:
                return call(self, *arguments, **named)
            except (StorageInternalError, OperationalError, InterfaceError) as error:
                if not _lost_server(error) or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    return repeated


def _lost_server(error: BaseException | None) -> bool:
    """Whether the connection failed, not what was asked over it. sqlite waits for its locks by itself."""
    if isinstance(error, StorageInternalError):
        return _lost_server(error.__cause__)
    if isinstance(error, PendingRollbackError):  # Optuna asked again over the lost connection
        return _lost_server(error.__context__)
    return isinstance(error, OperationalError | InterfaceError) and "sqlite" not in str(type(error.orig))


for _name in _CALLS:
    setattr(PatientStorage, _name, _patiently(getattr(RDBStorage, _name)))
