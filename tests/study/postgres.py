"""A PostgreSQL server of the tests' own, on the loopback, in a folder that goes with it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
fsync = off  # it need not outlive the machine
log_connections = on
"""
# The role with a password is asked for it, the others are not.
_ACCESS = """
host all ada 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
local all all trust
"""
_ADMINISTRATOR = "lab"


class Server:
    """Started when it is made; skips the test where PostgreSQL or its driver is not installed."""

    def __init__(self) -> None:
        self.psycopg = pytest.importorskip("psycopg", reason="the postgres extra is not installed")
        self._binaries = _binaries()
        self._account = _account()
        self.folder = Path(tempfile.mkdtemp(prefix="mhc-lab-pg-"))
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        self._data = self.folder / "data"
        self.port = _free_port()
        self._call("initdb", "-D", str(self._data), "-A", "trust", "-U", _ADMINISTRATOR, "--no-sync")
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS.format(port=self.port, folder=self.folder))
        (self._data / "pg_hba.conf").write_text(_ACCESS)
        self._control("start")

    def restart(self, mode: str) -> None:
        """`fast` ends every connection in order, `immediate` as a crash does."""
        self._control("restart", "-m", mode)

    def remove(self) -> None:
        self._control("stop", "-m", "fast")
        shutil.rmtree(self.folder)

    def database(self, name: str) -> str:
        """The URL of a new database, without a driver, as a user would write it."""
        self.say(f'CREATE DATABASE "{name}"')
        return f"postgresql://{_ADMINISTRATOR}@127.0.0.1:{self.port}/{name}"

    def say(self, statement: str) -> None:
        address = f"postgresql://{_ADMINISTRATOR}@127.0.0.1:{self.port}/postgres"
        with self.psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)

    def _control(self, *arguments: str) -> None:
        self._call("pg_ctl", "-D", str(self._data), "-l", str(self.folder / "log"), "-w", *arguments)

    def _call(self, binary: str, *arguments: str) -> None:
        # The server inherits what pg_ctl has open: with a pipe, this would wait for the server's end.
        with (self.folder / "calls").open("w+") as said:
            if self._account is None:
                owner = {}
            else:
                owner = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
            done = subprocess.run(
                [self._binaries / binary, *arguments], cwd=self.folder, stdout=said, stderr=said, timeout=60, **owner
            )
            said.seek(0)
            assert done.returncode == 0, said.read()


def _binaries() -> Path:
    """The folder of initdb, postgres and pg_ctl: that of the PATH, else Debian's newest."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    places += sorted(debian, key=lambda place: float(place.parent.name), reverse=True)
    for place in places:
        if all((place / binary).is_file() for binary in ("initdb", "postgres", "pg_ctl")):
            return place
    pytest.skip("no PostgreSQL server is installed (initdb, postgres, pg_ctl)")


def _account() -> pwd.struct_passwd | None:
    """Who the server runs as: this user, but never root, which it refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is no account postgres or nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
