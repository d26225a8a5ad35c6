"""Devices for the tests: real OpenSSH servers with keys of their own, on loopback or each in a network namespace."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
SSHD = "/usr/sbin/sshd"
CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {folder}/host
PidFile {folder}/pid
AuthorizedKeysFile {authorized}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
"""


def sh(*line: object, **options: Any) -> str:
    done = subprocess.run([*map(str, line)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def keygen(path: Path) -> Path:
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path)
    return path


@dataclass
class Sshd:
    """One device: its folder, its store, and the server that is started and stopped."""

    folder: Path
    address: str
    port: int
    inside: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def start(self) -> None:
        line = [*self.inside, SSHD, "-D", "-E", self.folder / "log", "-f", self.folder / "config"]
        self.process = subprocess.Popen([*map(str, line)], start_new_session=True)
        until = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection((self.address, self.port), 1):
                    return
            except OSError:
                assert time.monotonic() < until, (self.folder / "log").read_text()
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """The server and every session of it end."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Line:
    """A slow TCP line to ``port``; after ``limit`` bytes to the device it is cut for good."""

    def __init__(self, port: int, rate: int, limit: int = 2**40) -> None:
        self.rate = rate
        self.left = limit
        self._to = port
        self._ends: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                threading.Thread(target=self._copy, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._copy, args=(far, near, False), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(8192):
                if counted:
                    time.sleep(len(piece) / self.rate)
                    self.left -= len(piece)
                    if self.left < 0:
                        break
                sink.sendall(piece)
            self.cut()

    def cut(self) -> None:
        for end in [self._server, *self._ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclass
class Site:
    """The sender's side: its key, its known_hosts, and the command line; and the devices that it made."""

    folder: Path
    environment: dict[str, str]
    devices: list[Sshd] = field(default_factory=list)

    @property
    def identity(self) -> Path:
        return self.folder / "id"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def device(self, name: str, address: str = "127.0.0.1", inside: tuple[str, ...] = (), more: str = "") -> Sshd:
        folder = self.folder / name
        folder.mkdir()
        keygen(folder / "host")
        device = Sshd(folder, address, _free(address) if not inside else 22022, inside)
        authorized = f"{self.identity}.pub"
        config = CONFIG.format(port=device.port, address=address, folder=folder, authorized=authorized)
        (folder / "config").write_text(config + more)
        device.start()
        self.devices.append(device)
        self.trust(device, device.port)
        return device

    def trust(self, device: Sshd, port: int) -> None:
        kind, key, *_ = (device.folder / "host.pub").read_text().split()
        with self.known_hosts.open("a") as file:
            file.write(f"[{device.address}]:{port} {kind} {key}\n")

    def line(self, device: Sshd, rate: int, limit: int = 2**40) -> Line:
        """A slow line to a device, which is known at its end as well."""
        line = Line(device.port, rate, limit)
        self.trust(device, line.port)
        return line

    def command(self, *flags: object) -> list[str]:
        own = ["--identity", self.identity, "--known-hosts", self.known_hosts, "--python", sys.executable]
        return [sys.executable, "-m", "pipeline", *map(str, [flags[0], *own, *flags[1:]])]

    def __call__(self, *flags: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*flags), env=self.environment, capture_output=True, text=True, check=False, **options
        )

    def inventory(self, **fields: dict[str, str]) -> Path:
        """The TOML file of all devices, by the names of their folders; ``fields`` are more of each."""
        text = '[defaults]\nuser = "root"\n'
        for device in self.devices:
            values = {"host": device.address, "store": str(device.store), **fields.get(device.folder.name, {})}
            text += f"\n[device.{device.folder.name}]\nport = {device.port}\n"
            text += "".join(f'{name} = "{value}"\n' for name, value in values.items())
        path = self.folder / "devices.toml"
        path.write_text(text)
        return path


@contextmanager
def site(folder: Path, environment: dict[str, str]) -> Iterator[Site]:
    """A sender; every server that it started ends with it."""
    # OpenSSH's own place for the unprivileged part of a server, which a package's service would have made.
    Path("/run/sshd").mkdir(exist_ok=True)
    sender = Site(folder, {name: value for name, value in environment.items() if name != "SSH_AUTH_SOCK"})
    keygen(sender.identity)
    sender.known_hosts.touch()
    try:
        yield sender
    finally:
        for device in sender.devices:
            device.stop()


def _free(address: str) -> int:
    with socket.socket() as listener:
        listener.bind((address, 0))
        return int(listener.getsockname()[1])


@dataclass
class Net:
    """A bridge of this machine, and devices behind it, each in a network namespace of its own."""

    bridge: str
    count: int = 0

    def namespace(self) -> tuple[str, tuple[str, ...], str]:
        """The address of a new one, what runs a command in it, and its cable on this side."""
        self.count += 1
        name = f"{self.bridge}-{self.count}"
        cable = f"{self.bridge}v{self.count}"
        address = f"{SUBNET}.{self.count + 1}"  # the bridge itself is .1
        sh("ip", "netns", "add", name)
        sh("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        sh("ip", "link", "set", cable, "master", self.bridge, "up")
        inside = ("ip", "netns", "exec", name)
        sh(*inside, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            sh(*inside, "ip", "link", "set", link, "up")
        return address, inside, cable


SUBNET = "10.213.77"


@contextmanager
def net() -> Iterator[Net]:
    """A network that is gone afterwards."""
    network = Net(f"er{os.getpid() % 10**6}")
    sh("ip", "link", "add", network.bridge, "type", "bridge")
    try:
        sh("ip", "address", "add", f"{SUBNET}.1/24", "dev", network.bridge)
        sh("ip", "link", "set", network.bridge, "up")
        yield network
    finally:
        for number in range(1, network.count + 1):
            sh("ip", "netns", "del", f"{network.bridge}-{number}")
        sh("ip", "link", "del", network.bridge)
