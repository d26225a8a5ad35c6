"""Dataclasses read back from the JSON that they were written as: every key and every type is checked."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")
# What is known of a dataclass: a report has thousands of records of a few of them.
KNOWN: dict[type[Any], dict[str, tuple[Any, bool]]] = {}


def read(record: type[Record], values: object) -> Record:
    """The dataclass ``record`` that the JSON object ``values`` holds; raises as ``arguments`` does."""
    return record(**arguments(record, values))


def arguments(record: type[Any], values: object) -> dict[str, Any]:
    """What the JSON object ``values`` holds for the fields of ``record``; keys that it does not have are left out.

    A field with a default may be missing. Raises KeyError where another one is, TypeError where a value has another
    type or is none of the words that the field may hold, ValueError where a number is not finite.
    """
    if not isinstance(values, dict):
        raise TypeError(f"{record.__name__} is {_shown(values)}, no object")
    given: dict[str, Any] = {}
    for name, (hint, required) in _fields(record).items():
        if name in values:
            given[name] = _typed(hint, values[name], name)
        elif required:
            raise KeyError(name)
    return given


def _fields(record: type[Any]) -> dict[str, tuple[Any, bool]]:
    """The type of each field, and whether it has no default."""
    if record not in KNOWN:
        hints = get_type_hints(record)
        by_name = {}
        for field in fields(record):
            required = field.default is MISSING and field.default_factory is MISSING
            by_name[field.name] = (hints[field.name], required)
        KNOWN[record] = by_name
    return KNOWN[record]


def _typed(hint: Any, value: Any, name: str) -> Any:
    """``value`` as the type ``hint`` of the field ``name``."""
    kind = get_origin(hint)
    if kind is None:
        return _of_a_plain_type(hint, value, name)
    return _of_a_generic_type(kind, get_args(hint), value, name)


def _of_a_plain_type(hint: Any, value: Any, name: str) -> Any:
    if hint is Any:
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if is_dataclass(hint) and isinstance(hint, type):
        return read(hint, value)
    if not _is(hint, value):
        raise TypeError(f"{name} is {_shown(value)}")
    return value


def _of_a_generic_type(kind: Any, parameters: tuple[Any, ...], value: Any, name: str) -> Any:
    """``value`` as a union, a word of a few, a list or a dict of ``parameters``."""
    if kind in (Union, UnionType):
        if value is None and NoneType in parameters:
            return None
        # Of `str | Path | None` it is the first that is not null: JSON has one of them only.
        something = next(parameter for parameter in parameters if parameter is not NoneType)
        return _typed(something, value, name)
    if kind is Literal and value in parameters:
        return value
    # A report that was never a file may hold a tuple that a caller from Python gave.
    if kind is list and isinstance(value, list | tuple):
        return [_typed(parameters[0], item, name) for item in value]
    if kind is dict and isinstance(value, dict):
        return {key: _typed(parameters[1], item, name) for key, item in value.items()}
    raise TypeError(f"{name} is {_shown(value)}")


def _is(kind: type, value: Any) -> bool:
    # JSON writes 300.0 and 300 alike as a number, and in Python a bool is an int.
    if kind is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if not math.isfinite(value):
            raise ValueError(f"{value} is no finite number")
        return True
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _shown(value: object) -> str:
    """What stands there, short enough for a sentence."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
