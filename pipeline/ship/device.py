"""Devices: one by its address, or many from an inventory, every field of which is checked before anything is sent."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

STORE = "/var/lib/edge-agent"
# A name is also that of a folder, and no field may be taken for an option of a command.
FORMS = {
    "name": r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    "host": r"[A-Za-z0-9:][A-Za-z0-9.:_%-]{0,254}",
    "user": r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}",
    "store": r"[A-Za-z0-9._/][A-Za-z0-9._/@+-]{0,254}",
    "group": r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
}
ADDRESS = re.compile(r"(?:(?P<user>[^@]+)@)?(?:\[(?P<six>[^\]]+)\]|(?P<host>[^@:]+))(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class Device:
    """Where one device is; what is None is as ~/.ssh/config says, else as ssh does it."""

    name: str
    host: str
    port: int | None = None
    user: str | None = None
    store: str = STORE
    group: str = "all"


FIELDS = tuple(field.name for field in fields(Device) if field.name != "name")


def addressed(text: str, store: str | None) -> Device:
    """The device at ``user@host:port``; raises BadRequest where it is no such address."""
    where = f"--to {text}"
    address = ADDRESS.fullmatch(text)
    if address is None:
        raise BadRequest(f"{where} is no USER@HOST[:PORT], as in nvidia@10.0.0.11:22 or nvidia@[fd00::11]")
    host = address["six"] or address["host"]
    # Its report lies in a folder of this name.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", host).lstrip("._-") or "device"
    port = int(address["port"]) if address["port"] else None
    device = Device(name, host, port, address["user"], store or STORE)
    _refuse(device, where)
    _refuse_port(port, where)
    return device


def inventory(path: Path) -> list[Device]:
    """The devices of a TOML file, in its order; raises BadRequest with the first thing that is wrong."""
    where = f"--inventory {path}"
    tables = _parsed(path, where)
    _refuse_unknown(tables, ("defaults", "device"), where)
    defaults = _table(tables, "defaults", where)
    rows = _table(tables, "device", where)
    if not rows:
        raise BadRequest(f"{where}: it names no device; write [device.NAME] and host = … under it")
    _refuse_unknown(defaults, FIELDS, f"{where}, [defaults]")

    devices = []
    for name in rows:
        row = _table(rows, name, where)
        devices.append(_device(name, row, defaults, where))
    _refuse_same_place(devices, where)
    return devices


def _parsed(path: Path, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise BadRequest(
            f"{where}: it cannot be read ({error.strerror}); name a TOML file of [device.NAME]s"
        ) from error
    except ValueError as error:
        # So tomllib calls a table that is there twice.
        is_twice = "declare" in str(error) or "overwrite" in str(error)
        cure = "; every device has its own name" if is_twice else ""
        raise BadRequest(f"{where}: it is no TOML ({error}){cure}") from error


def grouped(devices: Sequence[Device], groups: Iterable[str] | None) -> list[Device]:
    """Those of these groups, or all; raises BadRequest where a group has none."""
    if not groups:
        return list(devices)
    known = sorted({device.group for device in devices})
    for group in groups:
        if group not in known:
            raise BadRequest(f"--group {group}: no device is in it; {_nearest(group, known)}")
    return [device for device in devices if device.group in set(groups)]


def _device(name: str, row: dict[str, Any], defaults: dict[str, Any], where: str) -> Device:
    where = f"{where}, [device.{name}]"
    _refuse_unknown(row, FIELDS, where)
    values = {**defaults, **row}
    if "host" not in values:
        raise BadRequest(f"{where}: it has no host; write host = … with its name or address")
    _refuse_port(values.get("port"), where)
    device = Device(name, **values)
    _refuse(device, where)
    return device


def _refuse(device: Device, where: str) -> None:
    """Raise BadRequest where a field of text has not its form."""
    for field, form in FORMS.items():
        value = getattr(device, field)
        if value is None and field == "user":
            continue
        if not isinstance(value, str) or not re.fullmatch(form, value) or ".." in value:
            raise BadRequest(f"{where}: {field} = {value!r} is none; it must look like {form}, without ..")


def _refuse_port(port: object, where: str) -> None:
    # Not isinstance: true is a whole number in Python, and may stand in a TOML file.
    if port is not None and (type(port) is not int or not 0 < port < 2**16):
        raise BadRequest(f"{where}: port = {port!r} is no number from 1 to 65535")


def _refuse_same_place(devices: Sequence[Device], where: str) -> None:
    """Raise BadRequest where two devices are one: at the same time, each would wait for the other's lock."""
    names: dict[tuple[Any, ...], str] = {}
    for device in devices:
        place = (device.host, device.port or 22, device.store)
        if place in names:
            raise BadRequest(
                f"{where}: {names[place]} and {device.name} are one device ({device.host}, store {device.store}); "
                "take one of them out"
            )
        names[place] = device.name


def _table(tables: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise BadRequest(f"{where}: {name} is no table; write [{name}] and its fields below")
    return table


def _refuse_unknown(names: Iterable[str], known: Sequence[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise BadRequest(f"{where}: there is no field {name!r}; {_nearest(name, known)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
