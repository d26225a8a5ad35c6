"""Which faults, alone or together, make of every image what a loader made of it."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.conformance import LARGEST, MEAN
from pipeline.data.loader_faults import CHANNELS, CONTRACT, GEOMETRY, HWC, LAYOUT, VALUES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from PIL.Image import Image

    from pipeline.data.conformance import Vector
    from pipeline.data.preprocessing import Preprocessing

    Pixels = NDArray[np.float32]
    Undo = Callable[[Pixels], Pixels]
    Faults = tuple[str, str, str, str]  # layout, values, channels, geometry; empty where there is none

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
    if own and all(conforms(distance(answers[vector.name], vector.expected)) for vector in vectors):
        return [own]
    survivors = sorted(_sampled(record, vectors[0], answers[vectors[0].name]), key=_count)
    found: list[Faults] = []
    for faults in survivors:
        if found and _count(faults) > _count(found[0]):
            break
        explained = [_apart(record, vector, answers[vector.name], faults) for vector in vectors]
        if all(map(conforms, explained)) and sum(mean for _, mean in explained) <= apart / 2:
            found.append(faults)
    return [[*own, *filter(None, reversed(faults))] for faults in found]


def _count(faults: Faults) -> int:
    return sum(map(bool, faults))


def _sampled(record: Preprocessing, vector: Vector, answer: Pixels) -> Iterator[Faults]:
    """The combinations that fit a sample of one image."""
    sample = np.random.default_rng(0).permutation(record.input_size**2)[:SAMPLED]
    geometry = geometries()
    made = np.stack([_flat(way(record, vector.image))[:, sample] for way in geometry.values()])
    tables = layouts(record), values(record), channels(record)
    for (layout, turned), (value, levels), (channel, ordered) in product(*(table.items() for table in tables)):
        seen = ordered(levels(_flat(turned(answer))[:, sample, None])[..., 0])
        near = np.abs(made - seen).max((1, 2)) <= LARGEST
        yield from ((layout, value, channel, name) for name, fits in zip(geometry, near, strict=True) if fits)


def _flat(pixels: Pixels) -> Pixels:
    return pixels.reshape(len(pixels), -1)


def _apart(record: Preprocessing, vector: Vector, answer: Pixels, faults: Faults) -> tuple[float, float]:
    layout, value, channel, geometry = faults
    levels = channels(record)[channel](values(record)[value](layouts(record)[layout](answer)))
    return distance(levels, geometries()[geometry](record, vector.image))


def geometries() -> dict[str, Callable[[Preprocessing, Image], Pixels]]:
    """GEOMETRY, and no fault of it."""
    return {"": CONTRACT, **GEOMETRY}


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
