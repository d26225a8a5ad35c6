"""Which faults, alone or together, make of every image what a loader made of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.conformance import LARGEST, MEAN
from pipeline.data.loader_faults import CHANNELS, CONTRACT, FRAME, HWC, LAYOUT, RESIZE, VALUES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pipeline.data.conformance import Vector
    from pipeline.data.preprocessing import Preprocessing

    Pixels = NDArray[np.float32]
    Undo = Callable[[Pixels], Pixels]
    Faults = tuple[str, str, str, str, str]  # layout, values, channels, frame, resize; empty where there is none

# Pixels of the first image that are looked at before all of all.
SAMPLED = 1024


def distance(answer: Pixels, expected: Pixels) -> tuple[float, float]:
    """The largest and the mean difference in levels; infinite between different shapes."""
    if answer.shape != expected.shape:
        return float("inf"), float("inf")
    apart = np.abs(answer - expected)
    return float(apart.max()), float(apart.mean())


def conforms(apart: tuple[float, float]) -> bool:
    """Whether a loader that is this far away counts as the contract."""
    return apart[0] <= LARGEST and apart[1] <= MEAN


def explain(record: Preprocessing, vectors: list[Vector], answers: dict[str, Pixels]) -> list[list[str]]:
    """The smallest sets of faults that explain ``answers`` (image name to array); several where none tells them apart.

    One fault at most of each table. Empty where none explains every image within the bound of conforming, and far
    better than the contract does.
    """
    own = [HWC] if answers[vectors[0].name].shape != vectors[0].expected.shape else []
    if own:
        answers = {name: answer.transpose(2, 0, 1) for name, answer in answers.items()}
    apart = sum(distance(answers[vector.name], vector.expected)[1] for vector in vectors)
    for pairs in (False, True):
        found: list[Faults] = []
        for faults in sorted(_sampled(record, vectors[0], answers[vectors[0].name], pairs=pairs), key=_count):
            if found and _count(faults) > _count(found[0]):
                break
            explained = [_apart(record, vector, answers[vector.name], faults) for vector in vectors]
            better = not _count(faults) or sum(mean for _, mean in explained) <= apart / 2
            if all(map(conforms, explained)) and better:
                found.append(faults)
        if found:
            return [[*own, *filter(None, reversed(faults))] for faults in found]
    return []


def _count(faults: Faults) -> int:
    return sum(map(bool, faults))


def _sampled(record: Preprocessing, vector: Vector, answer: Pixels, *, pairs: bool) -> Iterator[Faults]:
    """The combinations that fit a sample of one image; with ``pairs`` those of RESIZE and FRAME, else one at most."""
    sample = np.random.default_rng(0).permutation(record.input_size**2)[:SAMPLED]
    ways = [(frame, resize) for frame in ("", *FRAME) for resize in ("", *RESIZE) if bool(frame and resize) == pairs]
    made = np.stack([_flat(_pixels(record, vector, *way))[:, sample] for way in ways])
    tables = layouts(record), values(record), channels(record)
    for (layout, turned), (value, levels), (channel, ordered) in product(*(table.items() for table in tables)):
        seen = ordered(levels(_flat(turned(answer))[:, sample, None])[..., 0])
        near = np.abs(made - seen).max((1, 2)) <= LARGEST
        yield from ((layout, value, channel, *way) for way, fits in zip(ways, near, strict=True) if fits)


def _flat(pixels: Pixels) -> Pixels:
    return pixels.reshape(len(pixels), -1)


def _pixels(record: Preprocessing, vector: Vector, frame: str, resize: str) -> Pixels:
    other: dict[str, Any] = {"resized": RESIZE[resize]} if resize else {}
    return replace(CONTRACT, **FRAME.get(frame, {}), **other)(record, vector.image)


def _apart(record: Preprocessing, vector: Vector, answer: Pixels, faults: Faults) -> tuple[float, float]:
    layout, value, channel, *way = faults
    levels = channels(record)[channel](values(record)[value](layouts(record)[layout](answer)))
    return distance(levels, _pixels(record, vector, *way))


def layouts(record: Preprocessing) -> dict[str, Undo]:
    """LAYOUT, and no fault of it; one plane has the same bytes in either layout."""
    return {"": lambda a: a} | {name: undo for name, undo in LAYOUT.items() if record.channels > 1 or name != HWC}


def channels(record: Preprocessing) -> dict[str, Undo]:
    """CHANNELS, and no fault of it."""
    return {"": lambda a: a} | (CHANNELS if record.channels == 3 else {})


def values(record: Preprocessing) -> dict[str, Undo]:
    """The ways back from VALUES that exist for this mean and std, each once, and no fault of it."""
    mean, std = (np.array(value).reshape(-1, 1, 1) for value in (record.mean, record.std))
    seen = [(np.ones_like(mean), np.zeros_like(mean))]
    found: dict[str, Undo] = {"": lambda a: a}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, row in VALUES.items():
            scale, offset = (np.broadcast_to(value, mean.shape) for value in row(mean, std))
            new = not any(np.allclose(scale, s) and np.allclose(offset, o) for s, o in seen)
            if new and np.isfinite(scale).all() and np.isfinite(offset).all():
                seen.append((scale, offset))
                found[name] = lambda a, s=scale, o=offset: ((a - o) / s).astype(np.float32)  # type: ignore[misc]
    return found
