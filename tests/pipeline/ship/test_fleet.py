"""Twenty devices, each in a network namespace with a server and a store of its own; some of them broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from devices import net, sh, site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devices import Net, Site, Sshd
    from shipping import Shipped

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(3000)]

# An ONNX Runtime that answers with the classes in another order: what a broken driver or unit does.
BROKEN = """\
import sys

sys.path.remove({folder!r})
del sys.modules["onnxruntime"]
import onnxruntime

real = onnxruntime.InferenceSession.run
onnxruntime.InferenceSession.run = lambda *asked, **more: [each[:, ::-1] for each in real(*asked, **more)]
"""


@pytest.fixture
def network() -> Iterator[Net]:
    with net() as network:
        yield network


def mended(device: Sshd) -> None:
    """Start the server of a device anew, with a runtime that answers rightly."""
    path = device.folder / "config"
    *lines, last = path.read_text().splitlines(keepends=True)
    assert last.startswith("SetEnv")
    path.write_text("".join(lines))
    device.stop()
    device.start()


def small_disk(device: Sshd, *, there: bool) -> None:
    """A store of 8 MB under a device, or none; a namespace sees only what is mounted before its server starts."""
    device.stop()
    device.store.mkdir(exist_ok=True)
    line = ("mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs") if there else ("umount",)
    sh(*line, device.store)
    device.start()


def broken_runtime(folder: Path) -> str:
    """The line of a server's configuration that makes its device answer wrongly."""
    (folder / "onnxruntime").mkdir(parents=True)
    (folder / "onnxruntime" / "__init__.py").write_text(BROKEN.format(folder=str(folder)))
    return f"SetEnv PYTHONPATH={folder}\n"


def logged(fleet: Site) -> dict[str, int]:
    """The size of each server's log: it grows by every session."""
    return {device.folder.name: (device.folder / "log").stat().st_size for device in fleet.devices}


def test_twenty_of_which_some_are_broken(shipped: Shipped, network: Net, tmp_path: Path) -> None:
    wrong = broken_runtime(tmp_path / "broken")
    with site(tmp_path, shipped.environment) as fleet:
        cables = {}
        for number in range(20):
            address, inside, cables[number] = network.namespace()
            fleet.device(f"d{number:02d}", address, inside, wrong if number in {0, 7} else "")
        inventory = fleet.inventory(d07={"group": "line-2"})
        file = tmp_path / "resnext.edge"
        file.write_bytes(shipped.file.read_bytes())
        line = ("ship", file, "--key", shipped.public, "--inventory", inventory, "--install-agent", shipped.agent)

        def ship(*more: object, expect: int) -> tuple[str | None, dict[str, dict[str, Any]]]:
            done = fleet(*line, "--canary", 1, "--then", "25%", "--then", "all", "--parallel", 4, "--json", *more)
            assert done.returncode == expect, done.stdout + done.stderr
            report = json.loads(done.stdout)
            return report["stopped"], {row["device"]: row for row in report["devices"]}

        # The canary answers wrongly: nobody else is touched.
        stopped, rows = ship(expect=1)
        assert stopped == "--canary 1: d00 missed a gate"
        assert (rows["d00"]["outcome"], "dB of PyTorch" in rows["d00"]["why"]) == ("failed at verify", True)
        assert {rows[name]["outcome"] for name in rows if name != "d00"} == {"not started"}
        assert not any((device.store / "edge-store.json").exists() for device in fleet.devices[1:])

        # It is mended; three others are broken in ways of their own.
        mended(fleet.devices[0])
        small_disk(fleet.devices[11], there=True)
        try:
            sh("ip", "link", "set", cables[3], "down")
            stopped, rows = ship("--report", tmp_path / "handed-on.json", expect=1)
        finally:
            small_disk(fleet.devices[11], there=False)
        failed = {name: row for name, row in rows.items() if row["outcome"] != "active"}
        assert stopped is None
        assert {name: row["outcome"] for name, row in failed.items()} == {
            "d03": "failed at connect",
            "d07": "failed at verify",
            "d11": "failed at preflight",
        }
        assert "cannot be reached" in failed["d03"]["why"]
        assert "of the disk are free" in failed["d11"]["why"]
        for number, device in enumerate(fleet.devices):
            assert (device.store / "current").is_symlink() == (number not in {3, 7, 11})
        text = (tmp_path / "handed-on.json").read_text()
        assert "10.213.77" not in text
        assert not re.search(r"\bd\d\d\b", text)  # a hash may hold these letters

        # All are mended: a rerun goes to these three alone.
        sh("ip", "link", "set", cables[3], "up")
        mended(fleet.devices[7])
        before = logged(fleet)
        stopped, rows = ship(expect=0)
        assert stopped is None
        assert {name for name, row in rows.items() if row["outcome"] == "active"} == {"d03", "d07", "d11"}
        after = logged(fleet)
        assert {name for name in after if after[name] > before[name]} == {"d03", "d07", "d11"}

        known = fleet("status", "--inventory", inventory, "--json")
        assert (known.returncode, {row["code"] for row in json.loads(known.stdout)}) == (0, {0})
        known = fleet("status", "--inventory", inventory, "--group", "line-2")
        assert "1 of 1 devices are well" in known.stdout


def test_a_cable_that_is_pulled_out_meanwhile(shipped: Shipped, network: Net, tmp_path: Path) -> None:
    size = 4 * 2**20
    large = shipped.again("pulled.edge", {"timing-jetson-orin-nx.cache": os.urandom(size)}, released=1_790_000_003)
    with site(tmp_path, shipped.environment) as fleet:
        address, inside, cable = network.namespace()
        device = fleet.device("far", address, inside)
        # 4 Mbit/s: the large member takes eight seconds.
        sh(*inside, "ip", "link", "set", "eth0", "up")
        sh("tc", "qdisc", "add", "dev", cable, "root", "tbf", "rate", "4mbit", "burst", "16kb", "latency", "400ms")
        line = ("ship", large, "--key", shipped.public, "--inventory", fleet.inventory(), "-o", tmp_path)
        command = fleet.command(*line, "--install-agent", shipped.agent)
        ship = subprocess.Popen(
            command, env=fleet.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        incoming = device.store / "incoming"
        until = time.monotonic() + 120
        while not any(part.stat().st_size > size // 8 for part in incoming.glob("*.part")):
            assert ship.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        sh("ip", "link", "set", cable, "down")
        table, _ = ship.communicate()
        assert (ship.returncode, "the connection was cut" in " ".join(table.split())) == (3, True)
        (part,) = incoming.glob("*.part")
        arrived = part.stat().st_size
        assert 0 < arrived < size
        sh("ip", "link", "set", cable, "up")
        done = fleet(*line)
        assert done.returncode == 0, done.stdout + done.stderr
        report = json.loads((tmp_path / "devices" / "far" / "report.json").read_text())["devices"][0]
        (sent,) = (note["result"] for note in report["steps"] if note["step"] == "send")
        # What was on its way when the cable was out may arrive once it is in again.
        assert arrived <= sent["were_there"] < sent["bytes"] == size
