"""`mhc-lab ui`: MLflow's own pages over the local store."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mhc_lab.errors import LabError
from mhc_lab.tracking.store import is_server, resolve_uri, sqlite_file


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
    say(f"http://127.0.0.1:{port}  (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"})
    try:
        code = server.wait()
    except BaseException:
        server.terminate()
        server.wait()
        raise
    if code:
        raise LabError(f"MLflow's server ended with code {code}: see its output above")
