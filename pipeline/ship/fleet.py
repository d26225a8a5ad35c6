"""Many devices at once: a rollout in stages that goes on where it was cut off, and the state of all of them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import Exit
from pipeline.ship import remote, rollout
from pipeline.ship.agent import disk
from pipeline.ship.deliver import Delivery, Outcome, require_agent
from pipeline.ship.redact import redacted
from pipeline.ship.remote import QUICK, DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from pipeline.ship.agent.container import Bundle
    from pipeline.ship.deliver import Asked
    from pipeline.ship.device import Device
    from pipeline.ship.remote import Access

SCHEMA = 1
# The worst first: a network that is not what was judged, a step that broke, a request that was refused.
WORST = (Exit.FAIL, Exit.STAGE_FAILED, Exit.BAD_REQUEST)


@dataclass
class Fleet:
    """A rollout under way; ``output`` gets devices/NAME/report.json of each device as soon as it is over."""

    devices: Sequence[Device]
    bundle: Bundle
    asked: Asked
    access: Access
    output: Path
    state: rollout.State | None
    heard: Callable[[str], None]
    progress: Callable[[str], Any]  # a context manager that yields a Progress
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    stopped: str | None = None

    async def run(self, plan: Sequence[rollout.Stage], parallel: int, step: Callable[[], None]) -> None:
        """Every stage, at most ``parallel`` devices at a time, until the end or a stage that did not hold.

        ``step`` is called once a device is over.
        """
        places = asyncio.Semaphore(parallel)
        by_name = {device.name: device for device in self.devices}
        active = self.state.active(self.devices) if self.state else set()
        while True:
            tried = {name: outcome.code for name, outcome in self.outcomes.items() if not outcome.done}
            # Asked anew after each stage, because what became of its devices decides whether there is a next.
            batch = rollout.following(list(by_name), plan, active, tried)
            self.stopped = batch.stopped
            if not batch.names:
                return
            if len(plan) > 1:
                self.heard(f"{batch.stage}: {len(batch.names)} of {len(by_name)} devices")
            deliveries = [self._one(by_name[name], places, step) for name in batch.names]
            outcomes = await asyncio.gather(*deliveries)
            active |= {outcome.device for outcome in outcomes if outcome.done}

    async def _one(self, device: Device, places: asyncio.Semaphore, step: Callable[[], None]) -> Outcome:
        async with places:
            with self.progress(device.name) as progress:
                delivery = Delivery(device, self.bundle, self.asked, self.access, self.heard, progress)
                outcome = await delivery.run()
        self.outcomes[device.name] = outcome
        self.names[device.name] = delivery.names
        what = "active" if outcome.done else f"failed at {outcome.step}: {outcome.why}"
        self.heard(f"{device.name}: {what}")

        # At once, and not at the end: whoever ends this run keeps what is known by then.
        folder = self.output / "devices" / device.name
        folder.mkdir(parents=True, exist_ok=True)
        disk.replace(str(folder / "report.json"), _encoded(self.report([outcome])))
        if self.state is not None:
            self.state.note(device, outcome)
        step()
        return outcome

    def report(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Everything that is known of these devices."""
        from pipeline import __version__

        manifest = self.bundle.manifest
        about = {name: manifest[name] for name in ("name", "released", "signer", "model", "bounds")}
        return {
            "schema": SCHEMA,
            "pipeline": __version__,
            "bundle": {**about, "digest": self.bundle.digest},
            "stopped": self.stopped,
            "devices": [asdict(outcome) for outcome in outcomes],
        }

    def write_report(self, path: Path) -> None:
        """All devices of this run in one file that names none of them."""
        outcomes = list(self.outcomes.values())
        names = [self.names[outcome.device] for outcome in outcomes]
        disk.replace(str(path.absolute()), _encoded(redacted(self.report(outcomes), names)))

    def rows(self) -> Iterator[dict[str, Any]]:
        """What is known of every device, whether or not this run came to it."""
        for device in self.devices:
            outcome = self.outcomes.get(device.name)
            known: dict[str, Any] = {}
            verified: dict[str, Any] = {}
            if outcome is not None:
                known = outcome.brief()
                verified = _result(outcome, "verify")
            elif self.state is not None:
                known = self.state.remembered(device)
            yield {
                "device": device.name,
                "group": device.group,
                "outcome": _in_words(known, before=outcome is None),
                "code": known.get("code"),
                "version": known.get("version"),
                "p99_ms": (verified.get("latency") or {}).get("p99_ms"),
                "agreement": verified.get("agreement"),
                "sqnr_db": verified.get("sqnr_db"),
                "step": known.get("step"),
                "why": known.get("why"),
            }

    def code(self) -> Exit:
        """What the shell is told: 0 only where every device of the stages runs the bundle."""
        return worst(row["code"] for row in self.rows())


def worst(codes: Iterable[int | None]) -> Exit:
    """The exit code over all; None is a device to which nobody was to come yet."""
    seen = set(codes)
    for code in WORST:
        if code in seen:
            return code
    return Exit.PASS


def _encoded(report: dict[str, Any]) -> bytes:
    return (json.dumps(report, indent=1) + "\n").encode()


def _in_words(known: dict[str, Any], *, before: bool) -> str:
    """What became of a device; ``before`` where a run before this one brought it there."""
    if not known:
        return "not started"
    words = "active" if known["code"] == Exit.PASS else f"failed at {known['step']}"
    return f"{words} before" if before else words


def _result(outcome: Outcome, step: str) -> dict[str, Any]:
    """What the agent answered to a step, the last time; empty where it was not reached or failed."""
    for note in reversed(outcome.steps):
        if note["step"] == step:
            return dict(note["result"] or {})
    return {}


async def statuses(devices: Sequence[Device], access: Access, parallel: int) -> list[dict[str, Any]]:
    """What every device says of itself."""
    places = asyncio.Semaphore(parallel)

    async def one(device: Device) -> dict[str, Any]:
        row: dict[str, Any] = {"device": device.name, "group": device.group, "code": int(Exit.PASS), "why": ""}
        async with places:
            try:
                async with remote.connected(device, access) as connection:
                    await require_agent(connection)
                    return row | _state(await connection.run("status", seconds=QUICK))
            except Exception as error:  # noqa: BLE001 - see remote.unknown
                known = error if isinstance(error, DeviceError) else remote.unknown(error)
                return row | {"code": int(known.exit_code), "why": str(known), "active": None, "versions": []}

    return list(await asyncio.gather(*map(one, devices)))


def _state(answer: dict[str, Any]) -> dict[str, Any]:
    """The active version and all others in ``answer``, and why the device is not well, if it is not."""
    active = answer.get("active")
    versions = list(answer.get("versions") or ())
    active_row = None
    for row in versions:
        if row.get("version") == active:
            active_row = row
            break

    why = ""
    if active_row is None:
        why = "no version is active"
    elif answer.get("pending"):
        why = "its health after activation was not asked; activate it again, or rollback"
    elif not active_row.get("loadable"):
        why = remote.clean("; ".join(map(str, active_row.get("is") or ())))
    return {"active": active, "versions": versions, "code": int(Exit.FAIL if why else Exit.PASS), "why": why}
