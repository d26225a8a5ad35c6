"""Protobuf's wire format: the fields of a message one by one, without a schema and without a copy."""

from __future__ import annotations

from typing import Iterator, Tuple, Union

# Types of fields on the wire.
VARINT = 0
FIXED_64 = 1
LENGTH = 2
FIXED_32 = 5


def fields(content: memoryview) -> Iterator[Tuple[int, Union[int, memoryview]]]:
    """Each field of one message: its number, and its value, 0 where that is a number of a fixed length.

    Raises ValueError or IndexError where the message is broken.
    """
    place = 0
    end = len(content)
    while place < end:
        key, place = varint(content, place)
        number = key >> 3
        wire = key & 7
        value: Union[int, memoryview] = 0
        if wire == VARINT:
            value, place = varint(content, place)
        elif wire == FIXED_64:
            place += 8
        elif wire == FIXED_32:
            place += 4
        elif wire == LENGTH:
            length, place = varint(content, place)
            value = content[place : place + length]
            place += length
        else:
            raise ValueError(f"wire type {wire}")
        if place > end or number == 0:
            raise ValueError("cut short")
        yield number, value


def varint(content: memoryview, place: int) -> Tuple[int, int]:
    """The number of seven bits a byte that begins at ``place``, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number of more than ten bytes")
