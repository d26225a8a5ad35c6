"""A device over SSH: its host key checked, its agent run, and every way in which that fails as a sentence."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest, Exit, PipelineError
from pipeline.ship.agent.receive import AGENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import asyncssh

    from pipeline.ship.device import Device

CONNECT = 20  # seconds for the connection, and once more for the login
KEEPALIVE = 5  # seconds between two questions whether the device is still there
MISSED = 3  # of them without an answer, and the connection counts as cut
QUICK = 300  # seconds for a step in which nothing is built
LONGEST_ANSWER = 2**22  # bytes
# All that a terminal might obey: everything but printable ASCII and the characters from no-break space on.
CONTROL = re.compile(r"[^\x20-\x7e\xa0-\uffff]")


class DeviceError(PipelineError):
    """A device did not do its step; ``code`` is that of its agent: 1 says that the engine is not what was judged."""

    def __init__(self, text: str, code: int = Exit.STAGE_FAILED) -> None:
        super().__init__(text)
        self.exit_code = Exit(code) if code in {1, 2, 3} else Exit.STAGE_FAILED


def unknown(error: Exception) -> DeviceError:
    """For an answer that no agent of ours gives: whatever it made this program do, the other devices go on."""
    return DeviceError(f"its agent answers what this program does not know ({error!r}); install it again")


@dataclass(frozen=True)
class Access:
    """How devices are entered: key files beside those of the agent, and who they must prove to be."""

    identities: tuple[Path, ...] = ()
    known_hosts: Path | None = None
    python: str = "python3"


@dataclass
class Remote:
    """A device that is connected; ``said`` gets every line that its agent says, without control characters."""

    device: Device
    connection: asyncssh.SSHClientConnection
    sftp: asyncssh.SFTPClient
    access: Access
    said: Callable[[str], None] = field(default=lambda _: None)

    @property
    def agent(self) -> str:
        """Where the agent of this device is."""
        return f"{self.device.store}/{AGENT}"

    def command(self, verb: str, *flags: str, agent: str | None = None) -> str:
        """The line that runs a verb of the agent."""
        return shlex.join([self.access.python, agent or self.agent, verb, *flags, "--store", self.device.store])

    async def run(self, verb: str, *flags: str, seconds: float, agent: str | None = None) -> dict[str, Any]:
        """What the agent answers as JSON; raises DeviceError with its sentence and exit code."""
        from asyncssh import DEVNULL

        line = self.command(verb, *flags, "--json", agent=agent)
        async with self.connection.create_process(line, stdin=DEVNULL, errors="replace") as process:
            # Both at once: an agent whose standard error nobody reads would wait for room in it.
            output_and_error = asyncio.gather(_all(process.stdout), self._pass_on(process.stderr))
            try:
                output, error_line = await asyncio.wait_for(output_and_error, timeout=seconds)
            except TimeoutError as error:
                process.kill()
                raise DeviceError(f"{verb} did not end within {seconds:g} s; see --timeout") from error
            await process.wait()

        if process.exit_status is None:
            raise DeviceError(f"the connection was cut during {verb}; run the same again, it goes on from there")
        result = _parsed(output)
        if process.exit_status:
            why = error_line.removeprefix("error: ") or _verdict(result) or f"{verb} answered {process.exit_status}"
            raise DeviceError(why, process.exit_status)
        return result

    async def _pass_on(self, stream: Any) -> str:
        """The sentence of an error among what the agent says while it works, or the last line: a shell talks too."""
        last_line = ""
        error_line = ""
        async for raw_line in stream:
            line = clean(raw_line)
            if not line:
                continue
            last_line = line
            if line.startswith("error: "):
                error_line = line
            self.said(line)
        return error_line or last_line


def clean(line: str) -> str:
    """A line of a device as a terminal may show it."""
    return CONTROL.sub("", line.strip())[:1000]


async def _all(stream: Any) -> str:
    """Everything up to the end of ``stream``; raises DeviceError before it would fill the memory."""
    pieces: list[str] = []
    size = 0
    while True:
        piece = await stream.read(2**16)
        if not piece:
            return "".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > LONGEST_ANSWER:
            raise DeviceError(f"the agent answers more than {LONGEST_ANSWER >> 20} MiB; install it again")


def _parsed(text: str) -> dict[str, Any]:
    try:
        result = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):  # the latter for brackets in brackets without an end
        result = None
    if not isinstance(result, dict):
        raise DeviceError(f"the agent answers no JSON ({clean(text)[:80]}); install it again with --install-agent")
    return result


def _verdict(result: dict[str, Any]) -> str:
    """Why preflight refuses, which it says on standard output."""
    refusals = [answer for answer in result.get("answers", ()) if answer.get("verdict") in {"unknown", "refuse"}]
    return "; ".join(clean(str(answer.get("sentence"))) for answer in refusals)


@asynccontextmanager
async def connected(device: Device, access: Access) -> AsyncIterator[Remote]:
    """``device`` over SSH and SFTP; raises DeviceError where it cannot be entered, or is lost meanwhile."""
    import asyncssh

    async with await _entered(device, access) as connection:
        try:
            async with connection.start_sftp_client() as sftp:
                yield Remote(device, connection, sftp, access)
        # A lost connection before the other errors of SFTP: it is one of them, and only here a rerun helps.
        except (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost, asyncssh.DisconnectError) as error:
            raise DeviceError(f"the connection was cut ({error}); run the same again, it goes on from there") from error
        except asyncssh.ChannelOpenError as error:
            raise DeviceError(f"it opens no session ({error}); it must allow commands and SFTP to this user") from error
        except OSError as error:
            # Above all a pipe to a session that is gone.
            raise DeviceError(f"the system answered {error}; run the same again, it goes on from there") from error
        except asyncssh.SFTPError as error:
            raise DeviceError(f"SFTP answered {error}; mend that on the device and run the same again") from error


async def _entered(device: Device, access: Access) -> asyncssh.SSHClientConnection:
    import asyncssh

    options: dict[str, Any] = {
        # No password is ever asked for or sent.
        "preferred_auth": ("publickey",),
        "connect_timeout": CONNECT,
        "login_timeout": CONNECT,
        "keepalive_interval": KEEPALIVE,
        "keepalive_count_max": MISSED,
    }
    # What is left out is as ~/.ssh/config has it; None would mean something else to asyncssh: to trust any host.
    if device.port is not None:
        options["port"] = device.port
    if device.user is not None:
        options["username"] = device.user
    if access.known_hosts is not None:
        options["known_hosts"] = str(access.known_hosts)
    if access.identities:
        options["client_keys"] = [str(path) for path in access.identities]
    try:
        return await asyncssh.connect(device.host, **options)
    # What a person mends here or there before what may pass: the first two are asyncssh.Error as well.
    except asyncssh.HostKeyNotVerifiable as error:
        raise DeviceError(_unknown_host(device, access, str(error)), Exit.BAD_REQUEST) from error
    except asyncssh.PermissionDenied as error:
        keys = ", ".join(map(str, access.identities)) or "those of ssh-agent and ~/.ssh"
        raise DeviceError(
            f"it takes none of the keys ({keys}) for {device.user or 'this user'}; put the public one into its "
            "~/.ssh/authorized_keys, or name another with --identity",
            Exit.BAD_REQUEST,
        ) from error
    except ValueError as error:
        raise DeviceError(
            f"~/.ssh/config or a key cannot be used ({error}); mend that here", Exit.BAD_REQUEST
        ) from error
    except (asyncssh.Error, OSError) as error:  # TimeoutError is an OSError
        raise DeviceError(f"{device.host} port {device.port or 22} cannot be reached ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """Why, in the system's words, which name no address."""
    errno = re.search(r"\[Errno (\d+)\]", str(error))
    if errno is not None:
        return os.strerror(int(errno[1]))
    return str(error) or f"no answer within {CONNECT} s"  # a time-out has no words


def _unknown_host(device: Device, access: Access, said: str) -> str:
    """What to do about a host key that is in no known_hosts, or is another there."""
    import asyncssh

    place = access.known_hosts or Path("~/.ssh/known_hosts").expanduser()
    port = device.port or 22
    # As OpenSSH writes a host there: the usual port is left out.
    name = device.host if port == 22 else f"[{device.host}]:{port}"
    try:
        known_keys, *_ = asyncssh.read_known_hosts(str(place)).match(device.host, "", None if port == 22 else port)
    except (OSError, ValueError):
        known_keys = []
    if known_keys:
        return (
            f"its host key is another than {place} has for {name}: it was set up anew, or somebody is in between; "
            f"compare ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on its console, then ssh-keygen -R '{name}' and "
            "accept the new one"
        )
    return (
        f"its host key is not in {place} ({said}): run ssh-keyscan -p {port} {device.host} >> {place}, and compare "
        f"ssh-keygen -lf {place} with ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on its console"
    )


def refuse(access: Access) -> None:
    """Raise BadRequest where a key file or known_hosts cannot be used, before any device is asked."""
    import asyncssh

    for path in access.identities:
        try:
            asyncssh.load_keypairs(str(path))
        except asyncssh.KeyImportError as error:
            # Its name for an encrypted key is this one as well, and only the words differ.
            if "Passphrase" in str(error):
                fault = f"it is locked; unlock it into ssh-agent with ssh-add {path}, and leave --identity out"
            else:
                fault = "it holds no private SSH key; name the file without .pub"
            raise BadRequest(f"--identity {path}: {fault}") from error
        except ValueError as error:
            raise BadRequest(f"--identity {path}: {error}; the .pub beside it must be its own") from error
        except OSError as error:
            raise BadRequest(f"--identity {path}: it cannot be read ({error.strerror})") from error
    if access.known_hosts is not None and not access.known_hosts.is_file():
        raise BadRequest(f"--known-hosts {access.known_hosts}: there is no such file; ssh-keyscan HOST makes its lines")
