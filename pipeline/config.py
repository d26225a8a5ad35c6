"""Flags in a TOML file: the same names, the same checks, and the command line has the last word."""

from __future__ import annotations

import argparse
import difflib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.recipe import flag, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


# What such a file cannot say.
OUTSIDE = {"help", "config", "save_config", "debug", "log_level", "trust"}


def expanded(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """``argv`` of a command, with what its ``--config`` says in front; raises BadRequest where that cannot be said."""
    config_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    config_parser.add_argument("--config", type=Path)
    arguments, _ = config_parser.parse_known_args(argv)
    if arguments.config is None:
        return list(argv)
    # In front: of a flag that is given twice, argparse takes the last one.
    return [*_flags(parser, arguments.config), *argv]


def _flags(parser: argparse.ArgumentParser, path: Path) -> Iterator[str]:
    """What the file says, as words of the command line."""
    actions = _actions(parser)
    for key, value in _table(path).items():
        name = key.replace("-", "_")
        action = actions.get(name)
        if action is None or name in OUTSIDE:
            raise BadRequest(f"--config {path}: there is no {key}; {_cure(parser, name)}")
        if action.nargs == 0:
            if not isinstance(value, bool):
                raise BadRequest(f"--config {path}: {key} is true or false, not {value!r}")
            if value:
                yield flag(name)
        else:
            texts = _texts(action, key, value, path)
            yield from _checked(action, key, texts, path)


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The flags of a command, by the name of their value."""
    return {action.dest: action for action in parser._actions if action.option_strings}  # noqa: SLF001


def _cure(parser: argparse.ArgumentParser, name: str) -> str:
    """What to write in place of ``name``, which is no flag."""
    near = difflib.get_close_matches(name, _actions(parser), n=1, cutoff=0.5)
    if not near:
        return f"see {parser.prog} --help"
    return f"did you mean {near[0].replace('_', '-')}?"


def _texts(action: argparse.Action, key: str, value: Any, path: Path) -> list[str]:
    """The value or the values of a flag, as they would stand on the command line."""
    takes_list = action.nargs == "+"
    is_list = isinstance(value, list)
    values = value if is_list else [value]
    # To argparse a TOML table or a truth value would be a text like any other.
    is_nested = any(isinstance(item, (bool, dict, list)) for item in values)
    if is_list != takes_list or is_nested:
        kind = "a list, as in [1, 2]" if takes_list else "one value"
        raise BadRequest(f"--config {path}: {key} takes {kind}, not {value!r}")
    return [str(item) for item in values]


def _checked(action: argparse.Action, key: str, texts: list[str], path: Path) -> list[str]:
    """The flag and its values, once each has been read as argparse will; the file is named where one cannot be."""
    for text in texts:
        try:
            value = action.type(text) if callable(action.type) else text
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise BadRequest(f"--config {path}: {key} = {text!r}: {error}") from error
        if action.choices is not None and value not in action.choices:
            choices = ", ".join(str(choice) for choice in action.choices)
            raise BadRequest(f"--config {path}: {key} = {text!r}: take one of {choices}")
        # Else such a file could say any flag, also those that are not for it.
        if text.startswith("-") and not isinstance(value, (int, float)):
            raise BadRequest(f"--config {path}: {key} = {text!r}: a value that starts with - would be read as a flag")
    # The long form of a flag that has a short one too.
    return [max(action.option_strings, key=len), *texts]


def _table(path: Path) -> dict[str, Any]:
    """The table of the file that holds the flags: of a pyproject.toml one of its own."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequest(f"--config {path} cannot be read as TOML: {error}") from error
    if path.name != "pyproject.toml":
        return content

    tools = content.get("tool")
    table = tools.get("pipeline") if isinstance(tools, dict) else None
    if not isinstance(table, dict):
        raise BadRequest(f"--config {path} has no table [tool.pipeline]; write the flags there")
    return table


def refuse_to_save(path: Path) -> None:
    """Raise BadRequest where no file can be written to ``path``."""
    if not path.parent.is_dir() or path.is_dir():
        raise BadRequest(f"--save-config {path}: name a file in a folder that is there")


def save(path: Path, knobs: dict[str, Any]) -> None:
    """Write the ``knobs`` that are set, so that ``--config`` asks for the same."""
    import tomli_w

    from pipeline import workspace

    table = {}
    for name, value in knobs.items():
        # TOML has no null; a switch that is off is as good as none.
        if value is None or value is False:
            continue
        table[name.replace("_", "-")] = str(value) if isinstance(value, Path) else value
    workspace.put(path, tomli_w.dumps(table).encode())


# What a parser of a flag's text takes, as JSON schema has it; all others read whole numbers, some with a unit.
KINDS: dict[Any, Any] = {float: "number", number: ["number", "string"], Path: "string", None: "string"}


def schema(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """A JSON schema (draft 2020-12) of such a file, for editors."""
    properties = {}
    for name, action in _actions(parser).items():
        if name not in OUTSIDE:
            properties[name.replace("_", "-")] = {**_value_schema(action), "description": action.help}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "python -m pipeline build --config",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _value_schema(action: argparse.Action) -> dict[str, Any]:
    """What a flag takes."""
    if action.nargs == 0:
        return {"type": "boolean"}
    one: dict[str, Any] = {"type": KINDS.get(action.type, ["integer", "string"])}
    if action.choices is not None:
        one = {"enum": list(action.choices)}
    if action.nargs == "+":
        return {"type": "array", "items": one, "minItems": 1}
    return one
