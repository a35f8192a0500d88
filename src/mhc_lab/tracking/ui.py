"""`mhc-lab ui`: MLflow's own pages over the local store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mhc_lab.addresses import for_mlflow, sqlite_file
from mhc_lab.errors import LabError
from mhc_lab.study.signals import handlers
from mhc_lab.tracking.store import client, errors, is_server, resolve_uri


def ui(results: Path, port: int = 5000, uri: str | None = None, *, say: Callable[[str], None] = print) -> None:
    """Serve the store's pages on this machine until interrupted; for a tracking server only say where it is.

    Raises LabError for a port that is taken or a store that does not exist.
    """
    store = resolve_uri(uri or "", results)
    if is_server(store):
        say(f"the tracking server has its own pages: {store}")
        return
    file = sqlite_file(store)
    if file is not None and not file.is_file():
        raise LabError(f"{file}: nothing is tracked there yet: train something, or give --results")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise LabError(f"port {port} cannot be used: give another with --port") from error
    say(f"http://127.0.0.1:{port}/#/experiments{_experiment(store)}  (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", for_mlflow(store)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    # A group of its own, ended whole: MLflow's server starts processes that outlive it.
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    command += ["--uvicorn-opts", "--no-access-log --log-level warning"]
    watched = [sys.executable, "-m", "mhc_lab.tracking.watched", *command]
    server = subprocess.Popen(watched, env=environment, stdin=subprocess.PIPE, start_new_session=True)
    try:
        with ended_by_signals():
            code = server.wait()
    finally:
        assert server.stdin is not None
        server.stdin.close()  # what the watcher waits for; closed by the system too, however this process ends
        server.wait()
    if code:
        raise LabError(f"MLflow's server ended with code {code}: see its output above")


def _experiment(store: str) -> str:
    """The part of the address that opens the experiment with the latest run, not MLflow's own front page."""
    try:
        found = client(store).search_experiments(max_results=1, order_by=["last_update_time DESC"])
    except errors():  # the server says what is wrong with its database
        return ""
    return f"/{found[0].experiment_id}" if found else ""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does."""

    def told(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    with handlers({signal.SIGTERM: told, signal.SIGHUP: told}):
        yield
