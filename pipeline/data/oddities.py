"""What is odd about the images of a build, in sentences: they warn, and decide nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.console import news
from pipeline.data import overlap
from pipeline.data.near_copies import MOST_PICTURES
from pipeline.data.preprocessing import APPLY, IGNORE
from pipeline.data.seeing import NOT_16

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.data.part import Part

NAMED = 3
# Of 0..65535: images of which no pixel is above have 13 bits or fewer, in files of 16.
EIGHTH = 65535 // 8
DONE = {IGNORE: "ignored here, and --exif apply would turn them", APPLY: "turned here, by --exif apply"}


def say_left_out(*parts: Part) -> None:
    """One line of news where hidden images lie beside those of ``parts``."""
    for sentence in left_out(*parts):
        news.say(sentence)


def left_out(*parts: Part) -> Iterator[str]:
    """How many hidden images lie beside those of ``parts``, if any."""
    # Calibration is a part of training.
    names = list(dict.fromkeys(name for part in parts for name in part.left_out))
    if names:
        yield f"{_counted(len(names), 'hidden image')} left out, such as {', '.join(names[:NAMED])}"


def of_images(train: Part, test: Images, calibration: Images | None = None) -> list[str]:
    """A sentence for each oddity of the images that train, judge and calibrate."""
    sentences = [
        *_copies(test),
        *_contradictions(test),
        *_near_copies(test),
        *_train_in_test(train, test.part),
    ]
    decoded = {"test": test}
    if calibration is not None:
        decoded["calibration"] = calibration
        sentences += _calibration_in_test(calibration, test)
    sentences += _turns(decoded)
    for kind, images in decoded.items():
        sentences += _few_of_16_bits(images, kind)
    return sentences


def _copies(test: Images) -> Iterator[str]:
    copies = np.flatnonzero(~test.distinct)
    if not len(copies):
        return
    _, firsts, group = np.unique(test.seen.pixels, return_index=True, return_inverse=True)
    some = ", ".join(f"{test.part.name(copy)} ({test.part.name(firsts[group[copy]])})" for copy in copies[:NAMED])
    distinct = len(test) - len(copies)
    counted = f"{len(copies)} of {len(test)} test images have the pixels of an earlier one, as the network sees them"
    left = "all show the same and judge nothing" if distinct == 1 else f"{distinct} are distinct"
    yield f"{counted}, such as {some}; {left}"


def _contradictions(test: Images) -> Iterator[str]:
    _, group = np.unique(test.seen.pixels, return_inverse=True)
    # Of each group of the same pixels the smallest and the largest label.
    smallest = np.full(group.max() + 1, np.iinfo(np.int64).max)
    largest = np.full(group.max() + 1, np.iinfo(np.int64).min)
    np.minimum.at(smallest, group, test.labels)
    np.maximum.at(largest, group, test.labels)
    at_odds = np.flatnonzero((smallest != largest)[group])
    if len(at_odds):
        # Side by side, those of one group.
        at_odds = at_odds[np.argsort(group[at_odds], kind="stable")]
        yield (
            f"{len(at_odds)} test images have the pixels of one with another label, such as "
            f"{_named(test.part, at_odds)}: these labels contradict each other"
        )


def _near_copies(test: Images) -> Iterator[str]:
    looks = test.seen.looks
    if looks is None:
        if len(test) > MOST_PICTURES:
            yield f"{len(test)} test images are too many to look for near copies: at most {MOST_PICTURES} are looked at"
        return
    pairs = looks.pairs(test.distinct)
    if not len(pairs):
        return
    later, first_pairs = np.unique(pairs[:, 1], return_index=True)
    earlier = pairs[first_pairs[0], 0]
    yield (
        f"{len(later)} of {len(test)} test images are near copies of others, told by a perceptual hash, such as "
        f"{test.part.name(later[0])} ({test.part.name(earlier)}); they count as images of their own"
    )


def _calibration_in_test(calibration: Images, test: Images) -> Iterator[str]:
    shared = np.flatnonzero(np.isin(calibration.seen.pixels, test.seen.pixels))
    if len(shared):
        yield (
            f"{len(shared)} of {len(calibration)} calibration images have the pixels of a test image, such as "
            f"{_named(calibration.part, shared)}: what calibrates should not judge"
        )


def _train_in_test(train: Part, test: Part) -> Iterator[str]:
    found = overlap.of_bytes(train, test)
    if found.pairs:
        some = ", ".join(f"{test.name(there)} ({train.name(here)})" for here, there in found.pairs[:NAMED])
        yield (
            f"{len(found.pairs)} of {len(test)} test images are among the {len(train)} training images byte for byte, "
            f"such as {some}; only stored bytes were compared"
        )
    if found.read < found.sized:
        yield (
            f"only {found.read} of the {found.sized} training images that have the size of a test image were compared "
            "with the test images, byte for byte"
        )


def _turns(kinds: dict[str, Images]) -> Iterator[str]:
    counts = []
    names = []
    for kind, images in kinds.items():
        turned = np.flatnonzero(images.seen.orientation != 1)
        if len(turned):
            counts.append(f"{len(turned)} of {len(images)} {kind} images")
            names.append(images.part.name(turned[0]))
    if counts:
        done = DONE[kinds["test"].preprocessing.exif]
        yield (
            f"{' and '.join(counts)} carry an EXIF turn, such as {names[0]}: {done}; torchvision's ImageFolder "
            "(Pillow) ignores it, OpenCV's imread turns, a camera or a hardware decoder gives the pixels as stored: do "
            "what the training's reader did"
        )


def _few_of_16_bits(images: Images, which: str) -> Iterator[str]:
    of_16_bits = images.seen.largest[images.seen.largest != NOT_16]
    if not len(of_16_bits) or of_16_bits.max() > EIGHTH:
        return
    largest = int(of_16_bits.max())
    counted = _counted(len(of_16_bits), f"{which} image")
    yield (
        f"the largest pixel of {counted} of 16 bits is {largest} of 65535, so that the network sees "
        f"0..{round(largest / 257)} of 255: if they hold {largest.bit_length()} bits, save them scaled to 16"
    )


def _named(part: Part, indices: NDArray[np.int64]) -> str:
    """The names of the first few of these images."""
    return ", ".join(part.name(int(index)) for index in indices[:NAMED])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
