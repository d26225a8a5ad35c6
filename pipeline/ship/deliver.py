"""One device from what it runs to the new bundle: each step of its agent in turn, and what it said, in one record."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import Exit
from pipeline.ship import remote, upload
from pipeline.ship.agent.disk import UNFINISHED
from pipeline.ship.agent.errors import AgentError
from pipeline.ship.agent.store import MARK
from pipeline.ship.remote import QUICK, DeviceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from pipeline.ship.agent.container import Bundle
    from pipeline.ship.device import Device
    from pipeline.ship.remote import Access, Remote

    Progress = Callable[[str, int, int], None]

# What changes from one device to the next and must not be in a file that is handed on, and what stands for it.
Names = dict[str, str]


@dataclass(frozen=True)
class Asked:
    """What the agents are told beside the bundle; ``flags`` by verb."""

    flags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    install: Path | None = None
    bench: bool = False
    timeout: float = 3600


@dataclass
class Outcome:
    """How far one device came: ``why`` it stopped, at which ``step``; ``failed`` its gate of its engine."""

    device: str
    code: int = Exit.PASS
    step: str = ""
    why: str = ""
    version: str | None = None
    at: int = 0
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether the bundle is active there."""
        return self.code == Exit.PASS

    @property
    def failed(self) -> bool:
        """Whether a gate of accuracy, latency or health was missed, which more devices would miss as well."""
        return self.code == Exit.FAIL

    def brief(self) -> dict[str, Any]:
        """What a rollout remembers of it."""
        return {name: value for name, value in asdict(self).items() if name != "steps"}


@dataclass
class Delivery:
    """One bundle on its way to one device; ``heard`` gets news, ``progress`` a label, a step and the steps."""

    device: Device
    bundle: Bundle
    asked: Asked
    access: Access
    heard: Callable[[str], None]
    progress: Progress
    names: Names = field(default_factory=dict)
    outcome: Outcome = field(init=False)

    def __post_init__(self) -> None:
        """Nothing has happened yet."""
        self.outcome = Outcome(self.device.name)

    async def run(self) -> Outcome:
        """Every step, up to the first that fails."""
        self._note_names_of_access()
        try:
            async with AsyncExitStack() as stack:
                await self._ship(stack)
        except (DeviceError, AgentError) as error:
            self._fail(error.exit_code, error)
        except Exception as error:  # noqa: BLE001 - see remote.unknown
            self._fail(Exit.STAGE_FAILED, remote.unknown(error))
        self.outcome.at = int(time.time())
        return self.outcome

    def _fail(self, code: int, error: Exception) -> None:
        self.outcome.code = int(code)
        self.outcome.why = str(error)

    async def _ship(self, stack: AsyncExitStack) -> None:
        async with self._step("connect"):
            device = await stack.enter_async_context(remote.connected(self.device, self.access))
        device.said = self._said
        self._note_names_of_connection(device)

        async with self._step("agent"):
            if self.asked.install is not None:
                await self._install(device, self.asked.install)
            else:
                await require_agent(device)

        # From here until the end its agent holds the lock of the store.
        async with self._step("receive") as note:
            waiting = await stack.enter_async_context(upload.incoming(device, self.bundle))
            self.names[waiting.node] = ""
            note["result"] = dict(waiting.about)
        await self._send(device, waiting)
        await self._activate(device, waiting)
        async with self._step("finish"):
            await waiting.done()

    async def _send(self, device: Remote, waiting: upload.Incoming) -> None:
        """The members that preflight reads, preflight, and the others: nothing large goes to a device that refuses."""
        total = sum(member.size for member in waiting.missing)
        there = sum(member.have for member in waiting.missing)
        known = len(self.bundle.places) - len(waiting.missing)
        self._said(
            f"{total - there} of {total} bytes of {len(waiting.missing)} members to send, {known} members are there"
        )
        shown = 0

        def progress(size: int) -> None:
            nonlocal shown
            # A member that is sent twice counts twice, and no bar goes beyond its end.
            shown += size
            self.progress(f"{self.device.name}: sending", min(shown, total), total)

        asked_by_preflight = [member for member in waiting.missing if member.name == upload.FIRST]
        others = [member for member in waiting.missing if member.name != upload.FIRST]
        for member in asked_by_preflight:
            await upload.send(device, self.bundle, member, waiting, progress)
        async with self._step("preflight") as note:
            flags = self.asked.flags.get("preflight", ())
            note["result"] = await device.run("preflight", waiting.bundle, *flags, seconds=QUICK)
        async with self._step("send") as note:
            for member in others:
                await upload.send(device, self.bundle, member, waiting, progress)
            note["result"] = {"bytes": total, "were_there": there, "members": len(waiting.missing)}

    async def _activate(self, device: Remote, waiting: upload.Incoming) -> None:
        """Build, verify and activate; with an agent that came along, that one does it."""
        if "agent.pyz" in self.bundle.places:
            await self._verb(device, "update", waiting.bundle, seconds=QUICK)
        # The agent tries a build twice, and each of its verbs has the time-out for native code alone.
        long = 2 * self.asked.timeout + QUICK
        built = await self._verb(device, "build", waiting.bundle, seconds=long)
        version = str(built.get("version"))
        self.outcome.version = version
        await self._verb(device, "verify", version, seconds=long)
        await self._verb(device, "activate", version, seconds=long)
        if self.asked.bench:
            await self._verb(device, "bench", version, seconds=long)
        await self._verb(device, "status", seconds=QUICK)

    async def _verb(self, device: Remote, verb: str, *arguments: str, seconds: float) -> dict[str, Any]:
        """What the agent answers to ``verb``, as a step of its own; its lines are passed on."""
        flags = self.asked.flags.get(verb, ())
        async with self._step(verb) as note:
            result = await device.run(verb, *arguments, *flags, seconds=seconds)
            note["result"] = result
            for line in result.get("lines", ()):
                self._said(remote.clean(str(line)))
            return dict(result)

    @asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """The note of a step, whatever becomes of it."""
        note: dict[str, Any] = {"step": name, "code": None, "seconds": None, "said": [], "result": None}
        # At the beginning, so that a report has the step that failed as well.
        self.outcome.steps.append(note)
        self.outcome.step = name
        self.progress(f"{self.device.name}: {name}", 0, 0)
        started = time.monotonic()
        try:
            yield note
            note["code"] = int(Exit.PASS)
        except (DeviceError, AgentError) as error:
            if note["code"] is None and self.outcome.step == name:
                note["said"].append(str(error))
            note["code"] = int(error.exit_code)
            raise
        finally:
            note["seconds"] = round(time.monotonic() - started, 3)

    def _said(self, line: str) -> None:
        self.outcome.steps[-1]["said"].append(line)
        self.heard(f"{self.device.name}: {self.outcome.step}: {line}")

    def _note_names_of_access(self) -> None:
        self.names[self.device.name] = ""
        self.names[self.device.host] = ""
        self.names[self.device.user or ""] = "user"
        self.names[self.device.store] = "STORE"
        for path in self.access.identities:
            self.names[str(path)] = "KEY-FILE"
        self.names[str(self.access.known_hosts or "")] = "KNOWN-HOSTS"

    def _note_names_of_connection(self, device: Remote) -> None:
        """The addresses of both ends, and the user: what ~/.ssh/config made of what was asked for."""
        for end in ("peername", "sockname"):
            address = device.connection.get_extra_info(end)[0]
            self.names[str(address)] = ""
        self.names[str(device.connection.get_extra_info("username"))] = "user"

    async def _install(self, device: Remote, file: Path) -> None:
        """Send the agent of this machine, and let it put itself into its store."""
        store = device.device.store
        await _make_store(device)
        arriving = f"{store}/{UNFINISHED}arriving.pyz"
        try:
            await device.sftp.put(str(file), arriving)
            await device.run("install", seconds=QUICK, agent=arriving)
        finally:
            if await device.sftp.lexists(arriving):
                await device.sftp.remove(arriving)


async def require_agent(device: Remote) -> None:
    """Raise DeviceError where there is no agent."""
    if not await device.sftp.isfile(device.agent):
        raise DeviceError(
            f"there is no agent at {device.agent}; put it there once with --install-agent edge-agent.pyz "
            "(bundle agent makes it)",
            Exit.BAD_REQUEST,
        )


async def _make_store(device: Remote) -> None:
    """Make the folder of the store; raises DeviceError, before anything is written, where it holds anything else."""
    import asyncssh

    store = device.device.store
    try:
        # Whatever the umask there says: an agent refuses a store that a group can write to.
        await device.sftp.makedirs(store, asyncssh.SFTPAttrs(permissions=0o755), exist_ok=True)
        names = {str(name) for name in await device.sftp.listdir(store)}
    except asyncssh.SFTPPermissionDenied as error:
        user = device.connection.get_extra_info("username")
        raise DeviceError(
            f"{user} may not make {store}; run sudo install -d -o {user} {store} on the device, or name another by "
            "--store, or store = … in the inventory",
            Exit.BAD_REQUEST,
        ) from error
    # An agent that was cut off on its way here may have left a file, which is nobody else's.
    foreign = sorted(name for name in names - {".", ".."} if not name.startswith(UNFINISHED))
    if foreign and MARK not in names:
        raise DeviceError(
            f"{store} holds {remote.clean(foreign[0])} and is no store of an agent; name an empty folder by --store, "
            "or store = … in the inventory",
            Exit.BAD_REQUEST,
        )
