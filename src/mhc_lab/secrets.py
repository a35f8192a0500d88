"""Passwords and tokens in addresses: they reach the server, and no file, message or process list.

An address is written, shown and kept without its secrets (`redact`). The whole one goes on through the environment to
the processes that a command starts (`keep`, `whole`), and a later command takes it from there, or is given it again.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote

HIDDEN = "***"
TRACKING_VARIABLE = "MHC_LAB_TRACKING_URI"
STORAGE_VARIABLE = "MHC_LAB_STORAGE"

# scheme://user:password@host, the password up to the last @ of the word; user:password@host without a scheme; //:pw@.
_AFTER_SCHEME = re.compile(r"(?P<head>[A-Za-z][\w+.-]*:/{1,3}[^\s:/?#@]*):(?P<secret>[^\s]*)@")
_ALONE = re.compile(r"(?P<head>(?<![\w/:@.+-])[\w.+%-]+):(?P<secret>(?!//)[^\s]+)@(?=[\w\[.-])")
_TOKEN_ALONE = re.compile(r"(?P<head>[A-Za-z][\w+.-]*://)(?P<secret>[^\s:/?#@]{16,})@")  # https://<token>@host
_NAMED = re.compile(
    r"(?P<head>\b\w*(?:pass(?:word|wd)?|pwd|secret|token|api_?key|access_?key|credentials?|signature|\bsig|sas)"
    r"(?:\s*[=:]\s*|%3D))(?P<secret>'[^']*'|\"[^\"]*\"|[^&\s'\";,)]+)",
    re.IGNORECASE,
)
_SHORTEST = 4  # characters of a secret that is looked for wherever it stands

_known: set[str] = set()  # secrets that this process was given


def redact(text: str) -> str:
    """`text`, an address or any message, without the secrets in it: each is `***`."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _AFTER_SCHEME.sub(rf"\g<head>:{HIDDEN}@", text)
    text = _TOKEN_ALONE.sub(rf"\g<head>{HIDDEN}@", text)
    text = _ALONE.sub(rf"\g<head>:{HIDDEN}@", text)
    return _NAMED.sub(lambda found: found["head"] + HIDDEN, text)


def remember(address: str) -> None:
    """Look out for the secrets of this address, in any spelling of theirs, in all that is said from here on."""
    for pattern in (_AFTER_SCHEME, _TOKEN_ALONE, _ALONE, _NAMED):
        for found in pattern.finditer(_in_one_word(address)):
            secret = found["secret"].strip("'\"").replace(_SPACE, " ")
            for spelling in (secret, unquote(secret), quote(unquote(secret), safe="")):
                if len(spelling) >= _SHORTEST and spelling != HIDDEN:
                    _known.add(spelling)


_SPACE = "\x00"


def _in_one_word(address: str) -> str:
    """An address is one word, even where a password holds a space."""
    return address.replace(" ", _SPACE)


def public(address: str) -> str:
    """An address as it may be written and shown."""
    remember(address)
    return redact(_in_one_word(address)).replace(_SPACE, " ")


def keep(address: str, variable: str = TRACKING_VARIABLE) -> str:
    """The public form of an address; where that lacks something, the whole one goes into the environment."""
    shown = public(address)
    if shown != address:
        os.environ[variable] = address
    return shown


def whole(shown: str, variable: str = TRACKING_VARIABLE) -> str | None:
    """The whole address of a public one: itself where nothing is hidden, what the environment has, or None."""
    if HIDDEN not in shown:
        return shown
    held = os.environ.get(variable, "")
    return held if held and public(held) == shown else None
