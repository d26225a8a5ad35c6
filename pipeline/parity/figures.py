"""All figures of a stage, derived from what is kept of its answers to every image: a build and a check do the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.parity import per_image
from pipeline.parity.drift import centred_median_db, median_db, summary
from pipeline.parity.looks import spent
from pipeline.parity.paired import drop_of, rate_at_least, rate_at_most
from pipeline.parity.spread import spread
from pipeline.parity.subsets import Counted, family
from pipeline.stage import Accuracy, Agreement, OwnNoise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from pipeline.data.groups import Grouping
    from pipeline.parity.drift import Distance
    from pipeline.parity.per_image import Answers, PerImage
    from pipeline.stage import StageRow, Subset


def _number(place: int) -> str:
    return f"image {place}"


class Changes(NamedTuple):
    """Which of the distinct images are no longer answered rightly, and which newly are, (N,)."""

    lost: NDArray[np.bool_]
    gained: NDArray[np.bool_]


@dataclass(frozen=True)
class TestSet:
    """What answers are judged on: ``labels`` (N,), the logits ``reference`` (N, classes) of the frozen network.

    ``distinct`` (N,) is False of an image that is there before: a copy proves nothing. ``groupings`` divide the images
    by class and by the user's groups. ``name`` says what the image at a place is called.
    """

    __test__ = False  # no test of pytest, whatever its name

    labels: NDArray[np.int64]
    reference: NDArray[np.float32]
    distinct: NDArray[np.bool_]
    groupings: Mapping[str, Grouping] = field(default_factory=dict)
    name: Callable[[int], str] = _number

    @cached_property
    def before(self) -> Answers:
        """The answers of the network."""
        return per_image.answers(self.reference, self.labels)

    @cached_property
    def magnitude(self) -> float:
        """The largest of its logits."""
        return float(self.before.magnitude.max())

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Those of the distinct images."""
        return np.flatnonzero(self.distinct)

    def changes(self, top1: NDArray[np.integer]) -> Changes:
        """Which of the distinct images the answers ``top1`` (N,) turn, next to those of the network."""
        labels = self.labels[self.places]
        before = self.before.top1[self.places] == labels
        after = top1[self.places] == labels
        return Changes(before & ~after, ~before & after)


def fill(row: StageRow, test_set: TestSet, kept: PerImage, before: PerImage | None) -> None:
    """Fill ``row`` with all figures of its answers ``kept``; ``before`` are those of the file that it was made from."""
    assert row.tolerance is not None
    places = test_set.places
    labels = test_set.labels[places]
    reference = test_set.before.of(places)
    answers = kept.answers.of(places)

    source = test_set.before if before is None else before.answers
    row.drift = summary(kept.drift, test_set.magnitude, _share(kept.answers.top1 == test_set.before.top1))
    row.step = summary(kept.step, float(source.magnitude.max()), _share(kept.answers.top1 == source.top1))
    row.before = None if before is None else own_noise(before.drift)
    row.accuracy = accuracy(answers, labels)
    row.spread = spread(reference, answers, kept.drift.sqnr_db[places], labels, places, test_set.name, row.tolerance)
    fill_losses(row, test_set, kept.answers.top1)


def fill_losses(row: StageRow, test_set: TestSet, top1: NDArray[np.integer]) -> None:
    """Fill ``row`` with what its answers ``top1`` (N,) changed: over all images, and of each class and group."""
    assert row.tolerance is not None
    lost, gained = test_set.changes(top1)
    confidence = spent(row.tolerance)
    row.drop = drop_of(int(lost.sum()), int(gained.sum()), len(lost), confidence)
    alike = top1[test_set.places] == test_set.before.top1[test_set.places]
    row.agreement = agreement(int(alike.sum()), len(alike), confidence)

    row.subsets = {}
    # Where no loss is asked for, the bounds of the drift allow none.
    if row.tolerance.drop is None:
        return
    for column, grouping in test_set.groupings.items():
        row.subsets[column] = family(
            grouping.of(test_set.places), lost, gained, confidence, row.tolerance.drop, row.tolerance.subset_drop
        )


def every_subset(test_set: TestSet, top1: NDArray[np.integer], confidence: float) -> dict[str, list[Subset]]:
    """By column every class and group, the worst first, by the answers ``top1`` (N,) of one stage."""
    lost, gained = test_set.changes(top1)
    found = {}
    for column, grouping in test_set.groupings.items():
        found[column] = Counted.of(grouping.of(test_set.places), lost, gained, 1 - confidence).worst_first
    return found


def agreement(same: int, n: int, confidence: float) -> Agreement:
    """That ``same`` of ``n`` images are answered alike; each bound of the share holds with ``confidence`` by itself."""
    error = 1 - confidence
    return Agreement(same, n, rate_at_least(same, n, error), rate_at_most(same, n, error))


def own_noise(drift: Distance) -> OwnNoise:
    """What a file that lies so far from the frozen network keeps of it."""
    sqnr_db = None if np.isposinf(drift.sqnr_db).all() else median_db(drift.sqnr_db)
    return OwnNoise(sqnr_db, centred_median_db(drift))


def accuracy(answers: Answers, labels: NDArray[np.int64]) -> Accuracy:
    """Top-1 and top-5 of ``answers`` to N images against ``labels`` (N,)."""
    return Accuracy(top1=_share(answers.top1 == labels), top5=_share(answers.top5), n=len(labels))


def _share(which: NDArray[np.bool_]) -> float:
    return float(which.mean())
