"""Which version is in use: switched in one step, asked whether it is well, and taken back where it is not."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from . import disk
from .errors import Failed, Refused
from .store import CURRENT, PREVIOUS

if TYPE_CHECKING:
    from .store import Store

Health = Callable[[str], None]


def activate(
    store: Store,
    version: str,
    device: Dict[str, Any],
    health: Health,
    allow_downgrade: bool = False,  # noqa: FBT002
) -> str:
    """Switch to ``version``, which must be verified here; a sentence.

    ``health`` gets the folder of the version in use and raises Failed where it is not well: then what was in use
    before is in use again. Raises Refused, and changes nothing, where the version is not to be used.
    """
    with store.switching():
        wanted = store.loadable(version, device).manifest
        now, (before, previous) = store.linked(CURRENT), _well(store)
        if version == now == before:
            _settle(store, before, previous)
            return f"{version} is active already"
        if version != now:
            refuse_older(store, before, wanted["released"], allow_downgrade)
        if version == before:  # what was in use before an activation that was cut off
            before, previous = previous, None
        store.note_pending({"version": version, "before": before, "previous": previous})
        if before is not None:
            store.point(PREVIOUS, before)
        store.point(CURRENT, version)
        try:
            health(store.path(version))
        except Exception as error:  # whatever it was: nothing shows that it is well
            _settle(store, before, previous)
            there = f"rolled back to {before}" if before else "there was none before it, and nothing is active"
            raise Failed(f"{version} was activated and is not well: {error}; {there}") from error
        store.note_pending(None)
        return f"{version} is active" + (f", {before} is what rollback goes back to" if before else "")


def _well(store: Store) -> Tuple[Optional[str], Optional[str]]:
    """What was found well last, and what rollback goes back to from there.

    Of an activation that was cut off the note says it: what is in use may be what nobody asked for its health.
    """
    now, previous = store.linked(CURRENT), store.linked(PREVIOUS)
    pending = store.pending()
    return pending.get("before", now), pending.get("previous", previous)


def _settle(store: Store, now: Optional[str], previous: Optional[str]) -> None:
    """Both links as they are to be, and no activation under way."""
    store.point(CURRENT, now)
    store.point(PREVIOUS, previous)
    store.note_pending(None)


def rollback(store: Store, device: Dict[str, Any]) -> str:
    """Go back to the version before; raises Refused where there is none that can be used."""
    with store.switching():
        now, (well, previous) = store.linked(CURRENT), _well(store)
        if store.pending() and now == well:
            _settle(store, well, previous)
            return f"{now or 'none'} is in use as before; the activation that was cut off is forgotten"
        before = previous if now == well else well
        if before is None or before == now:
            raise Refused(f"rollback: there is no version before {now or 'the first'}; activate one by its name")
        store.loadable(before, device)
        _settle(store, before, previous)
    return f"{before} is active again, {now} is not"


def refuse_older(store: Store, current: Optional[str], released: int, allowed: bool) -> None:
    """Raise Refused where the version ``current`` was released later, unless that is ``allowed``."""
    newer = int(store.built(current).get("released", 0)) if current else 0
    if released < newer and not allowed:
        raise Refused(f"released {released}, and {current} in use {newer}: older; --allow-downgrade takes it anyway")


def gc(store: Store, keep: int) -> List[str]:
    """Remove what was cut off, and every version but the two that are linked and the ``keep`` newest others."""
    with store.switching(), store.building():
        linked = {store.linked(CURRENT), store.linked(PREVIOUS), *_well(store)}
        others = [version for version in store.all() if version not in linked]
        removed = others[: max(0, len(others) - keep)]
        for version in removed:
            # First its name, in one step: nobody ever sees half of it.
            os.rename(store.path(version), os.path.join(store.versions, disk.UNFINISHED + version))
        folders = [store.root, store.versions, *map(store.path, store.all())]
        swept = [name for folder in folders for name in store.sweep(folder)]
        disk.sync(store.versions)
        return removed + [name for name in swept if name[len(disk.UNFINISHED) :] not in removed]


def command(line: str, seconds: float) -> Health:
    """A health check that runs ``line`` in a shell, with EDGE_VERSION the folder of the version in use."""

    def check(folder: str) -> None:
        try:
            # What it prints is not what this agent answers.
            done = subprocess.run(  # noqa: S602
                line, shell=True, timeout=seconds, env=dict(os.environ, EDGE_VERSION=folder), check=False, stdout=2
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"--health-cmd did not end within {seconds:g} s") from error
        if done.returncode:
            raise Failed(f"--health-cmd answered {done.returncode}")

    return check
