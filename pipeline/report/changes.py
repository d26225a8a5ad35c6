"""From saved answers to which of them changed, by class."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import workspace
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Answers = dict[str, NDArray[Any]]

ANSWERS = "answers.safetensors"
# Classes of which the whole matrix is shown, and kinds of change that are listed; of more only the most frequent.
MATRIX, KINDS = 16, 40


def everything(directory: Path, digest: str) -> dict[str, NDArray[Any]]:
    """All that the build kept of its answers; raises BadRequest where the file is not that of ``digest``."""
    import safetensors
    import safetensors.numpy

    path = directory / ANSWERS
    try:
        if workspace.sha256(path) != digest:
            raise BadRequest(f"{path} is not what this build wrote; build again")
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadRequest(f"{path} cannot be read ({error}); build again") from error


def saved(directory: Path, digest: str, stage: str) -> Answers:
    """``labels``, and the answers of the network ``before`` and of ``stage`` ``after``: class numbers (N,).

    Raises BadRequest where the file is not that of ``digest``.
    """
    kept = everything(directory, digest)
    return {"labels": kept["labels"], "before": kept["reference"].argmax(1), "after": kept[f"top1.{stage}"]}


def changes(answers: Answers, classes: Sequence[str]) -> dict[str, Any]:
    """How many answers changed, which way, and the change of the confusion matrix where the classes are few."""
    labels, before, after = answers["labels"], answers["before"], answers["after"]
    moved = np.flatnonzero(before != after)
    kinds = Counter((int(labels[i]), int(before[i]), int(after[i])) for i in moved)
    return {
        "of": len(labels),
        "moved": len(moved),
        "lost": int(((before == labels) & (after != labels)).sum()),
        "gained": int(((before != labels) & (after == labels)).sum()),
        "kinds": [
            {"label": classes[a], "before": classes[b], "after": classes[c], "right": (a == b) - (a == c), "count": n}
            for (a, b, c), n in kinds.most_common(KINDS)
        ],
        "matrix": _matrix(answers, len(classes)) if len(classes) <= MATRIX else None,
    }


def _matrix(answers: Mapping[str, NDArray[Any]], classes: int) -> list[list[int]]:
    """How many more images of the class of the row are answered as the class of the column than before."""
    change = np.zeros((classes, classes), np.int64)
    np.add.at(change, (answers["labels"], answers["after"]), 1)
    np.add.at(change, (answers["labels"], answers["before"]), -1)
    return [[int(count) for count in row] for row in change]
