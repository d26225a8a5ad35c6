"""The memory of a build directory: every verdict that was asked there, in looks.json, and the number of its look.

A look is certain answers to certain images: those of the frozen network, and those of what is shipped. It keeps its
number for ever; another margin for the same answers is the same look, since a bound holds for all margins at once.
Looks are counted for each frozen network by itself, and for each baseline that it was held against.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import workspace
from pipeline.console import news
from pipeline.errors import BadRequest
from pipeline.finished import json_records
from pipeline.parity.looks import confidence_of, share
from pipeline.parity.paired import bounds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.finished.report_json import Report
    from pipeline.finished.saved_answers import SavedAnswers
    from pipeline.stage import Drop, StageRow

FILE = "looks.json"
SCHEMA = 1
Command = Literal["build", "check"]


@dataclass(frozen=True)
class Question:
    """What a look is at: a frozen network, by the SHA-256 of its file, and what it was held against.

    ``baseline`` is the SHA-256 of the answers of an earlier build; None: the network itself.
    """

    network: str
    baseline: str | None = None


@dataclass(frozen=True)
class Asked:
    """A verdict that was asked for, as looks.json has it.

    ``day`` is an ISO date, ``margin`` a share, ``confidence`` what all looks together hold with. ``answers`` is what
    ``identity`` makes of them, ``images`` the digest of those that judged, and ``network`` and ``baseline`` are those
    of the question.
    """

    look: int
    day: str
    command: Command
    n: int
    margin: float
    confidence: float
    verdict: Literal["pass", "fail", "undecided"]
    answers: str
    images: str
    network: str
    baseline: str | None = None

    @property
    def question(self) -> Question:
        """What the look was at."""
        return Question(self.network, self.baseline)


@dataclass(frozen=True)
class _Memory:
    """looks.json."""

    schema: int
    asked: list[Asked]


@dataclass(frozen=True)
class Looks:
    """All verdicts that were asked in one directory, the oldest first."""

    asked: tuple[Asked, ...] = ()

    def of(self, question: Question) -> list[Asked]:
        """Those that were asked of ``question``."""
        return [asked for asked in self.asked if asked.question == question]

    def next(self, question: Question) -> int:
        """The number of a look at ``question`` with answers that nobody has judged here."""
        return 1 + max((asked.look for asked in self.of(question)), default=0)

    def number(self, question: Question, answers: str) -> int:
        """The number of the look at ``question`` with these ``answers``, old or new."""
        for asked in self.of(question):
            if asked.answers == answers:
                return asked.look
        return self.next(question)


def identity(labels: NDArray[np.int64], before: NDArray[Any], after: NDArray[Any], images: str) -> str:
    """SHA-256 that tells one look from another.

    ``labels``, the answers ``before`` and those ``after`` are (N,), and ``images`` is the digest of all N.
    """
    sha256 = hashlib.sha256(images.encode())
    for values in (labels, before, after):
        sha256.update(np.ascontiguousarray(values, np.int64).tobytes())
    return sha256.hexdigest()


def today() -> str:
    """The day, as an ISO date in UTC."""
    return datetime.now(UTC).date().isoformat()


def read(directory: Path) -> Looks:
    """What was asked in ``directory``, nothing where there is no looks.json.

    Raises BadRequest where there is one that cannot be understood: to count from 1 again would hide the earlier looks.
    """
    path = directory / FILE
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Looks()
    except (OSError, ValueError) as error:
        raise _damaged(path, workspace.explain(error)) from error
    try:
        return _parsed(json.loads(text))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(path, repr(error)) from error


def _parsed(kept: Any) -> Looks:
    """What looks.json says was asked; raises KeyError, TypeError or ValueError where it does not."""
    memory = json_records.read(_Memory, kept)
    if memory.schema != SCHEMA:
        raise ValueError(f"its schema is {memory.schema}")
    for asked in memory.asked:
        if asked.look < 1:
            raise ValueError(f"there is no look {asked.look}")
    return Looks(tuple(memory.asked))


def _damaged(path: Path, reason: str) -> BadRequest:
    return BadRequest(
        f"{path} does not say which verdicts were asked here ({reason}); restore it, or build into a new directory: "
        "without it looks cannot be counted"
    )


def before(build: FinishedBuild) -> Looks:
    """What was asked of ``build`` before; a copy of it without looks.json is believed what its report says of that."""
    looks = read(build.directory)
    told = build.report.get("looks")
    if looks.asked or not told:
        return looks
    try:
        return Looks(tuple(json_records.read(Asked, values) for values in told["earlier"]))
    except (KeyError, TypeError, ValueError) as error:
        raise build.damaged(error) from error


def question(rows: Sequence[StageRow]) -> Question:
    """What a look at the build of ``rows`` is at: its frozen network."""
    return Question(next((str(row.sha256) for row in rows if row.role == "reference"), ""))


def answers_of(shipped: StageRow | None, answers: SavedAnswers, images: str) -> str:
    """The identity of the answers of ``shipped`` to the images with this digest; empty where nothing was judged."""
    if shipped is None or shipped.name not in answers.top1:
        return ""
    return identity(answers.labels, answers.reference.argmax(1), answers.top1[shipped.name], images)


def number(before: Looks, build: Report, answers: SavedAnswers) -> int:
    """The number of the look at ``build`` that ``answers`` are, after those ``before``."""
    return before.number(question(build.stages), answers_of(build.shipped, answers, build.images.test))


def judges_a_margin(shipped: StageRow | None) -> bool:
    """Whether the verdict on what is ``shipped`` rests on how many images were lost."""
    return shipped is not None and shipped.tolerance is not None and shipped.tolerance.drop is not None


def asked_of(build: FinishedBuild, answers: SavedAnswers, look: int, command: Command) -> Asked:
    """The verdict that ``command`` gave ``build``, of which something was judged."""
    assert build.shipped is not None
    assert build.shipped.accuracy is not None
    return Asked(
        look=look,
        day=today(),
        command=command,
        n=build.shipped.accuracy.n,
        margin=build.max_drop,
        confidence=build.confidence,
        verdict=build.verdict,
        answers=answers_of(build.shipped, answers, build.images.test),
        images=build.images.test,
        network=question(build.stages).network,
    )


def noted(before: Looks, build: FinishedBuild, answers: SavedAnswers, command: Command) -> dict[str, Any] | None:
    """Note the verdict that ``command`` gave ``build``, and answer what its report says of that look.

    ``before`` are the looks before it. None where no margin was judged.
    """
    if not judges_a_margin(build.shipped):
        return None
    assert build.shipped is not None
    assert build.shipped.drop is not None
    asked = asked_of(build, answers, number(before, build, answers), command)
    note(build.directory, before, asked)
    return told(before, asked, build.shipped.drop)


def note(directory: Path, before: Looks, asked: Asked) -> None:
    """Add ``asked`` to looks.json, or to those ``before`` it where there is none.

    Where nothing can be written there, a line says so.
    """
    # Another process may have added something since.
    looks = read(directory)
    if not looks.asked:
        looks = before
    if asked in looks.asked:
        return
    memory = _Memory(SCHEMA, [*looks.asked, asked])
    text = json.dumps(asdict(memory), indent=1, allow_nan=False) + "\n"
    path = directory / FILE
    try:
        workspace.put(path, text.encode())
    except OSError as error:
        news.say(f"this look was not noted in {path} ({workspace.explain(error)}): the next one will not know of it")


def told(before: Looks, asked: Asked, drop: Drop) -> dict[str, Any]:
    """What report.json says of the look ``asked`` at what lost ``drop``, after those ``before``."""
    known_ones = before.of(asked.question)
    numbers = {known.look for known in known_ones} | {asked.look}
    at_these_images = {known.look for known in known_ones if known.images == asked.images} | {asked.look}
    _, upper = bounds(drop.lost, drop.gained, asked.n, confidence_of(1, asked.confidence))
    return {
        "look": asked.look,
        "of_this_network": len(numbers),
        "at_these_images": len(at_these_images),
        "share": share(asked.look),
        "confidence_of_this_look": confidence_of(asked.look, asked.confidence),
        "upper": drop.upper,
        "upper_at_first_look": upper,
        "earlier": [asdict(known) for known in known_ones if known.look != asked.look],
    }
