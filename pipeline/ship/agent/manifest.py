"""What a manifest may say: every field, its type and its range. A signed one is held to it as well."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict

from .errors import Refused

Manifest = Dict[str, Any]
Check = Callable[[Any], bool]

SCHEMA = 1
NAME = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
MOST_MEMBERS = 256
LARGEST = 2**31  # bytes of one member, and of all of them
LATEST = 2**40  # seconds since 1970

PRECISIONS = ("fp32", "fp16", "int8", "int8-trt8", "int8-fp16", "fp8")
# The members that a bundle must have, and those that it may have.
REQUIRED = (
    "model.onnx",
    "classes.json",
    "conformance.json",
    "golden-images.npy",
    "golden-judged.npy",
    "golden-reference.npy",
    "compatibility.json",
    "licence.txt",
    "card.md",
)
OPTIONAL = re.compile(r"vector-[a-z0-9-]+\.(png|npy)|timing-[a-z0-9-]+\.cache|agent\.pyz")


def _whole(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _number(least: float, most: float) -> Check:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _text(pattern: str) -> Check:
    form = re.compile(pattern)
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _batches(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_whole(1, 2**16), value)) and sorted(value) == value


def _shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_whole(1, 4096), value))


_DOTTED = _text(r"\d{1,4}(\.\d{1,4}){0,3}")
FIELDS: Dict[str, Check] = {
    "schema": _whole(SCHEMA, SCHEMA),
    "name": _text(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}"),
    "released": _whole(0, LATEST),
    "expires": _maybe(_whole(0, LATEST)),
    "signer": _text(r"[0-9a-f]{16}"),
    "members": lambda value: isinstance(value, list) and 0 < len(value) <= MOST_MEMBERS,
    "model": lambda value: isinstance(value, dict),
    "bounds": lambda value: isinstance(value, dict),
}
MEMBER: Dict[str, Check] = {
    "name": lambda value: isinstance(value, str) and NAME.fullmatch(value) is not None,
    "size": _whole(0, LARGEST),
    "sha256": lambda value: isinstance(value, str) and DIGEST.fullmatch(value) is not None,
}
MODEL: Dict[str, Check] = {
    "arch": _text(r"[A-Za-z0-9_.:/-]{1,100}"),
    "precision": lambda value: value in PRECISIONS,
    "opset": _whole(7, 99),
    "input": _shape,  # channels, height, width
    "dtype": lambda value: value in ("float32", "uint8"),
    "classes": _whole(2, 10**6),
    "batches": _batches,  # images per run: least, best, most
    "target": _maybe(_text(r"[a-z0-9-]+(@jp[0-9.]+)?")),
    "tensorrt": _maybe(_DOTTED),
}
BOUNDS: Dict[str, Check] = {
    "sqnr_db": _number(-100, 400),  # median over the goldens, against the PyTorch network
    "judged_db": _number(-100, 400),  # the same, against the file where it was judged; in batches of any size
    "agreement": _number(0, 1),  # goldens with the top-1 answer of the PyTorch network
    "latency_ms": _maybe(_number(1e-6, 1e9)),  # 99 % of the runs of the smallest batch
    "top1": _number(0, 1),  # measured where it was judged, on this many images
    "images": _whole(1, 10**9),
}


def parsed(content: bytes, origin: str) -> Manifest:
    """The manifest in these bytes; raises Refused unless it is canonical JSON and every field is as it must be."""
    try:
        found = json.loads(content.decode("ascii"))
        canonical = encoded(found) == content
    except (ValueError, RecursionError, TypeError):
        canonical = False
    if not canonical:
        raise Refused(f"{origin}: its manifest is no canonical JSON; make the bundle again with bundle create")
    _hold(found, FIELDS, origin, "manifest")
    _hold(found["model"], MODEL, origin, "model")
    _hold(found["bounds"], BOUNDS, origin, "bounds")
    for member in found["members"]:
        _hold(member, MEMBER, origin, "member")
    _hold_members([member["name"] for member in found["members"]], origin)
    if sum(member["size"] for member in found["members"]) > LARGEST:
        raise Refused(f"{origin}: its members are larger than {LARGEST >> 30} GiB together; nothing of it is used")
    return dict(found)


def encoded(value: Any) -> bytes:
    """The one way to write ``value``: sorted keys, no blanks, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def _hold(found: Any, fields: Dict[str, Check], origin: str, what: str) -> None:
    if not isinstance(found, dict) or set(found) != set(fields):
        keys = sorted(found) if isinstance(found, dict) else []
        wrong = sorted(set(keys) ^ set(fields))
        raise Refused(
            f"{origin}: its {what} lacks or has too much: {', '.join(map(repr, wrong[:5]))}; "
            "make the bundle with the version of bundle create that belongs to this agent"
        )
    for name, check in fields.items():
        if not check(found[name]):
            said = repr(found[name])[:60]
            raise Refused(f"{origin}: {name} of its {what} is {said}, which makes no sense; make the bundle again")


def _hold_members(names: Any, origin: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    unknown = [name for name in names if name not in REQUIRED and not OPTIONAL.fullmatch(name)]
    lacking = [name for name in REQUIRED if name not in names]
    for wrong, what in ((twice, "is there twice"), (unknown, "is no member of a bundle"), (lacking, "is missing")):
        if wrong:
            raise Refused(f"{origin}: {wrong[0]} {what}; make the bundle again with bundle create")
