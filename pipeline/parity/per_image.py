"""What is kept of the answers of one file to every image: all that is judged is derived from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.parity.drift import AT_ONCE, Distance, distance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# Answers that count as right where the class is anywhere among them.
FIRST = 5
# Names of what is kept of the step from the file before begin with this.
STEP = "step_"


@dataclass(frozen=True)
class Answers:
    """Of every image, (N,): the class answered, and whether the right one is among the first five.

    In float32 the softmax of that answer (``probability``), how far its logit is ahead of the next (``lead``), and the
    largest ``magnitude`` of a logit.
    """

    top1: NDArray[np.int32]
    top5: NDArray[np.bool_]
    probability: Floats
    lead: Floats
    magnitude: Floats

    def of(self, places: NDArray[np.int64]) -> Answers:
        """The same of these images."""
        return Answers(*(values[places] for values in vars(self).values()))


def answers(logits: Floats, labels: NDArray[np.int64]) -> Answers:
    """Of ``logits`` (N, classes), where ``labels`` (N,) are right."""
    count = len(logits)
    found = Answers(
        np.empty(count, np.int32),
        np.empty(count, np.bool_),
        *(np.empty(count, np.float32) for _ in range(3)),
    )
    rows = max(1, AT_ONCE // logits.shape[1])
    for start in range(0, count, rows):
        some = slice(start, start + rows)
        values = logits[some]
        first = values.max(axis=1)
        found.top1[some] = values.argmax(axis=1)
        found.top5[some] = _rank(values, labels[some]) < FIRST
        found.probability[some] = 1 / np.exp(values - first[:, None], dtype=np.float64).sum(axis=1)
        found.lead[some] = first - _second(values)
        found.magnitude[some] = np.maximum(first, -values.min(axis=1))
    return found


def _rank(values: Floats, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many logits of each row stand before that of its label: larger ones, and equal ones further left."""
    own = np.take_along_axis(values, labels[:, None], axis=1)
    further_left = np.arange(values.shape[1]) < labels[:, None]
    return np.asarray(((values > own) | ((values == own) & further_left)).sum(axis=1))


def _second(values: Floats) -> Floats:
    """The second largest logit of each row; of one class alone that one."""
    if values.shape[1] < 2:
        return values[:, 0]
    return np.asarray(np.partition(values, -2, axis=1)[:, -2])


@dataclass(frozen=True)
class PerImage:
    """The answers of one file, how far they lie from those of the frozen network, and from those of the file before."""

    answers: Answers
    drift: Distance
    step: Distance

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of them (N,), by name."""
        named = dict(vars(self.answers)) | dict(vars(self.drift))
        named |= {STEP + name: values for name, values in vars(self.step).items()}
        return {name: values for name, values in named.items() if values is not None}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> PerImage:
        """Those that ``arrays`` gave; raises KeyError where one is missing that every version with any of them kept."""
        return cls(
            Answers(**{field.name: arrays[field.name] for field in fields(Answers)}),
            _distance(arrays, ""),
            _distance(arrays, STEP),
        )


def _distance(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Distance:
    """The distance whose figures have names in ``arrays`` that begin with ``prefix``."""
    return Distance(
        sqnr_db=arrays[f"{prefix}sqnr_db"],
        max_abs=arrays[f"{prefix}max_abs"],
        cosine=arrays[f"{prefix}cosine"],
        centred_db=arrays.get(f"{prefix}centred_db"),
    )


def per_image(logits: Floats, labels: NDArray[np.int64], reference: Floats, before: Floats) -> PerImage:
    """Of ``logits`` (N, classes) next to those of the frozen network and those of the file before.

    Raises ValueError where any is missing or no number.
    """
    # First, since it refuses what has no answers.
    moved = distance(reference, logits)
    step = moved if before is reference else distance(before, logits)
    return PerImage(answers(logits, labels), moved, step)
