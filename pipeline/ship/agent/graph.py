"""What an ONNX file refers to, read without the onnx package: protobuf's wire format, and only lengths of it."""

from __future__ import annotations

from typing import Dict, Iterator, Tuple

from exporters.portable import wire

from .errors import Refused

# For each kind of message, the fields that hold another kind (onnx.proto3).
HOLDS: Dict[str, Dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
# Fields of a tensor.
EXTERNAL_DATA = 13
DATA_LOCATION = 14
DEEPEST = 50  # messages in messages


def refuse(content: bytes, origin: str) -> None:
    """Raise Refused unless ``content`` is an ONNX model with a node, all of whose tensors are in it."""
    seen = set()
    try:
        for kind, field, value in _walk(memoryview(content), "model", 0):
            seen.add((kind, field))
            # Data elsewhere could be any file of the device.
            if kind != "tensor":
                continue
            if field == EXTERNAL_DATA or (field == DATA_LOCATION and value):
                raise Refused(f"{origin}: a tensor's data is in another file; write the ONNX with all data in it")
    except (IndexError, ValueError) as error:
        raise Refused(f"{origin}: it is no ONNX file ({error}); make the bundle again") from error
    if ("graph", 1) not in seen:
        raise Refused(f"{origin}: it is an ONNX file without a single node; make the bundle again")


def _walk(content: memoryview, kind: str, depth: int) -> Iterator[Tuple[str, int, int]]:
    """Each field as (kind of message, number of the field, its value where it is a number)."""
    if depth > DEEPEST:
        raise ValueError("its graphs are nested too deep")
    for field, value in wire.fields(content):
        number = value if isinstance(value, int) else 0
        yield kind, field, number
        inner = HOLDS[kind].get(field)
        if inner is not None:
            if isinstance(value, int):
                raise ValueError("a number where a message belongs")
            yield from _walk(value, inner, depth + 1)
