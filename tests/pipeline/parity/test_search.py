"""The search for the layers to leave INT8: planted culprits are found exactly, and few questions are asked."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from conftest import ROOT

from pipeline.parity.search import EXCHANGES, FEW, smallest


def search(count: int, passes: object, rank: object = None) -> tuple[list[int] | None, int]:
    """The numbers of the layers found out of ``count``, and how many questions were asked."""
    layers = [f"layer{number}" for number in range(count)]
    asked = []

    def ask(off: frozenset[str]) -> bool:
        asked.append(off)
        return bool(passes({layers.index(layer) for layer in off}))

    ranked = [] if rank is None else [layers[number] for number in rank]
    found = smallest(layers, ask, lambda: ranked)
    return found if found is None else [layers.index(layer) for layer in found], len(asked)


@pytest.mark.parametrize("culprits", range(1, FEW + 1))
@pytest.mark.parametrize("count", [10, 57, 200])
def test_planted_culprits_are_found_exactly_in_few_questions(count: int, culprits: int) -> None:
    draw = random.Random(count + culprits)
    for _ in range(50):
        planted = set(draw.sample(range(count), culprits))
        found, asked = search(count, planted.issubset)
        assert found == sorted(planted)
        assert asked <= culprits * (math.log2(count) + 3) + 2


def test_what_is_found_is_one_of_the_least_sets_that_brute_force_finds() -> None:
    """Monotone questions: any of a few sets is enough; nothing of what is found can be put back."""
    draw = random.Random(1)
    for _ in range(200):
        enough = [frozenset(draw.sample(range(7), draw.randint(0, 7))) for _ in range(draw.randint(0, 3))]

        def passes(off: set[int], enough: list[frozenset[int]] = enough) -> bool:
            return any(one <= off for one in enough)

        every = [set(some) for size in range(8) for some in itertools.combinations(range(7), size)]
        least = [one for one in every if passes(one) and not any(passes(one - {number}) for number in one)]
        found, _ = search(7, passes, rank=range(7))
        assert (set(found) in least) if found is not None else not least
        if len(least) == 1:
            assert found == sorted(least[0])


def test_one_more_than_a_few_is_still_found_exactly_where_the_ranking_is_right() -> None:
    planted = list(range(3, 3 + FEW + 3))
    found, asked = search(60, set(planted).issubset, rank=[*planted, *(n for n in range(60) if n not in planted)])
    assert found == planted
    assert asked < 60 + EXCHANGES


def test_the_docs_say_how_many_culprits_are_halved_for() -> None:
    assert f"each of k ≤ {FEW} culprits in n layers by halving" in (ROOT / "docs" / "debug.md").read_text()


@pytest.mark.parametrize(("passes", "found"), [(lambda off: True, []), (lambda off: False, None)])  # noqa: ARG005
def test_nothing_to_find_is_told_in_two_questions(passes: object, found: list[int] | None) -> None:
    answer, asked = search(30, passes)
    assert answer == found
    assert asked <= 2
