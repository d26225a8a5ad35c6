"""The smallest set of layers that has to leave INT8, in few evaluations."""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Passes = Callable[[frozenset[str]], bool]

# Beyond this many layers the loss is spread over the network: ranking them finds smaller sets, in fewer questions.
FEW = 2
# Questions spent on replacing two layers by one: noise also cancels, and no ranking of single layers knows that.
EXCHANGES = 100


def smallest(layers: Sequence[str], passes: Passes, rank: Callable[[], Sequence[str]]) -> list[str] | None:
    """The layers, in their order, with which in float ``passes`` holds, and none of which can go back to INT8.

    None where not even all of them are enough. ``passes(in_float)`` is asked for sets of layers; more layers in float
    are taken to never hurt. Each of k culprits is found by halving, as QuickXplain does (Junker 2004, AAAI, section 4),
    in at most k (log2 n + 3) + 2 questions. Where more than a few are needed, ``rank`` orders the layers once, the most
    costly first, and the shortest head that passes is taken. Then two layers are replaced by one as long as that
    passes, in at most EXCHANGES questions.
    """
    if passes(frozenset()):
        return []
    if not passes(frozenset(layers)):
        return None
    chosen: list[str] = []
    rest = list(layers)
    ranked: list[str] = []
    while not (chosen and passes(frozenset(chosen))):
        if len(chosen) == FEW:
            ranked = list(rank())
            chosen = ranked[: _head(ranked, [], passes)]
            break
        # The last layer of the shortest head that passes is a culprit: without it the head did not.
        size = _head(rest, chosen, passes)
        chosen.append(rest[size - 1])
        rest = rest[: size - 1]

    needed = _needed(chosen, passes)
    if len(needed) > FEW:
        needed = _exchanged(needed, ranked, passes)
    return [layer for layer in layers if layer in needed]


def _head(rest: Sequence[str], chosen: Iterable[str], passes: Passes) -> int:
    """How many of ``rest``, from its head, have to join ``chosen``; all of them are known to be enough."""
    too_few = 0
    enough = len(rest)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if passes(frozenset([*chosen, *rest[:middle]])):
            enough = middle
        else:
            too_few = middle
    return enough


def _needed(chosen: Sequence[str], passes: Passes) -> set[str]:
    """Those of ``chosen`` that cannot go back to INT8, tried one by one in their order."""
    kept = set(chosen)
    for layer in chosen:
        if passes(frozenset(kept - {layer})):
            kept.discard(layer)
    return kept


def _exchanged(kept: set[str], ranked: Sequence[str], passes: Passes) -> set[str]:
    """``kept`` with two layers replaced by one as often as that passes, in at most EXCHANGES questions."""
    questions_left = EXCHANGES
    while True:
        smaller = None
        for candidate in _exchanges(kept, ranked):
            if questions_left == 0:
                break
            questions_left -= 1
            if passes(candidate):
                smaller = candidate
                break
        if smaller is None:
            return kept
        # In a fixed order: a set has none, and the answer may depend on it.
        kept = _needed(sorted(smaller), passes)


def _exchanges(kept: set[str], ranked: Sequence[str]) -> Iterator[frozenset[str]]:
    """``kept`` with each two of its layers replaced by each of the others, the least costly two first."""
    others = [layer for layer in ranked if layer not in kept]
    least_costly_first = [layer for layer in reversed(ranked) if layer in kept]
    for pair, other in product(combinations(least_costly_first, 2), others):
        yield frozenset(kept - set(pair) | {other})
