"""What a setting's value is, read by the type of its field: nothing is guessed from how it looks, nothing interpolated.

`seed=010` is ten, `residual.plugin=null.py` a file, `trainer.max_steps=1e3` a thousand, `data.files=a.txt` one file.
"""

from __future__ import annotations

import dataclasses
import re
import types
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from mhc_lab.config.schema import RunConfig
from mhc_lab.errors import LabError, shown
from mhc_lab.residual import registry

_LONGEST = 100_000  # characters of a value: a list of paths
_LONGEST_NUMBER = 40
_NONE = ("", "null", "none", "~")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_WHOLE = re.compile(r"[+-]?[0-9]+(_[0-9]+)*")
_MODES = ("dynamic", "static", "fixed")


def parse(key: str, text: str) -> Any:
    """The value of setting `key` ("a.b", or "seed") that a user typed, or that stands in a file of conf.

    Raises LabError, in one line with the choices or the kind of number wanted, for what is no such value.
    """
    refuse_unprintable(key, text)
    if len(text) > _LONGEST:
        raise LabError(f"{key}={shown(text)}: longer than {_LONGEST} characters")
    return _parse(key, text, hint_of(key))


def checked(key: str, value: Any) -> Any:
    """A value that a file holds in a type of its own (a run's config.yaml), if it is of the field's type.

    Raises LabError otherwise.
    """
    hint = hint_of(key)
    if not _is(value, hint):
        raise LabError(f"{key}: {shown(repr(value))} is not {_words(hint)}")
    if isinstance(value, int) and not isinstance(value, bool) and hint in (float, float | None):
        return float(value)
    return value


def refuse_unprintable(key: str, text: str) -> None:
    """LabError for characters that no name, path or number has: they would break files and terminals."""
    if not text.isprintable():
        raise LabError(f"{key}={shown(text)}: holds a character that cannot be printed")


def hint_of(key: str) -> Any:
    """The type that the schema, or the variant that brings it, gives a setting."""
    own = registry.own_settings().get(key.removeprefix("residual."))
    if own is not None and key.startswith("residual."):
        return get_type_hints(own)[key.removeprefix("residual.")]
    return _hint_of(key)


@cache
def _hint_of(key: str) -> Any:
    group, dot, name = key.rpartition(".")
    owner: Any = RunConfig
    if dot:
        owner = next(f.default_factory for f in dataclasses.fields(RunConfig) if f.name == group)
    return get_type_hints(owner)[name]


def _parse(key: str, text: str, hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if text.strip().lower() in _NONE else _parse(key, text, inner)
    if origin is list:
        return [_parse(key, item, arguments[0]) for item in _items(key, text)]
    if origin is Literal:
        return _choice(key, text, arguments)
    if hint is str:
        return _plain_text(key, text)
    word = text.strip()
    if hint is bool:
        if word.lower() not in (*_TRUE, *_FALSE):
            raise LabError(f"{key}={shown(text)}: must be true or false")
        return word.lower() in _TRUE
    if hint is int:
        return _whole(key, word)
    assert hint is float, hint
    try:
        return float(word)
    except ValueError as error:
        raise LabError(f"{key}={shown(text)}: must be a number") from error


def _choice(key: str, text: str, choices: tuple[Any, ...]) -> Any:
    word = text.strip()
    if word in choices:
        return word
    off = " (what tables call off is fixed)" if word.lower() in ("off", "false", "no") and choices == _MODES else ""
    raise LabError(f"{key}={shown(text)}: choose one of {', '.join(choices)}{off}")


def _plain_text(key: str, text: str) -> str:
    if "${" in text:
        raise LabError(f"{key}={shown(text)}: nothing is filled in for ${{…}}: write the value itself")
    return text


def _whole(key: str, word: str) -> int:
    """A whole number in decimal digits; 1e3 is one, 1e-3 and 0x10 are none."""
    if len(word) > _LONGEST_NUMBER:
        raise LabError(f"{key}={shown(word)}: must be a whole number of at most {_LONGEST_NUMBER} digits")
    if _WHOLE.fullmatch(word):
        return int(word)
    try:
        number = Decimal(word)
    except InvalidOperation as error:
        raise LabError(f"{key}={shown(word)}: must be a whole number") from error
    if not number.is_finite() or number.adjusted() > _LONGEST_NUMBER or number != number.to_integral_value():
        raise LabError(f"{key}={shown(word)}: must be a whole number")
    return int(number)


def _items(key: str, text: str) -> list[str]:
    """[a, b] as in YAML, with quotes where an item holds a comma; or a,b; or one item."""
    word = text.strip()
    if not word:
        return []
    if not (word.startswith("[") and word.endswith("]")):
        return [item.strip() for item in word.split(",") if item.strip()]
    try:
        items = yaml.load(word, yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise LabError(f"{key}={shown(text)}: must be a list such as [a, b]") from error
    if not all(isinstance(item, str) for item in items):
        raise LabError(f"{key}={shown(text)}: must be a list of words, such as [a, b]")
    return list(items)


def _is(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_is(value, argument) for argument in arguments)
    if origin is list:
        return isinstance(value, list) and all(_is(item, arguments[0]) for item in value)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is list:
        return f"a list, each of it {_words(arguments[0])}"
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    named = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return named[hint]
