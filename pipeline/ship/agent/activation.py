"""Which version is in use: switched in one step, asked whether it is well, and taken back where it is not."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from . import disk
from .errors import AgentError, Failed, Refused
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
        before, pending = store.linked(CURRENT), store.pending()
        if before is not None and before != version:
            refuse_older(store, wanted["released"], allow_downgrade)
        if before == version and pending.get("version") == version:
            before = pending.get("before")  # cut off between the switch and its health check
        elif before == version:
            return f"{version} is active already"
        else:
            store.note_pending({"version": version, "before": before})
            if before is not None:
                store.point(PREVIOUS, before)
            store.point(CURRENT, version)
        try:
            health(store.path(version))
        except AgentError as error:
            raise _taken_back(store, version, before, error) from error
        store.note_pending(None)
        return f"{version} is active" + (f", {before} is what rollback goes back to" if before else "")


def _taken_back(store: Store, version: str, before: Optional[str], error: AgentError) -> Failed:
    store.point(CURRENT, before)
    store.note_pending(None)
    now = f"rolled back to {before}" if before else "there was none before it, and nothing is active"
    return Failed(f"{version} was activated and is not well: {error}; {now}")


def rollback(store: Store, device: Dict[str, Any]) -> str:
    """Go back to the version before; raises Refused where there is none that can be used."""
    with store.switching():
        now, before = store.linked(CURRENT), store.linked(PREVIOUS)
        if before is None or before == now:
            raise Refused(f"rollback: there is no version before {now or 'the first'}; activate one by its name")
        store.loadable(before, device)
        store.point(CURRENT, before)
        store.note_pending(None)
    return f"{before} is active again, {now} is not"


def refuse_older(store: Store, released: int, allowed: bool) -> None:
    """Raise Refused where the version in use was released later, unless that is ``allowed``."""
    current = store.linked(CURRENT)
    newer = int(store.built(current).get("released", 0)) if current else 0
    if released < newer and not allowed:
        raise Refused(f"released {released}, and {current} in use {newer}: older; --allow-downgrade takes it anyway")


def gc(store: Store, keep: int) -> List[str]:
    """Remove what was cut off, and every version but the two that are linked and the ``keep`` newest others."""
    with store.switching(), store.building():
        linked = {store.linked(CURRENT), store.linked(PREVIOUS), store.pending().get("before")}
        others = [version for version in store.all() if version not in linked]
        removed = others[: len(others) - keep] if keep else others
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
            done = subprocess.run(  # noqa: S602
                line, shell=True, timeout=seconds, env=dict(os.environ, EDGE_VERSION=folder), check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"--health-cmd did not end within {seconds:g} s") from error
        if done.returncode:
            raise Failed(f"--health-cmd answered {done.returncode}")

    return check
