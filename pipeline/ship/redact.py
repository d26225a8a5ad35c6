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
    table = {str(Path.home()): "~", platform.node(): "this-host", getpass.getuser(): "user"}
    for number, each in enumerate(names, start=1):
        table |= {name: stand or f"device-{number}" for name, stand in each.items()}
    return _walked(value, {name.lower(): stand for name, stand in table.items() if name.strip("./~")})


def _walked(value: Any, table: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _walked(each, table) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_walked(each, table) for each in value]
    return _text(value, table) if isinstance(value, str) else value


def _text(text: str, table: Mapping[str, str]) -> str:
    # The longest first: one name may be part of another.
    names = "|".join(re.escape(name) for name in sorted(table, key=len, reverse=True))
    return re.sub(
        rf"(?<![a-z0-9])({names})(?![a-z0-9])", lambda found: table[found[0].lower()], text, flags=re.IGNORECASE
    )
