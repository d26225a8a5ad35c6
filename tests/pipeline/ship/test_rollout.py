"""Inventories, the order of a rollout, and what is taken out of a report: all that needs no device."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.__main__ import parser
from pipeline.errors import BadRequest
from pipeline.ship import device, fleet, rollout
from pipeline.ship.deliver import Outcome
from pipeline.ship.fleet import worst
from pipeline.ship.redact import redacted
from pipeline.ship.remote import Access, DeviceError
from pipeline.ship.upload import Incoming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shipping import Shipped

INVENTORY = """
[defaults]
user = "nvidia"

[device.cam-1]
host = "10.0.0.11"
group = "line-1"

[device.cam-2]
host = "cam-2.local"
port = 2222
store = "edge"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "devices.toml"
    path.write_text(text)
    return path


def test_an_inventory(tmp_path: Path) -> None:
    devices = device.inventory(write(tmp_path, INVENTORY))
    assert devices[0] == device.Device("cam-1", "10.0.0.11", None, "nvidia", device.STORE, "line-1")
    assert devices[1] == device.Device("cam-2", "cam-2.local", 2222, "nvidia", "edge", "all")
    assert device.grouped(devices, ["line-1"]) == devices[:1]
    assert device.grouped(devices, None) == devices


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("host", "hots", r"there is no field 'hots'; did you mean host\?"),
        ("[defaults]", "[default]", r"there is no field 'default'; did you mean defaults\?"),
        ("[device.cam-2]", "[device.cam-1]", "every device has its own name"),
        ('"cam-2.local"\nport = 2222\nstore = "edge"', '"10.0.0.11"', "cam-1 and cam-2 are one device"),
        ('host = "cam-2.local"', "", r"\[device.cam-2\]: it has no host"),
        ("2222", "0", "port = 0 is no number from 1 to 65535"),
        ("2222", "true", "port = True is no number"),
        ('"edge"', '"../etc"', "store = '../etc' is none"),
        ('"edge"', '"-rf"', "store = '-rf' is none"),
        ('"10.0.0.11"', '"-oProxyCommand=x"', "host = '-oProxyCommand=x' is none"),
        ("device.cam-1", 'device."a/b"', "name = 'a/b' is none"),
        ('"nvidia"', "7", "user = 7 is none"),
        ("[device.cam-1]", "[device.cam-1", "it is no TOML"),
    ],
)
def test_a_fault_of_an_inventory_is_named(tmp_path: Path, before: str, after: str, sentence: str) -> None:
    assert before in INVENTORY
    with pytest.raises(BadRequest, match=sentence):
        device.inventory(write(tmp_path, INVENTORY.replace(before, after)))


def test_an_empty_inventory_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="it names no device"):
        device.inventory(write(tmp_path, ""))
    with pytest.raises(BadRequest, match="No such file"):
        device.inventory(tmp_path / "none.toml")
    with pytest.raises(BadRequest, match=r"--group line-2: no device is in it; did you mean line-1\?"):
        device.grouped(device.inventory(write(tmp_path, INVENTORY)), ["line-2"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nvidia@10.0.0.11", ("10.0.0.11", "10.0.0.11", None, "nvidia")),
        ("orin:2222", ("orin", "orin", 2222, None)),
        ("a@[fd00::11]:2222", ("fd00__11", "fd00::11", 2222, "a")),
    ],
)
def test_an_address(text: str, expected: tuple[object, ...]) -> None:
    addressed = device.addressed(text, None)
    assert (addressed.name, addressed.host, addressed.port, addressed.user) == expected


@pytest.mark.parametrize("text", ["", "a@", "a@b:c", "a@-b", "a b@c", "a@b:99999999", "a@b:99999", "a@b:0"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadRequest, match=r"--to"):
        device.addressed(text, None)


def test_stages() -> None:
    plan = rollout.stages(20, "1", ["25%", "all"])
    assert [(stage.label, stage.upto) for stage in plan] == [("--canary 1", 1), ("--then 25%", 5), ("--then all", 20)]
    assert rollout.stages(3, "1%", ["all"])[0].upto == 1
    assert rollout.stages(20, None, []) == (rollout.Stage("all", 20),)
    for canary, then, sentence in (
        ("0", [], "is no number of devices"),
        ("101%", [], "is no number of devices"),
        ("some", [], "is no number of devices"),
        ("10", ["5"], "--then 5 is 5 of 20 devices, --canary 10 before it 10"),
        (None, ["all"], "--then goes with --canary"),
    ):
        with pytest.raises(BadRequest, match=sentence):
            rollout.stages(20, canary, then)


def simulated(names: list[str], plan: tuple[rollout.Stage, ...], codes: dict[str, int]) -> tuple[list[str], str | None]:
    """Who was asked, in order, and why it stopped, where each device answers with its code."""
    active: set[str] = set()
    tried: dict[str, int] = {}
    reached: list[str] = []
    while True:
        batch = rollout.following(names, plan, active, tried)
        if not batch.names:
            return reached, batch.stopped
        reached += batch.names
        active |= {name for name in batch.names if not codes.get(name)}
        tried |= {name: codes[name] for name in batch.names if codes.get(name)}


def test_a_rollout_reaches_every_device_once_or_stops_before_the_next_stage() -> None:
    names = [f"d{number}" for number in range(20)]
    plan = rollout.stages(20, "1", ["25%", "all"])
    for broken in names:
        for code in (1, 2, 3):
            reached, stopped = simulated(names, plan, {broken: code})
            assert len(set(reached)) == len(reached)
            place = names.index(broken)
            count = 20
            if place == 0:
                count = 1  # a canary that is not active, for whatever reason, shows nothing
            elif place < 5 and code == 1:
                count = 5  # who missed a gate stops what comes behind its stage
            assert (len(reached), stopped is None) == (count, count == 20), (broken, code)


def test_a_canary_that_was_never_reached_shows_nothing() -> None:
    names = ["a", "b", "c"]
    reached, stopped = simulated(names, rollout.stages(3, "1", ["all"]), {"a": 3})
    assert (reached, stopped) == (["a"], "--canary 1: none of its devices is active, so nothing was shown")
    batch = rollout.following(names, rollout.stages(3, "1", ["all"]), {"a"}, {})
    assert batch.names == ("b", "c")


def test_canaries_alone_are_well_though_others_wait() -> None:
    names = ["a", "b", "c"]
    assert simulated(names, rollout.stages(3, "1", []), {}) == (["a"], None)
    assert worst([0, None, None]) == 0
    assert [worst(codes) for codes in ([0, 2, 3, 1], [0, 2, 3], [2, None])] == [1, 3, 2]


def test_the_state_of_a_rollout_is_of_one_bundle_and_one_place(shipped: Shipped, tmp_path: Path) -> None:
    path = tmp_path / "a.edge"
    bundle = shipped.opened()
    here = device.Device("a", "10.0.0.1")
    rollout.State(path, bundle).note(here, Outcome("a", version="1-a-1"))
    assert rollout.State(path, bundle).active([here]) == {"a"}
    assert rollout.State(path, bundle).active([device.Device("a", "10.0.0.2")]) == set()
    other = shipped.again("other.edge", released=1_790_000_009)
    digest = type(bundle)(str(other), bundle.manifest, other.read_bytes()[:100], {})
    assert rollout.State(path, digest).active([here]) == set()
    path.with_name("a.edge.rollout.json").write_text("[]")
    with pytest.raises(BadRequest, match="is no state of a rollout; remove it"):
        rollout.State(path, bundle)


@pytest.mark.parametrize("have", [float("inf"), -1, 10**9, None, "1", []])
def test_an_agent_that_has_what_cannot_be_is_told_off(shipped: Shipped, have: object) -> None:
    bundle = shipped.opened()
    answer = {
        "bundle": "a",
        "node": "n",
        "agent": "1",
        "python": "3",
        "missing": [{"name": "model.onnx", "have": have}],
    }
    with pytest.raises(DeviceError, match="answers what this program does not know"):
        Incoming(None, answer, bundle)


def test_one_device_that_answers_nonsense_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class There:
        async def run(self, *_: object, **__: object) -> dict[str, Any]:
            return {"active": "x", "versions": ["x"]}

    @asynccontextmanager
    async def connected(device: device.Device, _: Access) -> AsyncIterator[There]:
        if device.name == "b":
            raise OverflowError("port")
        yield There()

    async def agent(there: There) -> None:
        """It is there."""

    monkeypatch.setattr(fleet.remote, "connected", connected)
    monkeypatch.setattr(fleet, "require_agent", agent)
    rows = asyncio.run(fleet.statuses([device.Device(name, name) for name in "ab"], Access(), 2))
    assert [row["code"] for row in rows] == [3, 3]
    assert all("does not know" in row["why"] for row in rows)


def test_a_report_names_nobody() -> None:
    names = [{"cam-1": "", "10.0.0.11": "", "nvidia": "user", "/srv/acme": "STORE"}, {"cam-10": "", "Orin.local": ""}]
    report = {"device": "cam-1", "lines": ["nvidia@10.0.0.11: /srv/acme/versions", "orin.LOCAL, cam-10; NVIDIA Orin"]}
    text = json.dumps(redacted(report, names))
    assert json.loads(text) == {
        "device": "device-1",
        "lines": ["user@device-1: STORE/versions", "device-2, device-2; user Orin"],
    }


def test_what_is_refused_before_any_device_is_asked(shipped: Shipped, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.edge"
    content = bytearray(shipped.file.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    for file, flags, sentence in (
        (damaged, (), "is not what was signed; get the bundle again"),
        (shipped.file, ("--report", tmp_path / "a/b"), "is no file in a folder that is there"),
        (shipped.file, ("--install-agent", tmp_path / "none.pyz"), "there is no such file; bundle agent makes it"),
        (shipped.file, ("-o", damaged), "-o: .* cannot be written, and what becomes of the devices is kept there"),
        (shipped.file, ("--canary", 1), "--canary goes with --inventory"),
        (shipped.file, ("--group", "a"), "--group goes with --inventory"),
        (shipped.file, ("-i", shipped.public), "holds no private SSH key"),
        (shipped.file, ("--known-hosts", tmp_path / "none"), "there is no such file; ssh-keyscan"),
    ):
        line = ["ship", file, "--key", shipped.public, "--to", "a@127.0.0.1:1", *flags]
        arguments = parser()[0].parse_args([*map(str, line)])
        with pytest.raises(BadRequest, match=sentence):
            arguments.run(arguments)
