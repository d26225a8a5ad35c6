"""What the members of a bundle must hold, beyond the bytes that were signed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Tuple

import numpy as np

from . import graph
from .errors import Refused

if TYPE_CHECKING:
    from .container import Bundle

DTYPES = {"<f4": np.float32, "|u1": np.uint8}
# The header as numpy writes it. Theirs is read by evaluating Python's literals, which deep nesting can crash.
HEADER = re.compile(rb"\{'descr': '([<|][fu][14])', 'fortran_order': False, 'shape': \(([0-9, ]{1,100})\), \} *\n")
LONGEST_TEXT = 2**22


def refuse(bundle: Bundle) -> None:
    """Raise Refused where any member is not what its name says, or does not fit the manifest."""
    model = bundle.manifest["model"]
    shape = tuple(model["input"])
    count = len(golden_images(bundle))
    for name in ("golden-reference.npy", "golden-judged.npy"):
        found = array(bundle, name)
        if found.shape != (count, model["classes"]) or found.dtype != np.float32 or not np.isfinite(found).all():
            raise Refused(f"{bundle.origin}: {name} has not {count} answers of {model['classes']} classes")
    for name in bundle.places:
        if name.startswith("vector-") and name.endswith(".npy") and array(bundle, name).shape != shape:
            raise Refused(f"{bundle.origin}: {name} has not the shape {shape} of the images")
    classes = parsed(bundle, "classes.json")
    if (
        not isinstance(classes, list)
        or len(classes) != model["classes"]
        or not all(isinstance(c, str) for c in classes)
    ):
        raise Refused(f"{bundle.origin}: classes.json has not the {model['classes']} names of the classes")
    for name in ("conformance.json", "compatibility.json"):
        if not isinstance(parsed(bundle, name), dict):
            raise Refused(f"{bundle.origin}: {name} holds no JSON object")
    graph.refuse(bundle.read("model.onnx"), f"{bundle.origin}: model.onnx")


def golden_images(bundle: Bundle) -> Any:
    """The images (N, C, H, W) that the engine is asked, in the type that it takes."""
    model = bundle.manifest["model"]
    found = array(bundle, "golden-images.npy")
    if found.ndim != 4 or not len(found) or found.shape[1:] != tuple(model["input"]):
        raise Refused(f"{bundle.origin}: golden-images.npy holds {found.shape}, not images of {model['input']}")
    return found.astype(model["dtype"])


def array(bundle: Bundle, name: str) -> Any:
    """The numpy array in a member; raises Refused where it is none of numbers, or larger than its bytes."""
    content = bundle.read(name)
    length = int.from_bytes(content[8:10], "little")
    header = HEADER.fullmatch(content[10 : 10 + length]) if content.startswith(b"\x93NUMPY\x01\x00") else None
    dtype = DTYPES.get(header.group(1).decode()) if header else None
    if header is None or dtype is None:
        raise Refused(f"{bundle.origin}: {name} is no array of float32 or uint8; make the bundle again")
    shape = _shape(header.group(2).decode())
    size = np.dtype(dtype).itemsize
    for each in shape:
        size *= each
    if size != len(content) - 10 - length:
        raise Refused(f"{bundle.origin}: {name} says the shape {shape}, and its bytes are others")
    return np.frombuffer(content, dtype, offset=10 + length).reshape(shape)


def _shape(text: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in text.replace(" ", "").split(",") if part)


def parsed(bundle: Bundle, name: str) -> Any:
    """The JSON in a member."""
    content = bundle.read(name)
    if len(content) > LONGEST_TEXT:
        raise Refused(f"{bundle.origin}: {name} is longer than {LONGEST_TEXT >> 20} MiB; make the bundle again")
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{bundle.origin}: {name} is no JSON; make the bundle again") from error
