"""A wrong file is refuted and a harmless one proven, of every kind; ``benchmarks.mutants`` looks at all of them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from mutant_judge import ROUNDING, Judge, Kind
from mutants import KINDS
from stage_pairs import NETWORKS, STAGES, make

if TYPE_CHECKING:
    from collections.abc import Iterator

# So many pairs of files a kind is tried on here.
PAIRS = 3
WRONG = [kind for kind in KINDS if kind.verdict == "wrong"]
HARMLESS = [kind for kind in KINDS if kind.verdict == "harmless"]


@pytest.fixture(scope="session")
def judges(tmp_path_factory: pytest.TempPathFactory) -> list[Judge]:
    """One for every stage of every network."""
    found = []
    for network in NETWORKS:
        folder = tmp_path_factory.mktemp("pairs")
        made = make(network, folder)
        assert not made.failed
        found += [Judge(pair, folder) for pair in made.pairs]
    return found


def in_turn(judges: list[Judge], kind: Kind) -> Iterator[Judge]:
    """All of them, for each kind in an order of its own."""
    generator = np.random.default_rng(zlib.crc32(kind.name.encode()))
    for place in generator.permutation(len(judges)):
        yield judges[int(place)]


def test_every_stage_has_its_honest_pair(judges: list[Judge]) -> None:
    assert {(judge.pair.network, judge.pair.stage) for judge in judges} == {
        (network, stage) for network in NETWORKS for stage in STAGES
    }


def test_there_are_kinds_enough_and_each_has_a_name_of_its_own() -> None:
    assert len(WRONG) >= 92
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.name)
def test_a_wrong_file_is_refuted(judges: list[Judge], kind: Kind) -> None:
    moved = []
    for judge in in_turn(judges, kind):
        judged = judge.judge(kind)
        if judged is not None and judged.moved > ROUNDING:
            moved.append(judged)
        if len(moved) == PAIRS:
            break
    assert moved, "no file of this kind answers otherwise: it shows nothing"
    assert [judged for judged in moved if judged.proven] == []


@pytest.mark.parametrize("kind", HARMLESS, ids=lambda kind: kind.name)
def test_a_harmless_file_is_proven(judges: list[Judge], kind: Kind) -> None:
    tried = []
    for judge in in_turn(judges, kind):
        judged = judge.judge(kind)
        if judged is not None and not judged.refused:
            tried.append(judged)
        if len(tried) == PAIRS:
            break
    assert tried
    assert [judged for judged in tried if judged.moved > judged.rounding] == []
    assert [judged for judged in tried if not judged.proven] == []
