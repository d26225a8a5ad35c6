"""What a build kept of its answers, in one file beside its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.groups import Grouping
from pipeline.parity.figures import TestSet
from pipeline.parity.per_image import PerImage
from pipeline.stage import CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FILE = "answers.safetensors"
# The tensor that holds the place in its column of each image's group is named by this and the column.
GROUP = "group."


@dataclass(frozen=True)
class SavedAnswers:
    """The answers to the N images that judged a build.

    ``labels`` (N,) are what is right, ``reference`` (N, classes) float32 the logits of the PyTorch network; of copies
    ``distinct`` (N,) is False, and ``groups`` has by column the place of each image's group, (N,). ``per_image`` has,
    by the name of each judged stage and then of the figure, what parity.per_image keeps, (N,). Version 0.1 kept
    ``top1`` and ``sqnr_db`` alone.
    """

    labels: NDArray[np.int64]
    reference: NDArray[np.float32]
    distinct: NDArray[np.bool_]
    groups: dict[str, NDArray[Any]]
    per_image: dict[str, dict[str, NDArray[Any]]]

    @classmethod
    def of(cls, test_set: TestSet, kept: Mapping[str, PerImage]) -> SavedAnswers:
        """What is saved of the answers ``kept`` of each stage."""
        groups = {column: each.codes for column, each in test_set.groupings.items() if column != CLASSES}
        per_image = {stage: answers.arrays() for stage, answers in kept.items()}
        return cls(test_set.labels, test_set.reference, test_set.distinct, groups, per_image)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All of it, by the names in the file."""
        named: dict[str, NDArray[Any]] = {
            "labels": self.labels,
            "reference": self.reference,
            "distinct": self.distinct,
        }
        for column, codes in self.groups.items():
            named[GROUP + column] = codes
        for stage, arrays in self.per_image.items():
            for name, values in arrays.items():
                named[f"{name}.{stage}"] = values
        return named

    @property
    def top1(self) -> dict[str, NDArray[Any]]:
        """The answers of each judged stage, (N,)."""
        return self.figure("top1")

    @property
    def sqnr_db(self) -> dict[str, NDArray[Any]]:
        """The SQNR of each image against the PyTorch network, (N,) float32, infinity where its logits are the same."""
        return self.figure("sqnr_db")

    def figure(self, name: str) -> dict[str, NDArray[Any]]:
        """One figure of every stage that has it, (N,)."""
        return {stage: arrays[name] for stage, arrays in self.per_image.items() if name in arrays}

    def reference_is_right(self) -> NDArray[np.bool_]:
        """Whether the PyTorch network answers each image rightly, (N,)."""
        return np.asarray(self.reference.argmax(1) == self.labels)

    def kept(self, stage: str) -> PerImage | None:
        """All that is kept of ``stage``; None where version 0.1 kept less, or nothing was judged."""
        try:
            return PerImage.of_arrays(self.per_image.get(stage, {}))
        except KeyError:
            return None

    def test_set(self, classes: list[str], groups: Mapping[str, list[str]], image_names: Mapping[int, str]) -> TestSet:
        """What the answers are judged on, where ``classes`` and ``groups`` are the names that the codes stand for.

        ``image_names`` are those of the images that are known by name.
        """
        groupings = {CLASSES: Grouping(classes, self.labels)}
        for column, codes in self.groups.items():
            groupings[column] = Grouping(groups[column], codes)

        def name(place: int) -> str:
            return image_names.get(place, f"image {place}")

        return TestSet(self.labels, self.reference, self.distinct, groupings, name)


def read(path: Path) -> SavedAnswers:
    """The answers in the file ``path``; raises OSError or ValueError where it cannot be read, or is no such file."""
    import safetensors
    import safetensors.numpy

    try:
        tensors = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error

    # Whoever reads them counts on one row for each image.
    for name in ("labels", "reference"):
        if name not in tensors:
            raise ValueError(f"it lacks {name}")
    labels = tensors["labels"]
    for name, values in tensors.items():
        dimensions = 2 if name == "reference" else 1
        if values.ndim != dimensions or len(values) != len(labels):
            raise ValueError(f"{name} has the shape {values.shape}")

    groups: dict[str, NDArray[Any]] = {}
    per_image: dict[str, dict[str, NDArray[Any]]] = {}
    for name, values in tensors.items():
        figure, _, rest = name.partition(".")
        if name.startswith(GROUP):
            groups[rest] = values
        elif rest:
            per_image.setdefault(rest, {})[figure] = values
    distinct = tensors.get("distinct", np.ones(len(labels), np.bool_))
    return SavedAnswers(labels, tensors["reference"], distinct, groups, per_image)
