"""Run folders mirrored in MLflow: written first, sent second.

A study is a parent run, a run of it a child. `push` sends what the server has not yet of a run folder; it may be called
as often as one likes, while the run goes and after it. A server that is down costs one warning and a later sync.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mhc_lab.config.compose import read_yaml
from mhc_lab.config.schema import TrackingConfig
from mhc_lab.run_folder import RunFolder
from mhc_lab.secrets import public, redact
from mhc_lab.tracking.send import send
from mhc_lab.tracking.state import State, locked, read_state, study_key, write_state
from mhc_lab.tracking.store import DamagedStore, client, errors, is_server, place_name, prepare_store, resolve_uri
from mhc_lab.tracking.study import StudyStatus, close_study, study_run

PAUSE_SECONDS = 60.0  # how long a server that did not answer is left alone while a run goes

_log = logging.getLogger(__name__)
_silent_since: dict[str, float] = {}


def push(folder: RunFolder) -> bool:
    """Send what the tracking server has not yet of this run; True when it now has everything.

    False, after one warning line, where the server does not answer (seconds at most; while the run goes it is then
    left alone for a minute). LabError for a URI that no server could have.
    """
    # Not folder.config(): checking a whole RunConfig takes longer than sending a few lines.
    tracking = TrackingConfig(**read_yaml(folder.config_file).get("tracking", {}))
    if tracking.backend == "none":
        return True
    results = folder.path.parent.parent
    uri = resolve_uri((read_state(folder) or _new_state(results, tracking)).uri, results)
    if _paused(uri) and folder.record() is None:
        return False
    try:
        with locked(folder):
            send(folder, read_state(folder) or _new_state(results, tracking), uri, results)
    except errors() as error:
        _warn(uri, error)
        return False
    _silent_since.pop(uri, None)
    return True


def start_run(results: Path, folder: RunFolder, tracking: TrackingConfig) -> None:
    """Say where a stand-alone run is mirrored, and make the store. Nothing for `tracking=none`."""
    if tracking.backend == "none":
        return
    _assign(folder, _new_state(results, tracking))
    uri = resolve_uri(tracking.uri, results)
    try:
        prepare_store(uri, tracking.experiment, results)
    except errors() as error:
        _warn(uri, error)


def start_study(
    results: Path,
    study: str,
    tracking: TrackingConfig,
    folders: Sequence[RunFolder],
    tags: Mapping[str, Mapping[str, str]],
) -> None:
    """Make the store and the study's parent run (or open it again), and tell each folder where it belongs.

    `tags` are per run id. A run that ended, or that another study brought in, stays where it is. To be called before
    workers start. Nothing for `tracking=none`.
    """
    if tracking.backend == "none":
        return
    adopt(results, study, tracking, folders, tags)
    uri = resolve_uri(tracking.uri, results)
    try:
        experiment = prepare_store(uri, tracking.experiment, results)
        parent = study_run(uri, experiment, results, study, study_key(results, study))
        client(uri).update_run(parent, status="RUNNING")
    except errors() as error:
        _warn(uri, error)


def adopt(
    results: Path,
    study: str,
    tracking: TrackingConfig,
    folders: Sequence[RunFolder],
    tags: Mapping[str, Mapping[str, str]],
) -> None:
    """Tell each folder that its run is a child of a study's, with `tags` by run id; nothing is sent."""
    key = study_key(results, study)
    for folder in folders:
        state = _new_state(results, tracking)
        state.study, state.study_key, state.tags = study, key, dict(tags.get(folder.run_id, {}))
        _assign(folder, state)


def end_study(
    results: Path, study: str, tracking: TrackingConfig, status: StudyStatus, artifacts: Sequence[Path]
) -> None:
    """Give the study's parent run its status and its tables. Nothing for `tracking=none`."""
    if tracking.backend == "none":
        return
    uri = resolve_uri(tracking.uri, results)
    try:
        experiment = prepare_store(uri, tracking.experiment, results)
        files = [] if tracking.artifacts == "none" else artifacts
        close_study(uri, study_run(uri, experiment, results, study, study_key(results, study)), status, files)
    except errors() as error:
        _warn(uri, error)


def _new_state(results: Path, tracking: TrackingConfig) -> State:
    return State(uri=place_name(resolve_uri(tracking.uri, results), results), experiment=tracking.experiment)


def _assign(folder: RunFolder, wanted: State) -> None:
    """Write a folder's mlflow.json; a run that ended keeps its place, a run of a study its study."""
    with locked(folder):
        state = read_state(folder)
        if state is None:
            state = wanted
        elif folder.ended():
            return
        state.uri, state.experiment = wanted.uri, wanted.experiment
        if not state.study:
            state.study, state.study_key, state.tags = wanted.study, wanted.study_key, wanted.tags
        write_state(folder, state)


def _paused(uri: str) -> bool:
    return time.monotonic() - _silent_since.get(uri, float("-inf")) < PAUSE_SECONDS


def _warn(uri: str, error: Exception) -> None:
    """One line a server and process, until it answers again."""
    if uri not in _silent_since:
        first = redact(str(error).splitlines()[0] if str(error) else type(error).__name__)
        if isinstance(error, DamagedStore):
            _log.warning("%s", first)
        else:
            option = f" --tracking-uri {public(uri)}" if is_server(uri) else ""
            _log.warning(
                "tracking server %s does not answer (%s): `mhc-lab sync%s` sends it later", public(uri), first, option
            )
    _silent_since[uri] = time.monotonic()
