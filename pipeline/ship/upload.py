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

# Small, so that a slow line still answers within the time after which it counts as cut.
PIECE, BLOCK = 2**18, 2**15
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
    size, sha256 = bundle.places[row["name"]][2:]
    if row["have"] not in range(size + 1):
        raise ValueError(f"{row['have']} of {size} bytes are there")
    return Missing(row["name"], size, sha256, row["have"])


class Incoming:
    """The device's side of one upload, which holds the lock of its store as long as this is open."""

    def __init__(self, process: Any, answer: dict[str, Any], bundle: Bundle) -> None:
        self._process, self._lock = process, asyncio.Lock()
        try:
            self.bundle, self.node = str(answer["bundle"]), str(answer["node"])
            self.about = {name: str(answer[name]) for name in ("agent", "python")}
            missing = [_missing(row, bundle) for row in answer["missing"]]
        except (KeyError, TypeError, ValueError) as error:
            raise unknown(error) from error
        self.missing = sorted(missing, key=lambda row: (row.name != FIRST, row.size, row.name))

    async def ask(self, digest: str) -> bool:
        """Whether the part of that SHA-256 was kept."""
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
    while True:
        line = f"{remote.command('receive')} --json"
        async with remote.connection.create_process(line, errors="replace") as process:
            process.stdin.write(base64.b64encode(bundle.head).decode() + "\n")
            first = await _soon(process.stdout.readline())
            if first:
                found = Incoming(process, _answered(first), bundle)
                beat = asyncio.create_task(found.beat())
                try:
                    yield found
                finally:
                    beat.cancel()
                return
            said = [text for row in (await process.stderr.read()).splitlines() if (text := clean(row))]
            await process.wait()
        why = said[-1].removeprefix("error: ") if said else f"receive answered {process.exit_status}"
        if BUSY not in why or time.monotonic() > until:
            raise DeviceError(why, process.exit_status or Exit.STAGE_FAILED)
        remote.said("another ship is at work there; waiting for it, or for its lock to run out")
        await asyncio.sleep(HEARTBEAT)


async def _soon(answer: Awaitable[Any]) -> Any:
    try:
        return await asyncio.wait_for(answer, QUICK)
    except TimeoutError as error:
        raise DeviceError(f"its agent does not answer within {QUICK} s; look at the device, and run again") from error


def _answered(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise DeviceError(f"its agent answers {clean(line)[:80]!r}; install it again with --install-agent") from error


async def send(remote: Remote, bundle: Bundle, row: Missing, waiting: Incoming, sent: Callable[[int], None]) -> None:
    """Send one missing content, at a second try from its first byte; ``sent`` gets numbers of bytes as they arrive.

    Raises DeviceError where the device cannot take it.
    """
    part = f"{remote.device.store}/{INCOMING}/{row.sha256}.part"
    for have in (row.have, 0):
        sent(have)
        await _append(remote, part, have, _pieces(bundle, row.name, have), sent)
        if await waiting.ask(row.sha256):
            return
        remote.said(f"{row.name}: what was there is not what was signed; sent again")
    raise DeviceError(f"{row.name} arrives as something else twice; the line or the disk changes bytes")


async def _append(remote: Remote, part: str, have: int, pieces: Iterator[bytes], sent: Callable[[int], None]) -> None:
    import asyncssh

    flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | (0 if have else asyncssh.FXF_TRUNC)
    try:
        async with remote.sftp.open(part, flags, encoding=None, block_size=BLOCK) as file:
            for piece in pieces:
                await file.write(piece, have)
                have += len(piece)
                sent(len(piece))
    except (asyncssh.SFTPFailure, asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded) as error:
        raise DeviceError(await _refused(remote, part, error)) from error


async def _refused(remote: Remote, part: str, error: Exception) -> str:
    """SFTP 3 says Failure, whatever it was: the free space tells more."""
    folder = part.rpartition("/")[0] or "."
    left = await remote.sftp.statvfs(folder)
    if (left.bavail or 0) * (left.frsize or 0) < FULL:
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
