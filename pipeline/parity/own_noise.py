"""The bound of a step where the file before makes noise of its own: how far two right roundings of it may lie apart."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.stage import SAME_BITS

# An engine that rounds as well as its file, and elsewhere, has noise of the same power that is none of the file's: the
# difference of two such has twice the power (docs/bounds.md has what was measured).
TWICE_DB = 3.0


@dataclass(frozen=True)
class Bound:
    """The least SQNR in dB against the file before, and ``why`` it is less than is asked for elsewhere; empty: not."""

    db: float
    why: str = ""


def step_bound(asked_db: float, own_db: float | None) -> Bound:
    """The bound where ``asked_db`` is asked for, and the file before keeps ``own_db`` of the frozen network.

    Without noise of its own, None, nothing is taken off, and the same bits are the same bits whatever it makes.
    """
    if own_db is None or asked_db >= SAME_BITS or own_db - TWICE_DB >= asked_db:
        return Bound(asked_db)
    kept = f"it keeps {own_db:.1f} dB of PyTorch"
    why = f"its own noise: {kept}, and two right roundings of it may lie {TWICE_DB:g} further apart"
    return Bound(own_db - TWICE_DB, why)
