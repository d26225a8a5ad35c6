"""What a build shows, in three lists: proven here, shown by a stand-in, and not proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporters import float16
from exporters.engines import device
from pipeline.finished.report_json import measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.stage import StageRow

# Sentences of a report that tell of something else that ran in place of the real thing.
STAND_INS = {float16.NOT_PROVEN, device.NOT_PROVEN}
SAVED = "No file ran in this check: its answers are those that were saved when it was built (--rerun runs every file)."


# What a build of an earlier version lacks, and what is open for want of it.
NO_HASHES = (
    "The report is of a version that kept no hash of itself, of its notes and of evidence.json: only what they say was "
    "compared."
)
LESS_OF_EVERY_IMAGE = (
    "The build is of a version that kept less of its answers: its steps, its largest differences and its top-5 are "
    "believed, and nothing is known of its probabilities."
)

NOTHING_CENTRED = (
    "The build is of a version that kept nothing of its logits less their mean: an offset that all classes share may "
    "hide noise."
)


@dataclass(frozen=True)
class Claims:
    """Sentences: ``proven`` here, shown by a stand-in (``proxy``), and ``not_proven``."""

    proven: list[str]
    proxy: list[str]
    not_proven: list[str]

    def __add__(self, other: Claims) -> Claims:
        """Each list, and then that of ``other``."""
        return Claims(self.proven + other.proven, self.proxy + other.proxy, self.not_proven + other.not_proven)


def claims(build: FinishedBuild, *, rerun: bool) -> Claims:
    """What ``build`` shows, whose verdicts were computed anew."""
    proxy = [] if rerun else [SAVED]
    proxy += _judged_in_place_of_an_engine(build.stages)
    not_proven = [*_without_a_pass(build.stages), *_not_kept(build)]
    for sentence in build.not_proven:
        if sentence in STAND_INS:
            proxy.append(sentence)
        else:
            not_proven.append(sentence)
    return Claims(list(_proven(build.stages)), proxy, not_proven)


def _proven(rows: list[StageRow]) -> Iterator[str]:
    names_by_provider: dict[str, list[str]] = {}
    certified: list[str] = []
    images = 0
    for row in rows:
        figures = measured(row)
        if row.verdict != "pass" or row.provider is None or figures is None:
            continue
        names_by_provider.setdefault(row.provider, []).append(row.name)
        images = images or figures.accuracy.n
        if row.certificate is not None and row.certificate.get("proven"):
            certified.append(row.name)

    for provider, names in names_by_provider.items():
        yield f"{', '.join(names)}: answers to {images} images, by {provider}, within their bounds."
    if certified:
        yield f"{', '.join(certified)}: every weight, attribute and edge follows from the file before."


def _judged_in_place_of_an_engine(rows: list[StageRow]) -> Iterator[str]:
    """Of each engine that did not run: its graph, where that did."""
    providers = {row.name: row.provider for row in rows if row.provider is not None}
    for row in rows:
        if row.file is not None and row.provider is None and row.source in providers:
            yield f"{row.name}: its graph, {row.source}, was judged by {providers[row.source]} in its place."


def _not_kept(build: FinishedBuild) -> Iterator[str]:
    """What cannot be asked of a build of an earlier version."""
    if build.content is None:
        yield NO_HASHES
    if any(measured(row) is not None and row.spread is None for row in build.stages):
        yield LESS_OF_EVERY_IMAGE
        return
    moved = [row.drift for row in build.stages if row.drift is not None and row.drift.sqnr_db is not None]
    if moved and all(drift.centred_db is None for drift in moved):
        yield NOTHING_CENTRED


def _without_a_pass(rows: list[StageRow]) -> Iterator[str]:
    for row in rows:
        if row.verdict in {"fail", "undecided"}:
            yield f"{row.name} is {row.verdict}: nothing is proven of it."
