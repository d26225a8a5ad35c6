"""What dlib's own files hold: the arrays behind the name of each kind of layer, in the order of computing.

The format is that of dlib/serialize.h and dlib/dnn/layers.h: a whole number is a byte of its length, whose highest bit
is the sign, and then its bytes from the lowest; a tensor is its version, four dimensions and float32 from the lowest.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Layer = tuple[str, NDArray[np.float32]]

# Layers with numbers, by what their names begin with; behind a name a fully connected layer has two whole numbers.
LAYERS = re.compile(rb"con_[45]|affine_|fc_2")
WHOLE_NUMBERS = {"fc_2": 2}
TENSOR_VERSION = 2
LENGTH = 0x0F
SIGN = 0x80


def layers(content: bytes) -> Iterator[Layer]:
    """The name and the numbers of every layer that has some; raises ValueError where there is no tensor behind one."""
    at = 0
    while match := LAYERS.search(content, at):
        name = match.group().decode()
        at = match.end()
        for _ in range(WHOLE_NUMBERS.get(name, 0)):
            _, at = _whole_number(content, at)
        values, at = _tensor(content, at)
        yield name, values


def _tensor(content: bytes, at: int) -> tuple[NDArray[np.float32], int]:
    version, at = _whole_number(content, at)
    if version != TENSOR_VERSION:
        raise ValueError(f"there is a tensor of version {version} at byte {at}, and only {TENSOR_VERSION} is read")
    sizes = []
    for _ in range(4):
        size, at = _whole_number(content, at)
        sizes.append(size)
    values = np.frombuffer(content, "<f4", math.prod(sizes), at)
    return values.reshape(sizes), at + values.nbytes


def _whole_number(content: bytes, at: int) -> tuple[int, int]:
    """The number at this byte, and where it ends."""
    length = content[at] & LENGTH
    end = at + 1 + length
    value = int.from_bytes(content[at + 1 : end], "little")
    return -value if content[at] & SIGN else value, end
