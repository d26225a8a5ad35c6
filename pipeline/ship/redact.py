"""What may be handed on: the same record without the names of devices, users, addresses and folders."""

from __future__ import annotations

import getpass
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def redacted(value: Any, names: Sequence[Mapping[str, str]]) -> Any:
    """``value`` with every name replaced in every text of it.

    ``names`` has for each device what it is called, and by what that is replaced; "" stands for device-1, device-2 …
    """
    replacements = {str(Path.home()): "~", platform.node(): "this-host", getpass.getuser(): "user"}
    for number, names_of_device in enumerate(names, start=1):
        for name, replacement in names_of_device.items():
            replacements[name] = replacement or f"device-{number}"

    # In small letters, since host names are written either way; "", "." and "/" are in every text.
    table = {name.lower(): replacement for name, replacement in replacements.items() if name.strip("./~")}
    return _walked(value, table)


def _walked(value: Any, table: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _walked(part, table) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_walked(part, table) for part in value]
    if isinstance(value, str):
        return _text(value, table)
    return value


def _text(text: str, table: Mapping[str, str]) -> str:
    # The longest first: one name may be part of another.
    names = "|".join(re.escape(name) for name in sorted(table, key=len, reverse=True))
    # Whole words only: a device may be called a.
    whole_name = rf"(?<![a-z0-9])({names})(?![a-z0-9])"
    return re.sub(whole_name, lambda match: table[match[0].lower()], text, flags=re.IGNORECASE)
