"""Which devices come next: a pure function of the inventory, the stages asked for and what has happened so far."""

from __future__ import annotations

import itertools
import json
import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest, Exit
from pipeline.ship.agent import disk
from pipeline.ship.agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.ship.agent.container import Bundle
    from pipeline.ship.deliver import Outcome
    from pipeline.ship.device import Device

SCHEMA = 1


@dataclass(frozen=True)
class Stage:
    """The first ``upto`` devices, by the flag that asked for them."""

    label: str
    upto: int


@dataclass(frozen=True)
class Batch:
    """The devices that come next; none, and ``stopped`` says why, where a stage before did not hold."""

    names: tuple[str, ...]
    stage: str = ""
    stopped: str | None = None


def stages(count: int, canary: str | None, then: Sequence[str]) -> tuple[Stage, ...]:
    """The stages of a rollout to ``count`` devices: ``2``, ``25%`` or ``all`` of them, each more than the one before.

    Raises BadRequest where they are none, or do not grow.
    """
    if canary is None and then:
        raise BadRequest("--then goes with --canary, as in --canary 1 --then 25% --then all")
    plan = [_stage("--canary", canary, count)] if canary else []
    plan += [_stage("--then", text, count) for text in then]
    for before, after in itertools.pairwise(plan):
        if after.upto < before.upto:
            raise BadRequest(
                f"{after.label} is {after.upto} of {count} devices, {before.label} before it {before.upto}"
            )
    return tuple(plan) or (Stage("all", count),)


def _stage(flag: str, text: str, count: int) -> Stage:
    """The stage that ``text`` asks for: a number, a share, or all of ``count`` devices."""
    label = f"{flag} {text}"
    if text == "all":
        return Stage(label, count)
    number_and_sign = re.fullmatch(r"(\d{1,6})(%?)", text)
    number = 0 if number_and_sign is None else int(number_and_sign[1])
    is_share = number_and_sign is not None and number_and_sign[2] == "%"
    if number == 0 or (is_share and number > 100):
        raise BadRequest(f"{label} is no number of devices; give one as in 1, 25% or all")
    if is_share:
        number = -(-count * number // 100)  # rounded up: 1% of three devices is one
    return Stage(label, min(count, number))


def following(names: Sequence[str], plan: Sequence[Stage], active: set[str], tried: Mapping[str, int]) -> Batch:
    """The next devices, in the order of ``names``.

    ``active`` run the bundle, ``tried`` have the exit code of those that this run could not bring there. A stage that
    is over lets the next one begin unless a device of it missed a gate, or none of its devices is active: then it has
    shown nothing.
    """
    before = 0
    for stage in plan:
        reached = names[: stage.upto]
        waiting = tuple(name for name in reached if name not in active and name not in tried)
        if waiting:
            return Batch(waiting, stage.label)

        # Behind the last stage nothing can be held back.
        is_last = stage.upto >= plan[-1].upto
        missed = [name for name in reached if tried.get(name) == Exit.FAIL]
        if missed and not is_last:
            return Batch((), stage.label, f"{stage.label}: {', '.join(missed)} missed a gate")
        added = set(names[before : stage.upto])
        if added and not added & active and not is_last:
            return Batch((), stage.label, f"{stage.label}: none of its devices is active, so nothing was shown")
        before = stage.upto
    return Batch(())


class State:
    """What a rollout remembers beside its bundle: one file, whole at every moment, of this bundle alone."""

    def __init__(self, path: Path, bundle: Bundle) -> None:
        self.path = path.with_name(f"{path.name}.rollout.json")
        self.digest = bundle.digest
        self.devices = _read(self.path, self.digest)

    def active(self, devices: Sequence[Device]) -> set[str]:
        """The devices that run the bundle, as far as this file knows."""
        return {device.name for device in devices if self._row(device).get("code") == Exit.PASS}

    def _row(self, device: Device) -> dict[str, Any]:
        row = self.devices.get(device.name, {})
        # Another device may have taken over the name since.
        return row if row.get("place") == _place(device) else {}

    def note(self, device: Device, outcome: Outcome) -> None:
        """Write what became of a device."""
        self.devices[device.name] = {**outcome.brief(), "place": _place(device)}
        content = {"schema": SCHEMA, "bundle": self.digest, "devices": self.devices}
        # Written anew as a whole and renamed: a run that is killed meanwhile leaves the old one.
        disk.replace(str(self.path), json.dumps(content, indent=1).encode())

    def remembered(self, device: Device) -> dict[str, Any]:
        """What is known of a device from a run before, empty where nothing is."""
        return dict(self._row(device))


def _place(device: Device) -> list[Any]:
    return [device.host, device.port, device.store]


def _read(path: Path, digest: str) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text())
        of_bundle = (state["schema"], state["bundle"])
        rows = dict(state["devices"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadRequest(f"{path} is no state of a rollout; remove it to begin again") from error
    # Of another bundle, or of another version of this program: the rollout begins anew.
    if of_bundle != (SCHEMA, digest) or not all(isinstance(row, dict) for row in rows.values()):
        return {}
    return rows


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The bundle locked, so that one rollout of it runs at a time; the lock dies with us."""
    with ExitStack() as stack:
        try:
            stack.enter_context(disk.held(str(path)))
        except AgentError as error:
            raise BadRequest(f"{path}: another rollout of it is under way here; wait until it has ended") from error
        yield
