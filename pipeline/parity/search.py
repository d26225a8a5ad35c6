"""The smallest set of layers that has to leave INT8, in few evaluations."""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Passes = Callable[[frozenset[str]], bool]

# Beyond this many layers the loss is spread over the network: ranking them finds smaller sets, in fewer questions.
FEW = 2
# Questions spent on replacing two layers by one: noise also cancels, and no ranking of single layers knows that.
EXCHANGES = 100


def smallest(layers: Sequence[str], passes: Passes, rank: Callable[[], Sequence[str]]) -> list[str] | None:
    """The layers, in their order, without which ``passes`` holds and none of which can be put back; None where none do.

    ``passes(off)`` is asked for sets of layers; switching more of them off is taken to never hurt. Each of k culprits
    is found by halving, as QuickXplain does (Junker 2004, AAAI, section 4): at most k (log2 n + 3) + 2 questions. Where
    more than a few are needed, ``rank`` orders the layers once, the most costly first, and the shortest head that
    passes is taken; then two are replaced by one as long as that passes, in at most EXCHANGES questions.
    """
    if passes(frozenset()):
        return []
    if not passes(frozenset(layers)):
        return None
    chosen: list[str] = []
    rest, ranked = list(layers), list[str]()
    while not (chosen and passes(frozenset(chosen))):
        if len(chosen) == FEW:
            ranked = list(rank())
            chosen = ranked[: _head(ranked, [], passes)]
            break
        size = _head(rest, chosen, passes)
        chosen.append(rest[size - 1])
        rest = rest[: size - 1]
    needed = _needed(chosen, passes)
    if len(needed) > FEW:
        needed = _exchanged(needed, ranked, passes)
    return [layer for layer in layers if layer in needed]


def _head(rest: Sequence[str], chosen: Iterable[str], passes: Passes) -> int:
    """How many of ``rest``, from its head, have to go along with ``chosen``; all of them are known to be enough."""
    low, high = 0, len(rest)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(frozenset([*chosen, *rest[:middle]])) else (middle, high)
    return high


def _needed(chosen: Sequence[str], passes: Passes) -> set[str]:
    kept = set(chosen)
    for layer in chosen:
        if passes(frozenset(kept - {layer})):
            kept.discard(layer)
    return kept


def _exchanged(kept: set[str], ranked: Sequence[str], passes: Passes) -> set[str]:
    budget = iter(range(EXCHANGES))
    while True:
        others = [layer for layer in ranked if layer not in kept]
        pairs = combinations([layer for layer in reversed(ranked) if layer in kept], 2)
        tried = (kept - {*pair} | {other} for (pair, other), _ in zip(product(pairs, others), budget, strict=False))
        fewer = next((one for one in tried if passes(frozenset(one))), None)
        if fewer is None:
            return kept
        kept = _needed(sorted(fewer), passes)
