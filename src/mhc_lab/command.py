"""The command line that made something, fit to be kept beside it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from mhc_lab.secrets import public, redact

_MODULES = {
    "mhc_lab/__main__.py": "mhc-lab",
    "mhc_lab/cli.py": "mhc-lab",
    "bench/__main__.py": "python -m mhc_lab.bench",
}


def command_line() -> str:
    """What this process was called with, as one would type it, without the passwords of addresses."""
    called = Path(sys.argv[0])
    name = _MODULES.get("/".join(called.parts[-2:]), shlex.quote(called.name))
    arguments = [public(word) if " " in word else word for word in sys.argv[1:]]
    return redact(" ".join([name, shlex.join(arguments)]).rstrip())
