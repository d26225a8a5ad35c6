"""What a manifest may say: every field, its type and its range. A signed one is held to it as well."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List

from .errors import Refused

Manifest = Dict[str, Any]
Check = Callable[[Any], bool]

SCHEMA = 1
NAME = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
MOST_MEMBERS = 256
LARGEST = 2**31  # bytes of one member, and of all of them
LATEST = 2**40  # seconds since 1970
MOST_FLAGS = 8
LONGEST_NAME = 200  # characters of a class's
TOLD = 5  # fields that a sentence names at most

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
    # By type and not isinstance: True is an int in Python.
    return lambda value: type(value) is int and least <= value <= most


def _number(least: float, most: float) -> Check:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _text(pattern: str) -> Check:
    form = re.compile(pattern)
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


def _one_of(*words: str) -> Check:
    return lambda value: value in words


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list(check: Check, least: int, most: int) -> Check:
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(check, value))


_three_batches = _list(_whole(1, 2**16), 3, 3)


def _batches(value: Any) -> bool:
    return _three_batches(value) and sorted(value) == value


_DOTTED = _text(r"\d{1,4}(\.\d{1,4}){0,3}")
_KIND = _text(r"[a-z0-9-]{1,40}")
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
    # Its name is for people; what it needs of a device is in the next five.
    "precision": _KIND,
    "typing": _one_of("any", "weak", "strong"),  # which TensorRT keeps its types
    "weak_flags": _maybe(_list(_text(r"[A-Z0-9_]{1,40}"), 0, MOST_FLAGS)),  # of the builder of a weakly typed one
    "computes_in": _KIND,  # the type of the units that it needs, in the words of compatibility.json
    "number_format": _maybe(_KIND),  # what Q/DQ pairs round to, None where there are none
    "scales": _one_of("float32", "float16"),  # the type of the scales of these pairs
    "opset": _whole(7, 99),
    "input": _list(_whole(1, 4096), 3, 3),  # channels, height, width
    "dtype": _one_of("float32", "uint8"),
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
    "worst_class": _maybe(lambda value: isinstance(value, dict)),
}
# Bundles that were made before there was such a field lack it, and say nothing of it.
NEWER = {"worst_class"}
# The class that lost most for certain against PyTorch, where it was judged; None where no loss was asked for.
WORST_CLASS: Dict[str, Check] = {
    "name": lambda value: isinstance(value, str) and len(value) <= LONGEST_NAME and value.isprintable(),
    "images": _whole(1, 10**9),
    "lost": _whole(0, 10**9),
    "gained": _whole(0, 10**9),
    "lower": _number(-1, 1),  # of its loss of top-1, with those of all classes
    "upper": _number(-1, 1),
    "at_most": _number(-1, 1),  # what no class lost more than
}


def parsed(content: bytes, origin: str) -> Manifest:
    """The manifest in these bytes; raises Refused unless it is canonical JSON and every field is as it must be."""
    try:
        manifest = json.loads(content.decode("ascii"))
        canonical = encoded(manifest) == content
    except (ValueError, RecursionError, TypeError):
        canonical = False
    if not canonical:
        raise Refused(f"{origin}: its manifest is no canonical JSON; make the bundle again with bundle create")

    _hold(manifest, FIELDS, origin, "manifest")
    _hold(manifest["model"], MODEL, origin, "model")
    _hold_typing(manifest["model"], origin)
    _hold(manifest["bounds"], BOUNDS, origin, "bounds")
    _hold_worst_class(manifest["bounds"].get("worst_class"), origin)
    for member in manifest["members"]:
        _hold(member, MEMBER, origin, "member")
    _hold_members([member["name"] for member in manifest["members"]], origin)
    if sum(member["size"] for member in manifest["members"]) > LARGEST:
        raise Refused(f"{origin}: its members are larger than {LARGEST >> 30} GiB together; nothing of it is used")
    return dict(manifest)


def encoded(value: Any) -> bytes:
    """The one way to write ``value``: sorted keys, no blanks, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def _hold(row: Any, fields: Dict[str, Check], origin: str, what: str) -> None:
    """Raise Refused unless ``row`` has exactly these fields, but for newer ones, each as its check wants it."""
    keys = set(row) if isinstance(row, dict) else set()
    wrong = sorted((keys ^ set(fields)) - (NEWER - keys))
    if wrong:
        raise Refused(
            f"{origin}: its {what} lacks or has too much: {', '.join(map(repr, wrong[:TOLD]))}; "
            "make the bundle with the version of bundle create that belongs to this agent"
        )
    for name in row:
        if not fields[name](row[name]):
            shown = repr(row[name])[:60]
            raise Refused(f"{origin}: {name} of its {what} is {shown}, which makes no sense; make the bundle again")


def _hold_typing(model: Dict[str, Any], origin: str) -> None:
    """Raise Refused unless there are flags for weak typing exactly where weak typing may keep the types."""
    strong_only = model["typing"] == "strong"
    if (model["weak_flags"] is None) != strong_only:
        raise Refused(
            f"{origin}: weak_flags of its model is {model['weak_flags']}, which makes no sense where its typing is "
            f"{model['typing']}; make the bundle again"
        )


def _hold_worst_class(worst: Any, origin: str) -> None:
    """Raise Refused unless it is a class that can be: no more answers changed than there are images."""
    if worst is None:
        return
    _hold(worst, WORST_CLASS, origin, "worst_class")
    if worst["lost"] + worst["gained"] > worst["images"] or worst["lower"] > worst["upper"]:
        raise Refused(
            f"{origin}: worst_class has {worst['lost']} lost and {worst['gained']} gained of {worst['images']} images, "
            f"between {worst['lower']:g} and {worst['upper']:g}, which makes no sense; make the bundle again"
        )


def _hold_members(names: List[str], origin: str) -> None:
    """Raise Refused where a member is there twice, is none of a bundle, or is missing."""
    twice = sorted({name for name in names if names.count(name) > 1})
    unknown = [name for name in names if name not in REQUIRED and not OPTIONAL.fullmatch(name)]
    lacking = [name for name in REQUIRED if name not in names]
    for wrong, what in ((twice, "is there twice"), (unknown, "is no member of a bundle"), (lacking, "is missing")):
        if wrong:
            raise Refused(f"{origin}: {wrong[0]} {what}; make the bundle again with bundle create")
