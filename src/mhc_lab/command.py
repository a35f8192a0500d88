"""The command line that made something, fit to be kept beside it."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

_PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):\S+@")
_PARAMETER = re.compile(r"(password=)[^&\s']+", re.IGNORECASE)


def command_line() -> str:
    """What this process was called with, as one would type it, without the passwords of URLs."""
    typed = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", typed))
