"""A bundle sent to a device: only the members that it lacks, each from the bytes that are there already."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import Exit
from pipeline.ship.agent.receive import INCOMING
from pipeline.ship.remote import QUICK, DeviceError, clean, unknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from pipeline.ship.agent.container import Bundle
    from pipeline.ship.remote import Remote

# Bytes of one write and of one request of SFTP in it. Small, so that a slow line still answers within the time after
# which it counts as cut.
PIECE = 2**18
BLOCK = 2**15
HEARTBEAT = 5  # seconds
WAIT = 40  # seconds, more than an agent whose sender vanished holds the lock
FIRST = "compatibility.json"  # what preflight asks
BUSY = "another agent is at work"
FULL = 2**16  # bytes free, below which a failed write means a full disk


@dataclass(frozen=True)
class Missing:
    """A content that the device lacks, by the member that has it; ``have`` of its ``size`` bytes have come already."""

    name: str
    size: int
    sha256: str
    have: int


def _missing(row: dict[str, Any], bundle: Bundle) -> Missing:
    """What the device says of a member, with its size and hash from the bundle; raises ValueError where it cannot be.

    ``have`` may be anything that JSON has, and only a whole number is in a range.
    """
    *_, size, sha256 = bundle.places[row["name"]]
    if row["have"] not in range(size + 1):
        raise ValueError(f"{row['have']} of {size} bytes are there")
    return Missing(row["name"], size, sha256, row["have"])


class Incoming:
    """The device's side of one upload, which holds the lock of its store as long as this is open."""

    def __init__(self, process: Any, answer: dict[str, Any], bundle: Bundle) -> None:
        self._process = process
        self._lock = asyncio.Lock()
        try:
            self.bundle = str(answer["bundle"])
            self.node = str(answer["node"])
            self.about = {name: str(answer[name]) for name in ("agent", "python")}
            missing = [_missing(row, bundle) for row in answer["missing"]]
        except (KeyError, TypeError, ValueError) as error:
            raise unknown(error) from error
        # The small ones first, and before all what preflight asks.
        self.missing = sorted(missing, key=lambda member: (member.name != FIRST, member.size, member.name))

    async def ask(self, digest: str) -> bool:
        """Whether the part of that SHA-256 was kept."""
        # One question at a time, so that the line that comes next is the answer to it.
        async with self._lock:
            self._process.stdin.write(f"{digest}\n")
            line = await _soon(self._process.stdout.readline())
        if not line:
            raise DeviceError("its agent has let go of the upload; run the same again, it goes on from there")
        return bool(_answered(line)["kept"])

    async def done(self) -> None:
        """Let the device forget the members, which are in a version now."""
        self._process.stdin.write("done\n")
        self._process.stdin.write_eof()
        await _soon(self._process.wait())

    async def beat(self) -> None:
        """Say every few seconds that somebody is here."""
        while True:
            await asyncio.sleep(HEARTBEAT)
            self._process.stdin.write("\n")


@asynccontextmanager
async def incoming(remote: Remote, bundle: Bundle) -> AsyncIterator[Incoming]:
    """What the device lacks of ``bundle``, its store locked; raises DeviceError where it refuses, or another ships."""
    until = time.monotonic() + WAIT
    command = f"{remote.command('receive')} --json"
    while True:
        async with remote.connection.create_process(command, errors="replace") as process:
            process.stdin.write(base64.b64encode(bundle.head).decode() + "\n")
            first_line = await _soon(process.stdout.readline())
            if first_line:
                waiting = Incoming(process, _answered(first_line), bundle)
                # Its agent lets go of the lock when it hears nothing: the sender may have vanished.
                heartbeat = asyncio.create_task(waiting.beat())
                try:
                    yield waiting
                finally:
                    heartbeat.cancel()
                return
            why = _last_line(await process.stderr.read()).removeprefix("error: ")
            await process.wait()
        why = why or f"receive answered {process.exit_status}"
        if BUSY not in why or time.monotonic() > until:
            raise DeviceError(why, process.exit_status or Exit.STAGE_FAILED)
        remote.said("another ship is at work there; waiting for it, or for its lock to run out")
        await asyncio.sleep(HEARTBEAT)


def _last_line(text: str) -> str:
    """The last line with anything in it: before the agent's sentence a shell may have talked."""
    last_line = ""
    for line in text.splitlines():
        last_line = clean(line) or last_line
    return last_line


async def _soon(answer: Awaitable[Any]) -> Any:
    """What is awaited; raises DeviceError where it does not come, so that no device holds up all others for ever."""
    try:
        return await asyncio.wait_for(answer, QUICK)
    except TimeoutError as error:
        raise DeviceError(f"its agent does not answer within {QUICK} s; look at the device, and run again") from error


def _answered(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise DeviceError(f"its agent answers {clean(line)[:80]!r}; install it again with --install-agent") from error


async def send(remote: Remote, bundle: Bundle, member: Missing, waiting: Incoming, sent: Callable[[int], None]) -> None:
    """Send one missing content, at a second try from its first byte; ``sent`` gets numbers of bytes as they arrive.

    Raises DeviceError where the device cannot take it.
    """
    part = f"{remote.device.store}/{INCOMING}/{member.sha256}.part"
    # What is there from a run before may be damaged: if so the agent throws it away, and nothing is there.
    for have in (member.have, 0):
        sent(have)
        await _append(remote, part, have, _pieces(bundle, member.name, have), sent)
        if await waiting.ask(member.sha256):
            return
        remote.said(f"{member.name}: what was there is not what was signed; sent again")
    raise DeviceError(f"{member.name} arrives as something else twice; the line or the disk changes bytes")


async def _append(remote: Remote, part: str, have: int, pieces: Iterator[bytes], sent: Callable[[int], None]) -> None:
    import asyncssh

    flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT
    if have == 0:
        flags |= asyncssh.FXF_TRUNC
    offset = have
    try:
        async with remote.sftp.open(part, flags, encoding=None, block_size=BLOCK) as file:
            for piece in pieces:
                await file.write(piece, offset)
                offset += len(piece)
                sent(len(piece))
    except (asyncssh.SFTPFailure, asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded) as error:
        raise DeviceError(await _refused(remote, part, error)) from error


async def _refused(remote: Remote, part: str, error: Exception) -> str:
    """SFTP 3 says Failure, whatever it was: the free space tells more."""
    folder = part.rpartition("/")[0] or "."
    disk = await remote.sftp.statvfs(folder)
    free = (disk.bavail or 0) * (disk.frsize or 0)
    if free < FULL:
        return f"the disk of the device is full ({folder}); free some space, with its agent's gc too, and run it again"
    return f"{part} cannot be written ({error}); mend that on the device and run it again"


def _pieces(bundle: Bundle, name: str, skip: int) -> Iterator[bytes]:
    """The content of a member behind its first ``skip`` bytes, in small pieces."""
    for piece in bundle.pieces(name):
        for start in range(0, len(piece), PIECE):
            part = piece[start : start + PIECE]
            if skip < len(part):
                yield part[skip:]
            skip = max(0, skip - len(part))
