"""What the members of a bundle must hold, beyond the bytes that were signed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Dict, Tuple

import numpy as np

from . import graph
from .errors import Refused

if TYPE_CHECKING:
    from .container import Bundle

# NumPy's magic and version 1.0 of the format, and the length of the header in two bytes.
NPY = b"\x93NUMPY\x01\x00"
PREAMBLE = len(NPY) + 2
DTYPES = {"<f4": np.float32, "|u1": np.uint8}
# The header as numpy writes it. Theirs is read by evaluating Python's literals, which deep nesting can crash.
HEADER = re.compile(rb"\{'descr': '([<|][fu][14])', 'fortran_order': False, 'shape': \(([0-9, ]{1,100})\), \} *\n")
LONGEST_TEXT = 2**22  # bytes of JSON: it is read as a whole


def refuse(bundle: Bundle) -> None:
    """Raise Refused where any member is not what its name says, or does not fit the manifest."""
    model = bundle.manifest["model"]
    _refuse_arrays(bundle, model)
    if not _names_of_classes(parsed(bundle, "classes.json"), model["classes"]):
        raise Refused(f"{bundle.origin}: classes.json has not the {model['classes']} names of the classes")
    for name in ("conformance.json", "compatibility.json"):
        if not isinstance(parsed(bundle, name), dict):
            raise Refused(f"{bundle.origin}: {name} holds no JSON object")
    graph.refuse(bundle.read("model.onnx"), f"{bundle.origin}: model.onnx")


def _refuse_arrays(bundle: Bundle, model: Dict[str, Any]) -> None:
    """Raise Refused where the golden answers or the vectors have not the shapes that the manifest says."""
    count = len(golden_images(bundle))
    for name in ("golden-reference.npy", "golden-judged.npy"):
        answers = array(bundle, name)
        fits = answers.shape == (count, model["classes"]) and answers.dtype == np.float32
        if not fits or not np.isfinite(answers).all():
            raise Refused(f"{bundle.origin}: {name} has not {count} answers of {model['classes']} classes")

    image_shape = tuple(model["input"])
    for name in bundle.places:
        is_vector = name.startswith("vector-") and name.endswith(".npy")
        if is_vector and array(bundle, name).shape != image_shape:
            raise Refused(f"{bundle.origin}: {name} has not the shape {image_shape} of the images")


def _names_of_classes(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(isinstance(name, str) for name in value)


def golden_images(bundle: Bundle) -> Any:
    """The images (N, C, H, W) that the engine is asked, in the type that it takes."""
    model = bundle.manifest["model"]
    images = array(bundle, "golden-images.npy")
    if images.ndim != 4 or not len(images) or images.shape[1:] != tuple(model["input"]):
        raise Refused(f"{bundle.origin}: golden-images.npy holds {images.shape}, not images of {model['input']}")
    return images.astype(model["dtype"])


def array(bundle: Bundle, name: str) -> Any:
    """The numpy array in a member; raises Refused where it is none of numbers, or larger than its bytes."""
    content = bundle.read(name)
    start = PREAMBLE + int.from_bytes(content[PREAMBLE - 2 : PREAMBLE], "little")
    header = HEADER.fullmatch(content[PREAMBLE:start]) if content.startswith(NPY) else None
    dtype = DTYPES.get(header.group(1).decode()) if header else None
    if header is None or dtype is None:
        raise Refused(f"{bundle.origin}: {name} is no array of float32 or uint8; make the bundle again")

    shape = _shape(header.group(2).decode())
    # Python's integers: the product of a shape that no file holds does not overflow.
    size = np.dtype(dtype).itemsize
    for length in shape:
        size *= length
    if size != len(content) - start:
        raise Refused(f"{bundle.origin}: {name} says the shape {shape}, and its bytes are others")
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _shape(text: str) -> Tuple[int, ...]:
    lengths = text.replace(" ", "").split(",")
    return tuple(int(length) for length in lengths if length)


def parsed(bundle: Bundle, name: str) -> Any:
    """The JSON in a member."""
    content = bundle.read(name)
    if len(content) > LONGEST_TEXT:
        raise Refused(f"{bundle.origin}: {name} is longer than {LONGEST_TEXT >> 20} MiB; make the bundle again")
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{bundle.origin}: {name} is no JSON; make the bundle again") from error
