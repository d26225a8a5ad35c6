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
        manifest = store.loadable(version, device).manifest
        current = store.linked(CURRENT)
        well, previous = _well(store)
        if version == current == well:
            _settle(store, well, previous)
            return f"{version} is active already"
        if version != current:
            refuse_older(store, well, manifest["released"], allow_downgrade)
        if version == well:  # what was in use before an activation that was cut off
            well, previous = previous, None

        # The note comes first: cut off at any moment from here, it says which version was well.
        store.note_pending({"version": version, "before": well, "previous": previous})
        if well is not None:
            store.point(PREVIOUS, well)
        store.point(CURRENT, version)
        try:
            health(store.path(version))
        except Exception as error:  # whatever it was: nothing shows that it is well
            _settle(store, well, previous)
            outcome = f"rolled back to {well}" if well else "there was none before it, and nothing is active"
            raise Failed(f"{version} was activated and is not well: {error}; {outcome}") from error

        store.note_pending(None)
        if well is None:
            return f"{version} is active"
        return f"{version} is active, {well} is what rollback goes back to"


def _well(store: Store) -> Tuple[Optional[str], Optional[str]]:
    """What was found well last, and what rollback goes back to from there.

    Where an activation was cut off its note says both: what is in use then may never have been asked for its health.
    """
    pending = store.pending()
    well = pending.get("before", store.linked(CURRENT))
    previous = pending.get("previous", store.linked(PREVIOUS))
    return well, previous


def _settle(store: Store, current: Optional[str], previous: Optional[str]) -> None:
    """Set both links, and end the activation that is under way: only then its note goes."""
    store.point(CURRENT, current)
    store.point(PREVIOUS, previous)
    store.note_pending(None)


def rollback(store: Store, device: Dict[str, Any]) -> str:
    """Go back to the version before; raises Refused where there is none that can be used."""
    with store.switching():
        current = store.linked(CURRENT)
        well, previous = _well(store)
        if store.pending() and current == well:
            _settle(store, well, previous)
            return f"{current or 'none'} is in use as before; the activation that was cut off is forgotten"

        # Where what is in use was never found well, back is to what was.
        target = previous if current == well else well
        if target is None or target == current:
            raise Refused(f"rollback: there is no version before {current or 'the first'}; activate one by its name")
        store.loadable(target, device)
        _settle(store, target, previous)
    return f"{target} is active again, {current} is not"


def refuse_older(store: Store, current: Optional[str], released: int, allowed: bool) -> None:
    """Raise Refused where the version ``current`` was released later, unless that is ``allowed``."""
    if current is None or allowed:
        return
    in_use = int(store.built(current).get("released", 0))
    if released < in_use:
        raise Refused(f"released {released}, and {current} in use {in_use}: older; --allow-downgrade takes it anyway")


def gc(store: Store, keep: int) -> List[str]:
    """Remove what was cut off, and every version but the two that are linked and the ``keep`` newest others."""
    with store.switching(), store.building():
        linked = {store.linked(CURRENT), store.linked(PREVIOUS), *_well(store)}
        others = [version for version in store.all() if version not in linked]
        removed = others[: max(0, len(others) - keep)]
        for version in removed:
            # First its name, in one step: nobody ever sees half of it.
            os.rename(store.path(version), os.path.join(store.versions, disk.UNFINISHED + version))

        swept: List[str] = []
        for folder in (store.root, store.versions, *map(store.path, store.all())):
            swept += store.sweep(folder)
        disk.sync(store.versions)
        # The versions that were renamed are swept as well, and are named already.
        litter = [name for name in swept if name[len(disk.UNFINISHED) :] not in removed]
        return removed + litter


def command(line: str, seconds: float) -> Health:
    """A health check that runs ``line`` in a shell, with EDGE_VERSION the folder of the version in use."""

    def check(folder: str) -> None:
        environment = dict(os.environ, EDGE_VERSION=folder)
        try:
            # To the error stream, 2: what it prints is not what this agent answers.
            done = subprocess.run(  # noqa: S602
                line, shell=True, timeout=seconds, env=environment, check=False, stdout=2
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"--health-cmd did not end within {seconds:g} s") from error
        if done.returncode:
            raise Failed(f"--health-cmd answered {done.returncode}")

    return check
