"""Ed25519 verification in plain Python (RFC 8032, section 5.1): a JetPack has no library for it.

Public values only, so that the time it takes tells nobody anything. The equation is the one without the cofactor, and
every encoding must be canonical: what OpenSSL accepts, this accepts, and nothing more.
"""

from __future__ import annotations

import hashlib
from typing import Optional, Tuple

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)

# Extended coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, xy = T/Z.
Point = Tuple[int, int, int, int]
NEUTRAL: Point = (0, 1, 1, 0)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) of ``message`` is by the holder of ``public`` (32 bytes)."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key = _decoded(public)
    scalar = int.from_bytes(signature[32:], "little")
    # Without this bound a second signature of the same message can be made of the first (section 5.1.7, step 1).
    if key is None or scalar >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(digest, "little") % ORDER
    negative = (P - key[0], key[1], key[2], P - key[3])
    return _encoded(_weighted(scalar, BASE, challenge, negative)) == signature[:32]


def usable(public: bytes) -> bool:
    """Whether ``public`` is a point of a large order: under the eight others anyone can sign."""
    key = _decoded(public) if len(public) == 32 else None
    return key is not None and _encoded(_weighted(8, key, 0, key)) != _encoded(NEUTRAL)


def _recovered(y: int, odd: int) -> Optional[int]:
    """The x of the point with this ``y`` whose last bit is ``odd`` (section 5.1.3); None where there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_1 % P
    if (x * x - square) % P or (x == 0 and odd):
        return None
    return P - x if x % 2 != odd else x


def _decoded(content: bytes) -> Optional[Point]:
    number = int.from_bytes(content, "little")
    # The last bit is that of x, the others are y (section 5.1.2).
    odd = number >> 255
    y = number & (2**255 - 1)
    if y >= P:
        return None
    x = _recovered(y, odd)
    if x is None:
        return None
    return x, y, 1, x * y % P


def _encoded(point: Point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x = point[0] * inverse % P
    y = point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _add(one: Point, other: Point) -> Point:
    """The sum, of any two points (section 5.1.4)."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e = b - a
    f = d - c
    g = d + c
    h = b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _twice(point: Point) -> Point:
    """The same as adding ``point`` to itself, in fewer steps (section 5.1.4)."""
    a = point[0] ** 2 % P
    b = point[1] ** 2 % P
    c = 2 * point[2] ** 2
    h = a + b
    e = h - (point[0] + point[1]) ** 2
    g = a - b
    f = c + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def _weighted(a: int, one: Point, b: int, other: Point) -> Point:
    """``a`` times ``one`` and ``b`` times ``other``, added: bit by bit of both at once (Shamir's trick)."""
    table = (NEUTRAL, one, other, _add(one, other))
    total = NEUTRAL
    for place in reversed(range(max(a.bit_length(), b.bit_length()))):
        total = _twice(total)
        bits = (a >> place & 1) | (b >> place & 1) << 1
        if bits:
            total = _add(total, table[bits])
    return total


# The generator: y = 4/5 (section 5.1).
_BASE_Y = 4 * pow(5, P - 2, P) % P
_BASE_X = _recovered(_BASE_Y, 0) or 0
BASE: Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % P)
