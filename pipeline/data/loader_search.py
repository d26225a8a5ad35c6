"""Which faults, alone or together, make of every image what a loader made of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.conformance import LARGEST, MEAN
from pipeline.data.loader_faults import CHANNELS, CONTRACT, FRAME, HWC, LAYOUT, RESIZE, TURN, VALUES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pipeline.data.conformance import Vector
    from pipeline.data.preprocessing import Preprocessing

    Pixels = NDArray[np.float32]
    Undo = Callable[[Pixels], Pixels]
    Faults = tuple[str, ...]  # layout, values, channels, frame, resize, turn; empty where there is none

# Pixels of the first image that are looked at before all of all.
SAMPLED = 1024


def distance(answer: Pixels, expected: Pixels) -> tuple[float, float]:
    """The largest and the mean difference in levels; infinite between different shapes."""
    if answer.shape != expected.shape:
        return float("inf"), float("inf")
    differences = np.abs(answer - expected)
    return float(differences.max()), float(differences.mean())


def conforms(differences: tuple[float, float]) -> bool:
    """Whether a loader that is this far away, at most and in the mean, counts as the contract."""
    largest, mean = differences
    return largest <= LARGEST and mean <= MEAN


def explain(record: Preprocessing, vectors: list[Vector], answers: dict[str, Pixels]) -> list[list[str]]:
    """The smallest sets of faults that explain ``answers`` (image name to array); several where none tells them apart.

    One fault at most of each table. Empty where none explains every image within the bound of conforming, and far
    better than the contract does.
    """
    # Another layout shows in the shape already, and is put right before anything else is compared.
    layout_faults: list[str] = []
    if answers[vectors[0].name].shape != vectors[0].expected.shape:
        layout_faults = [HWC]
        answers = {name: answer.transpose(2, 0, 1) for name, answer in answers.items()}

    # Pairs of RESIZE and FRAME are many, and the image is made anew for each: only where single ones do not explain it.
    for pairs in (False, True):
        explanations = _smallest(record, vectors, answers, pairs=pairs)
        if explanations:
            break
    # Reversed, in the order in which a loader makes them: turn, resize, frame, channels, values, layout.
    return [[*layout_faults, *filter(None, reversed(faults))] for faults in explanations]


def _smallest(record: Preprocessing, vectors: list[Vector], answers: dict[str, Pixels], *, pairs: bool) -> list[Faults]:
    """The combinations of the fewest faults that explain every answer, ``pairs`` as :func:`_sampled` has it."""
    total = sum(distance(answers[vector.name], vector.expected)[1] for vector in vectors)
    smallest: list[Faults] = []
    candidates = _sampled(record, vectors[0], answers[vectors[0].name], pairs=pairs)
    # The first image has no EXIF: whether others were turned by it does not show in the sample.
    with_turns = [(*faults, turn) for faults, turn in product(candidates, ("", *TURN[record.exif]))]
    for faults in sorted(with_turns, key=_count):
        if smallest and _count(faults) > _count(smallest[0]):
            break
        rest = _rest(record, vectors, answers, faults)
        # A fault must halve what differs: near the contract, one that changes next to nothing conforms as well.
        if rest is not None and (not _count(faults) or rest <= total / 2):
            smallest.append(faults)
    return smallest


def _rest(record: Preprocessing, vectors: list[Vector], answers: dict[str, Pixels], faults: Faults) -> float | None:
    """What differs in all images together once ``faults`` are taken back; None where one does not conform."""
    rest = 0.0
    for vector in vectors:
        apart = _difference(record, vector, answers[vector.name], faults)
        if not conforms(apart):
            return None
        rest += apart[1]
    return rest


def _count(faults: Faults) -> int:
    return sum(map(bool, faults))


def _sampled(record: Preprocessing, vector: Vector, answer: Pixels, *, pairs: bool) -> Iterator[Faults]:
    """The combinations that fit a sample of one image; with ``pairs`` those of RESIZE and FRAME, else one at most."""
    sample = np.random.default_rng(0).permutation(record.input_size**2)[:SAMPLED]
    steps = []
    for frame, resize in product(("", *FRAME), ("", *RESIZE)):
        if bool(frame and resize) == pairs:
            steps.append((frame, resize))
    # (steps, C, sample): what a loader with each of these faults makes of the image.
    made = np.stack([_flat(_pixels(record, vector, frame, resize))[:, sample] for frame, resize in steps])

    undo_tables = layouts(record), values(record), channels(record)
    for (layout, turn), (value, rescale), (channel, reorder) in product(*(table.items() for table in undo_tables)):
        turned = _flat(turn(answer))[:, sample, None]  # (C, sample, 1), since mean and std are (C, 1, 1)
        undone = reorder(rescale(turned)[..., 0])
        fits = np.abs(made - undone).max((1, 2)) <= LARGEST
        for (frame, resize), is_near in zip(steps, fits, strict=True):
            if is_near:
                yield layout, value, channel, frame, resize


def _flat(pixels: Pixels) -> Pixels:
    return pixels.reshape(len(pixels), -1)


def _pixels(record: Preprocessing, vector: Vector, frame: str, resize: str, turn: str = "") -> Pixels:
    """What a loader with these faults makes of the image of ``vector``; an empty name is no fault."""
    steps: dict[str, Any] = {**FRAME.get(frame, {}), **TURN[record.exif].get(turn, {})}
    if resize:
        steps["resized"] = RESIZE[resize]
    return replace(CONTRACT, **steps)(record, vector.image)


def _difference(record: Preprocessing, vector: Vector, answer: Pixels, faults: Faults) -> tuple[float, float]:
    """How far ``answer`` is from what a loader with these faults answers; everything in levels of 0..255."""
    layout, value, channel, frame, resize, turn = faults
    turned = layouts(record)[layout](answer)
    rescaled = values(record)[value](turned)
    reordered = channels(record)[channel](rescaled)
    return distance(reordered, _pixels(record, vector, frame, resize, turn))


def layouts(record: Preprocessing) -> dict[str, Undo]:
    """LAYOUT, and no fault of it; one plane has the same bytes in either layout."""
    undo: dict[str, Undo] = {"": _unchanged, **LAYOUT}
    if record.channels == 1:
        del undo[HWC]
    return undo


def channels(record: Preprocessing) -> dict[str, Undo]:
    """CHANNELS, and no fault of it."""
    if record.channels == 3:
        return {"": _unchanged, **CHANNELS}
    return {"": _unchanged}


def values(record: Preprocessing) -> dict[str, Undo]:
    """The ways back from VALUES that exist for this mean and std, each once, and no fault of it."""
    mean = np.array(record.mean).reshape(-1, 1, 1)
    std = np.array(record.std).reshape(-1, 1, 1)
    different = [(np.ones_like(mean), np.zeros_like(mean))]  # the contract itself: scale 1, offset 0
    undo: dict[str, Undo] = {"": _unchanged}
    with np.errstate(divide="ignore", invalid="ignore"):  # a mean of 0 is not finite when swapped with std
        for name, row in VALUES.items():
            scale, offset = (np.broadcast_to(value, mean.shape) for value in row(mean, std))
            if not np.isfinite(scale).all() or not np.isfinite(offset).all():
                continue
            # Some rows are the same for this data: divided by one std for all channels, where they have one.
            if any(np.allclose(scale, other[0]) and np.allclose(offset, other[1]) for other in different):
                continue
            different.append((scale, offset))
            undo[name] = _rescaled(scale, offset)
    return undo


def _unchanged(pixels: Pixels) -> Pixels:
    return pixels


def _rescaled(scale: NDArray[np.float64], offset: NDArray[np.float64]) -> Undo:
    """The way back from pixels times ``scale`` plus ``offset``, each (C, 1, 1)."""

    def undo(pixels: Pixels) -> Pixels:
        return np.asarray((pixels - offset) / scale, np.float32)

    return undo
