"""From saved answers to which of them changed, by class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.finished.saved_answers import SavedAnswers

    Classes = NDArray[np.integer]

# Classes of which the whole matrix is shown, and kinds of change that are listed; of more only the most frequent.
MATRIX = 16
KINDS = 40


@dataclass(frozen=True)
class BeforeAndAfter:
    """Class numbers, (N,): what is right, and the answers of the network and of one stage."""

    labels: Classes
    before: Classes
    after: Classes


@dataclass(frozen=True)
class Kind:
    """``count`` images of the class ``label`` that are answered as ``after`` and no longer as ``before``.

    ``right`` is 1 where the answer was right before, -1 where it is now, 0 where it never was.
    """

    label: str
    before: str
    after: str
    right: int
    count: int


@dataclass(frozen=True)
class Changes:
    """Of ``of`` images ``moved`` got another answer, ``lost`` no longer a right one and ``gained`` newly a right one.

    ``matrix`` is the change of the confusion matrix, None where the classes are many.
    """

    of: int
    moved: int
    lost: int
    gained: int
    kinds: list[Kind]
    matrix: list[list[int]] | None


def before_and_after(saved: SavedAnswers, stage: str) -> BeforeAndAfter:
    """The answers of the network and those of ``stage``."""
    return BeforeAndAfter(saved.labels, saved.reference.argmax(1), saved.top1[stage])


def changes(answers: BeforeAndAfter, classes: Sequence[str]) -> Changes:
    """How many answers changed, which way, and the change of the confusion matrix where the classes are few."""
    labels, before, after = answers.labels, answers.before, answers.after
    right_before = before == labels
    right_after = after == labels
    moved = np.flatnonzero(before != after)
    counts = Counter((int(labels[index]), int(before[index]), int(after[index])) for index in moved)

    kinds = []
    for (label, answer_before, answer_after), count in counts.most_common(KINDS):
        right = int(label == answer_before) - int(label == answer_after)
        kinds.append(Kind(classes[label], classes[answer_before], classes[answer_after], right, count))
    return Changes(
        of=len(labels),
        moved=len(moved),
        lost=int((right_before & ~right_after).sum()),
        gained=int((~right_before & right_after).sum()),
        kinds=kinds,
        matrix=_matrix(answers, len(classes)) if len(classes) <= MATRIX else None,
    )


def _matrix(answers: BeforeAndAfter, classes: int) -> list[list[int]]:
    """How many more images of the class of the row are answered as the class of the column than before."""
    change = np.zeros((classes, classes), np.int64)
    # Unlike `change[rows, columns] += 1` it counts a place as often as it comes.
    np.add.at(change, (answers.labels, answers.after), 1)
    np.add.at(change, (answers.labels, answers.before), -1)
    return [[int(count) for count in row] for row in change]
