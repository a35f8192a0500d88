"""The command line that made something, fit to be kept beside it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from mhc_lab.secrets import public, redact

_MODULES = ("__main__.py", "cli.py")  # python -m mhc_lab


def command_line() -> str:
    """What this process was called with, as one would type it, without the passwords of addresses."""
    name = Path(sys.argv[0]).name
    arguments = [public(word) if " " in word else word for word in sys.argv[1:]]
    return redact(shlex.join(["mhc-lab" if name in _MODULES else name, *arguments]))
