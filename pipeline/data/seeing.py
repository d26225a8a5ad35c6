"""One pass over images: every pixel once, and what the files say that their pixels do not show."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.console.progress import bar
from pipeline.data.near_copies import MOST_PICTURES, Looks
from pipeline.data.preprocessing import SIXTEEN_BITS, orientation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from pipeline.data.part import Part
    from pipeline.data.preprocessing import Preprocessing

HASH_BYTES = 16
# The key of a decoded image's ``info`` by which its reader tells that the file has 16 bits a pixel and channel.
STORED_16 = "stored with 16 bits"
NOT_16 = -1


@dataclass(frozen=True)
class Seen:
    """What the pass saw of N images.

    ``digest`` is the SHA-256 over every pixel and label, ``pixels`` (N,) a hash of each image's pixels as the network
    sees them, ``orientation`` (N,) that of its EXIF, ``largest`` (N,) the largest of its 16-bit pixels or NOT_16, and
    ``looks`` what it looks like, None where nobody asked or there are too many.
    """

    digest: str
    pixels: NDArray[np.bytes_]
    orientation: NDArray[np.uint8]
    largest: NDArray[np.int32]
    looks: Looks | None


def all_of(part: Part, preprocessing: Preprocessing, *, looked_at: bool) -> Seen:
    """What the images of ``part`` are, looks too where they are ``looked_at``.

    Raises BadRequest naming one that cannot be read.
    """
    count = len(part)
    shape = (preprocessing.channels, preprocessing.input_size, preprocessing.input_size)
    sha256 = hashlib.sha256(repr(shape).encode() + part.labels.tobytes())
    hashes = np.empty(count, f"S{HASH_BYTES}")
    orientations = np.ones(count, np.uint8)
    largest = np.full(count, NOT_16, np.int32)
    looks = None
    if looked_at and count <= MOST_PICTURES:
        looks = Looks.empty(count, preprocessing.channels)
    with bar("reading images", count) as advance:
        for index in range(count):
            image = part.decode(index)
            name = part.name(index)
            if isinstance(image, np.ndarray):
                pixels = preprocessing.float_pixels(image, name)
            else:
                orientations[index] = orientation(image)
                largest[index] = largest_of_16_bits(image)
                picture = preprocessing.converted(preprocessing.turned(image), name)
                if looks is not None:
                    looks.add(index, picture)
                pixels = preprocessing.cropped(picture)
            content = pixels.tobytes()
            sha256.update(content)
            hashes[index] = hashlib.blake2b(content, digest_size=HASH_BYTES).digest()
            advance()
    return Seen(sha256.hexdigest(), hashes, orientations, largest, looks)


def largest_of_16_bits(image: Image.Image) -> int:
    """The largest of the pixels of ``image``, whose file has 16 bits of each; NOT_16 where it has not."""
    if image.mode in SIXTEEN_BITS:
        return int(np.asarray(image).max())
    if STORED_16 not in image.info:
        return NOT_16
    # In colour Pillow keeps the upper byte alone. What is transparent is no pixel.
    upper = int(np.asarray(image.convert("RGB")).max())
    return upper << 8 | 255
