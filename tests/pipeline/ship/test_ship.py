"""One device over a real SSH server on loopback: what is sent, what is refused, and what is gone on with."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from devices import keygen, sh, site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devices import Line, Site, Sshd
    from shipping import Shipped

pytestmark = pytest.mark.fleet
LARGE = 6 * 2**20


@pytest.fixture
def here(shipped: Shipped, tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, shipped.environment) as sender:
        yield sender


@pytest.fixture
def large(shipped: Shipped) -> Path:
    """A bundle whose largest member takes a while on a slow line."""
    return shipped.again("large.edge", {"timing-jetson-orin-nx.cache": os.urandom(LARGE)}, released=1_790_000_001)


def to(device: Sshd, port: int | None = None) -> tuple[object, ...]:
    return ("--to", f"root@{device.address}:{port or device.port}", "--store", device.store)


def flags(shipped: Shipped, file: Path, folder: Path) -> tuple[object, ...]:
    return ("ship", file, "--key", shipped.public, "-o", folder, "--engine", "onnxruntime")


def device_report(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "devices").glob("*/report.json")
    report: dict[str, Any] = json.loads(path.read_text())["devices"][0]
    return report


def step(report: dict[str, Any], name: str) -> dict[str, Any]:
    (row,) = (note for note in report["steps"] if note["step"] == name)
    return dict(row)


def test_the_first_bundle_and_the_next_of_which_only_the_new_members_are_sent(
    here: Site, shipped: Shipped, tmp_path: Path
) -> None:
    device, file = here.device("orin-a"), tmp_path / "handed-on.json"
    first = flags(shipped, shipped.file, tmp_path)
    assert "there is no agent at" in here(*first, *to(device)).stdout
    done = here(*first, *to(device), "--install-agent", shipped.agent, "--report", file, "--bench")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 devices run resnext_tiny-int8" in done.stdout
    report = device_report(tmp_path)
    names = "connect agent receive preflight send build verify activate bench status finish"
    assert [note["step"] for note in report["steps"]] == names.split()
    assert step(report, "verify")["result"]["agreement"] > 0.9
    assert step(report, "bench")["result"]["latency"]["p99_ms"] > 0
    assert str((device.store / "current").readlink()) == f"versions/{report['version']}"
    assert not list((device.store / "incoming").iterdir())
    text = file.read_text()
    assert not [name for name in ("127.0.0.1", "root", "orin-a", os.uname().nodename, str(tmp_path)) if name in text]
    assert json.loads(text)["devices"][0]["steps"][6]["result"] == step(report, "verify")["result"]

    other = {"licence.txt": b"Yours.\n", "agent.pyz": shipped.agent.read_bytes()}
    newer = shipped.again("newer.edge", other, released=1_790_000_002)
    done = here(*flags(shipped, newer, tmp_path), *to(device))
    assert done.returncode == 0, done.stdout + done.stderr
    sent = step(device_report(tmp_path), "send")["result"]
    assert (sent["members"], sent["bytes"]) == (2, sum(map(len, other.values())))
    assert "is the agent of" in step(device_report(tmp_path), "update")["said"][0]
    assert str((device.store / "previous").readlink()) == f"versions/{report['version']}"

    known = here("status", "--inventory", here.inventory(), "--json")
    (row,) = json.loads(known.stdout)
    assert (known.returncode, len(row["versions"]), row["why"]) == (0, 2, "")


def test_a_network_that_is_not_what_was_judged_is_never_active(here: Site, shipped: Shipped, tmp_path: Path) -> None:
    device = here.device("a")
    done = here(
        *flags(shipped, shipped.wrong("wrong.edge"), tmp_path), *to(device), "--install-agent", shipped.agent, "--json"
    )
    (row,) = json.loads(done.stdout)["devices"]
    assert (done.returncode, row["step"], "are asked for" in row["why"]) == (1, "verify", True)
    assert not (device.store / "current").exists()
    known = here("status", *to(device))
    assert (known.returncode, "no version is active" in known.stdout) == (1, True)


def test_who_is_not_let_in_and_who_is_not_trusted(here: Site, tmp_path: Path) -> None:
    device, other = here.device("a"), here.device("b")

    def refused(*more: object, port: int | None = None, expect: int = 2) -> str:
        done = here("status", *to(device, port), *more)
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return " ".join(done.stdout.split())

    stranger = tmp_path / "stranger"
    stranger.touch()
    assert "ssh-keyscan -p" in refused("--known-hosts", stranger)
    assert str(stranger) in refused("--known-hosts", stranger)
    kind, key, *_ = (other.folder / "host.pub").read_text().split()
    stranger.write_text(f"[127.0.0.1]:{device.port} {kind} {key}\n")
    assert "was set up anew, or somebody is in between" in refused("--known-hosts", stranger)
    key_file = here.identity
    wrong = keygen(tmp_path / "wrong")
    key_file.rename(tmp_path / "kept")
    wrong.rename(key_file)
    done = here("status", *to(device))
    assert (done.returncode, "the .pub beside it must be its own" in done.stderr) == (2, True)
    key_file.with_suffix(".pub").rename(tmp_path / "kept.pub")
    assert "it takes none of the keys" in refused()
    for suffix in ("", ".pub"):
        (tmp_path / f"kept{suffix}").rename(key_file.with_suffix(suffix))
    port = other.port
    other.stop()
    here.trust(other, port)
    assert "cannot be reached" in refused(port=port, expect=3)

    sh("ssh-keygen", "-q", "-p", "-N", "secret", "-f", key_file)
    done = here("status", *to(device))
    assert (done.returncode, "unlock it into ssh-agent with ssh-add" in done.stderr) == (2, True)
    sh("ssh-keygen", "-q", "-p", "-P", "secret", "-N", "", "-f", key_file)
    # An ssh-agent that knows the key is enough.
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            time.sleep(0.05)
        here.environment["SSH_AUTH_SOCK"] = str(socket)
        sh("ssh-add", "-q", key_file, env={**os.environ, "SSH_AUTH_SOCK": str(socket)})
        line = ["status", *to(device), "--known-hosts", here.known_hosts, "--python", sys.executable]
        command = [sys.executable, "-m", "pipeline", *map(str, line)]
        done = subprocess.run(command, env=here.environment, capture_output=True, text=True, check=False)
        assert "there is no agent at" in done.stdout
    finally:
        agent.kill()
        agent.wait()


def test_a_folder_of_somebody_else_is_not_touched(here: Site, shipped: Shipped, tmp_path: Path) -> None:
    device = here.device("a")
    device.store.mkdir()
    (device.store / "photos").write_text("mine")
    done = here(*flags(shipped, shipped.file, tmp_path), *to(device), "--install-agent", shipped.agent)
    assert (done.returncode, "holds photos and is no store of an agent" in done.stdout) == (2, True)
    assert [path.name for path in device.store.iterdir()] == ["photos"]


def started(here: Site, shipped: Shipped, file: Path, device: Sshd, line: Line) -> subprocess.Popen[str]:
    """A ship on a slow line, as soon as a part of the large member is there."""
    command = here.command(*flags(shipped, file, here.folder), *to(device, line.port), "--install-agent", shipped.agent)
    ship = subprocess.Popen(command, env=here.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while not any(part.stat().st_size > 2**18 for part in (device.store / "incoming").glob("*.part")):
        assert ship.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    return ship


def test_what_was_cut_off_is_gone_on_with(here: Site, shipped: Shipped, large: Path, tmp_path: Path) -> None:
    device = here.device("a")
    ship = started(here, shipped, large, device, here.line(device, 2**20))
    ship.kill()
    ship.communicate()
    (part,) = (device.store / "incoming").glob("*.part")
    killed = part.stat().st_size
    assert 0 < killed < LARGE
    cut = here(*flags(shipped, large, tmp_path), *to(device, here.line(device, 2**24, 3 * 2**20).port))
    assert (cut.returncode, "run the same again, it goes on from there" in " ".join(cut.stdout.split())) == (3, True)
    before = part.stat().st_size
    assert killed < before < LARGE
    done = here(*flags(shipped, large, tmp_path), *to(device))
    assert done.returncode == 0, done.stdout + done.stderr
    sent = step(device_report(tmp_path), "send")["result"]
    assert (sent["members"], sent["bytes"], sent["were_there"]) == (1, LARGE, before)


def test_a_part_that_was_changed_is_sent_again(here: Site, shipped: Shipped, large: Path, tmp_path: Path) -> None:
    device = here.device("a")
    ship = started(here, shipped, large, device, here.line(device, 2**20))
    ship.kill()
    ship.communicate()
    (part,) = (device.store / "incoming").glob("*.part")
    with part.open("r+b") as file:
        file.write(b"changed")
    done = here(*flags(shipped, large, tmp_path), *to(device))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "what was there is not what was signed; sent again" in done.stderr


def test_a_disk_that_fills_up_meanwhile(here: Site, shipped: Shipped, large: Path, tmp_path: Path) -> None:
    device = here.device("a")
    device.store.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", device.store)
    try:
        ship = started(here, shipped, large, device, here.line(device, 2**20))
        ballast = device.store / "versions" / "ballast"
        full = subprocess.run(["dd", "if=/dev/zero", f"of={ballast}"], capture_output=True, text=True, check=False)
        assert "No space left" in full.stderr
        table, _ = ship.communicate(timeout=60)
        assert (ship.returncode, "the disk of the device is full" in " ".join(table.split())) == (3, True)
        # The agent that asks first says so as well.
        done = here(*flags(shipped, large, tmp_path), *to(device))
        assert "of the disk are free" in done.stdout or "disk is full" in done.stdout
        ballast.unlink()
        done = here(*flags(shipped, large, tmp_path), *to(device))
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        sh("umount", device.store)


def test_two_at_once(here: Site, shipped: Shipped, tmp_path: Path) -> None:
    device = here.device("a")
    shutil.copy(shipped.agent, tmp_path / "agent.pyz")
    line = [sys.executable, str(tmp_path / "agent.pyz"), "receive", "--store", str(device.store)]
    command = here.command(*flags(shipped, shipped.file, tmp_path), *to(device), "--install-agent", shipped.agent)
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write(base64.b64encode(shipped.opened().head).decode() + "\n")
        first.stdin.flush()
        assert json.loads(first.stdout.readline())["missing"]
        with (tmp_path / "news").open("w+") as news:
            second = subprocess.Popen(command, env=here.environment, stdout=subprocess.DEVNULL, stderr=news)
            # Its sender is there, and says so; then it says goodbye, and the second one goes on.
            while "another ship is at work there; waiting" not in (tmp_path / "news").read_text():
                assert second.poll() is None
                first.stdin.write("\n")
                first.stdin.flush()
                time.sleep(0.5)
            first.stdin.close()
            assert second.wait() == 0, (tmp_path / "news").read_text()
