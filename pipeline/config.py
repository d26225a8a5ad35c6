"""Flags in a TOML file: the same names, the same checks, and the command line has the last word."""

from __future__ import annotations

import argparse
import difflib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.recipe import flag

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


# What such a file cannot say.
OUTSIDE = {"help", "config", "save_config", "debug", "log_level", "trust"}


def expanded(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """``argv`` of a command, with what its ``--config`` says in front; raises BadRequest where that cannot be said."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    path = first.parse_known_args(argv)[0].config
    return [*([] if path is None else _flags(parser, path)), *argv]


def _flags(parser: argparse.ArgumentParser, path: Path) -> Iterator[str]:
    known = {action.dest: action for action in parser._actions if action.option_strings}  # noqa: SLF001
    for key, value in _table(path).items():
        action = known.get(name := key.replace("-", "_"))
        if action is None or name in OUTSIDE:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            cure = f"did you mean {near[0].replace('_', '-')}?" if near else f"see {parser.prog} --help"
            raise BadRequest(f"--config {path}: there is no {key}; {cure}")
        if action.nargs == 0:
            if not isinstance(value, bool):
                raise BadRequest(f"--config {path}: {key} is true or false, not {value!r}")
            yield from [flag(name)] if value else []
            continue
        listed = isinstance(value, list)
        values = value if listed else [value]
        if listed != (action.nargs == "+") or any(isinstance(each, (bool, dict, list)) for each in values):
            kind = "a list, as in [1, 2]" if action.nargs == "+" else "one value"
            raise BadRequest(f"--config {path}: {key} takes {kind}, not {value!r}")
        yield from _checked(action, key, [str(each) for each in values], path)


def _checked(action: argparse.Action, key: str, values: list[str], path: Path) -> list[str]:
    """The flag and its values, once each has been read as argparse will; the file is named where one cannot be."""
    for text in values:
        try:
            read = action.type(text) if callable(action.type) else text
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise BadRequest(f"--config {path}: {key} = {text!r}: {error}") from error
        if action.choices is not None and read not in action.choices:
            raise BadRequest(f"--config {path}: {key} = {text!r}: take one of {', '.join(map(str, action.choices))}")
        # Else such a file could say any flag, also those that are not for it.
        if text.startswith("-") and not isinstance(read, (int, float)):
            raise BadRequest(f"--config {path}: {key} = {text!r}: a value that starts with - would be read as a flag")
    return [max(action.option_strings, key=len), *values]


def _table(path: Path) -> dict[str, Any]:
    try:
        read = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequest(f"--config {path} cannot be read as TOML: {error}") from error
    if path.name != "pyproject.toml":
        return read
    tools = read.get("tool")
    found = tools.get("pipeline") if isinstance(tools, dict) else None
    if not isinstance(found, dict):
        raise BadRequest(f"--config {path} has no table [tool.pipeline]; write the flags there")
    return found


def refuse_to_save(path: Path) -> None:
    """Raise BadRequest where no file can be written to ``path``."""
    if not path.parent.is_dir() or path.is_dir():
        raise BadRequest(f"--save-config {path}: name a file in a folder that is there")


def save(path: Path, asked: dict[str, Any]) -> None:
    """Write the knobs in ``asked`` that are set, so that ``--config`` asks for the same."""
    import tomli_w

    from pipeline import workspace

    given = {name: value for name, value in asked.items() if value is not None and value is not False}
    said = {name.replace("_", "-"): str(value) if isinstance(value, Path) else value for name, value in given.items()}
    workspace.put(path, tomli_w.dumps(said).encode())


# What a parser of a flag's text takes, as JSON schema has it; all others read whole numbers, some with a unit.
KINDS: dict[Any, Any] = {float: "number", Path: "string", None: "string"}


def schema(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """A JSON schema (draft 2020-12) of such a file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "python -m pipeline build --config",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            action.dest.replace("_", "-"): {**_kind(action), "description": action.help}
            for action in parser._actions  # noqa: SLF001
            if action.option_strings and action.dest not in OUTSIDE
        },
    }


def _kind(action: argparse.Action) -> dict[str, Any]:
    one: dict[str, Any] = {"type": KINDS.get(action.type, ["integer", "string"])}
    if action.choices is not None:
        one = {"enum": list(action.choices)}
    if action.nargs == 0:
        one = {"type": "boolean"}
    return {"type": "array", "items": one, "minItems": 1} if action.nargs == "+" else one
