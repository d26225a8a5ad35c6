"""``python -m pipeline ship NAME.edge``: a bundle to one device or a fleet over SSH, in stages, and a table of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.recipe import whole

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pipeline.ship.agent.container import Bundle
    from pipeline.ship.deliver import Asked, Progress
    from pipeline.ship.device import Device
    from pipeline.ship.fleet import Fleet
    from pipeline.ship.remote import Access
    from pipeline.ship.rollout import Stage

HELP = "send a bundle to devices over SSH, build, verify and activate it there, the canaries first"
EXAMPLES = """examples:
  python -m pipeline ship resnext50.edge --key release.pub --to nvidia@10.0.0.11 --install-agent edge-agent.pyz
  python -m pipeline ship resnext50.edge --key release.pub --inventory devices.toml --canary 1 --then 25% --then all
"""
# Flags that go to verbs of the agent as they are.
PASSED = {
    "engine": ("preflight", "build"),
    "allow_unknown": ("preflight", "build"),
    "allow_downgrade": ("build", "activate"),
    "timeout": ("build", "verify", "activate"),
    "workspace": ("build",),
    "health_cmd": ("activate",),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("file", type=Path, metavar="NAME.edge", help="a file of bundle create")
    parser.add_argument("--key", action="append", required=True, metavar="PUB", help="that signed it; again for more")
    add_access(parser)
    parser.add_argument("--install-agent", type=Path, metavar="PYZ", help="put this file of bundle agent there first")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="for devices/NAME/report.json (default: beside it)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="all of this run in one file that names no device")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    rollout = parser.add_argument_group("rollout, which is remembered in NAME.edge.rollout.json")
    rollout.add_argument("--canary", metavar="N", help="devices that come first: a number, or a share as in 5%%")
    rollout.add_argument(
        "--then", action="append", default=[], metavar="N", help="how many in all are next: 10, 25%%, all"
    )
    device = parser.add_argument_group("what the agents are told")
    device.add_argument("--engine", choices=("auto", "tensorrt", "onnxruntime"), help="(default: auto)")
    device.add_argument("--allow-unknown", action="store_true", help="go on where nothing is known of a combination")
    device.add_argument("--allow-downgrade", action="store_true", help="take a release older than the one in use")
    device.add_argument(
        "--timeout", type=whole(1, 10**6), default=3600, metavar="S", help="of native code (default: 3600)"
    )
    device.add_argument(
        "--workspace", type=whole(2**20, 2**40), metavar="BYTES", help="(default: half of the free memory)"
    )
    device.add_argument(
        "--health-cmd", metavar="CMD", help="in a shell there; not 0 rolls back (default: goldens again)"
    )
    device.add_argument("--bench", action="store_true", help="time the engine once it is in use")


def add_access(parser: argparse.ArgumentParser) -> None:
    """The flags that say which devices, and how they are entered; passwords are not among them."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--to", metavar="USER@HOST[:PORT]", help="one device")
    which.add_argument("--inventory", type=Path, metavar="FILE", help="a TOML file of devices")
    parser.add_argument(
        "--group", action="append", metavar="NAME", help="of the inventory; again for more (default: all)"
    )
    parser.add_argument("--store", metavar="DIR", help="of the agent on that device (default: /var/lib/edge-agent)")
    parser.add_argument(
        "--identity", "-i", type=Path, action="append", default=[], metavar="FILE", help="a private SSH key"
    )
    parser.add_argument("--known-hosts", type=Path, metavar="FILE", help="(default: ~/.ssh/known_hosts)")
    parser.add_argument("--python", default="python3", metavar="PATH", help="on the devices (default: python3)")
    parser.add_argument(
        "--parallel", type=whole(1, 1000), default=8, metavar="N", help="devices at a time (default: 8)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 where every device runs the bundle, 1 where one missed a gate, 3 where one could not be brought there."""
    from pipeline.console import progress
    from pipeline.ship import rollout

    fleet, stages = _fleet(arguments)
    # A single device needs no memory of a rollout, and no lock on it.
    lock = rollout.held(arguments.file) if arguments.inventory else nullcontext()
    with lock:
        if arguments.inventory:
            fleet.state = rollout.State(arguments.file, fleet.bundle)
        # A device's bar joins this one: among many at once, none may be the display of the others.
        with progress.bar("devices", len(fleet.devices)) as step:
            asyncio.run(fleet.run(stages, arguments.parallel, step))
    if arguments.report is not None:
        fleet.write_report(arguments.report)
    _deliver(fleet, as_json=arguments.json)
    return fleet.code()


def _fleet(arguments: argparse.Namespace) -> tuple[Fleet, tuple[Stage, ...]]:
    """All that can be refused is refused here, before any device is asked."""
    from pipeline.console.news import say
    from pipeline.ship import rollout
    from pipeline.ship.fleet import Fleet

    bundle = _open_bundle(arguments)
    chosen_devices = devices(arguments)
    access = access_of(arguments)
    if arguments.to and arguments.canary:
        raise BadRequest("--canary goes with --inventory: --to is one device")
    stages = rollout.stages(len(chosen_devices), arguments.canary, arguments.then)
    output = arguments.output or arguments.file.parent
    _refuse_files(arguments, output)
    fleet = Fleet(chosen_devices, bundle, _asked(arguments), access, output, None, say, _progress)
    return fleet, stages


def _open_bundle(arguments: argparse.Namespace) -> Bundle:
    """The bundle to ship, every member of it checked."""
    from pipeline.ship.agent import container, contents, keys
    from pipeline.ship.agent.errors import AgentError

    try:
        bundle = container.opened(str(arguments.file), keys.read(arguments.key))
        bundle.check()
        contents.refuse(bundle)
    except AgentError as error:
        raise BadRequest(str(error)) from error
    return bundle


def _refuse_files(arguments: argparse.Namespace, output: Path) -> None:
    """Raise BadRequest where a file cannot be read, or what is to be kept of this run cannot be written."""
    for flag, path in (("--install-agent", arguments.install_agent), ("--report", arguments.report)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise BadRequest(f"{flag} {path}: it is no file in a folder that is there")
    if arguments.install_agent is not None and not arguments.install_agent.is_file():
        raise BadRequest(f"--install-agent {arguments.install_agent}: there is no such file; bundle agent makes it")

    # The state of a rollout is kept beside the bundle.
    for flag, path in (("-o", output / "devices"), ("NAME.edge", arguments.file.parent)):
        try:
            path.mkdir(parents=True, exist_ok=True)
            writable = os.access(path, os.W_OK)
        except OSError:
            writable = False
        if not writable:
            raise BadRequest(f"{flag}: {path} cannot be written, and what becomes of the devices is kept there")


def devices(arguments: argparse.Namespace) -> list[Device]:
    """The devices that ``add_access`` asks for."""
    from pipeline.ship import device

    if arguments.to:
        if arguments.group:
            raise BadRequest("--group goes with --inventory: --to is one device")
        return [device.addressed(arguments.to, arguments.store)]
    if arguments.store:
        raise BadRequest("--store goes with --to; in an inventory write store = …, under [defaults] for all")
    return device.grouped(device.inventory(arguments.inventory), arguments.group)


def access_of(arguments: argparse.Namespace) -> Access:
    """How these devices are entered; raises BadRequest where a key cannot be used."""
    from pipeline.ship import remote

    access = remote.Access(tuple(arguments.identity), arguments.known_hosts, arguments.python)
    remote.refuse(access)
    return access


def _asked(arguments: argparse.Namespace) -> Asked:
    """What the agents are told: the flags of each of their verbs."""
    from pipeline.ship.deliver import Asked

    flags_of_verb: dict[str, tuple[str, ...]] = {}
    for name, verbs in PASSED.items():
        value = getattr(arguments, name)
        if value is None or value is False:
            continue
        words = [f"--{name.replace('_', '-')}"]
        # A switch has no value.
        if value is not True:
            words.append(str(value))
        for verb in verbs:
            flags_of_verb[verb] = (*flags_of_verb.get(verb, ()), *words)
    return Asked(flags_of_verb, arguments.install_agent, arguments.bench, arguments.timeout)


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    from pipeline.console import progress

    with progress.phases(name) as update:
        yield update


# The headings of the table, and whether a column holds numbers, which go to the right.
COLUMNS = {
    "device": False,
    "group": False,
    "outcome": False,
    "version": False,
    "SQNR dB": True,
    "agree %": True,
    "p99 ms": True,
    "why": False,
}


def _deliver(fleet: Fleet, *, as_json: bool) -> None:
    """The table of all devices, or the same as JSON."""
    from pipeline.console import tables

    rows = list(fleet.rows())
    if as_json:
        content = {"stopped": fleet.stopped, "devices": rows}
        json.dump(content, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
        return

    console = tables.wide_console()
    console.print(tables.table(COLUMNS, map(_cells, rows)))
    if fleet.stopped:
        console.print(f"stopped: {fleet.stopped}; mend that and run the same again, the others were not touched")
    active = sum(row["outcome"].startswith("active") for row in rows)
    console.print(f"{active} of {len(rows)} devices run {fleet.bundle.manifest['name']}")


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield row["device"]
    yield row["group"]
    yield row["outcome"]
    yield row["version"] or "–"
    # A device that failed early has no figures.
    yield "–" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}"
    yield "–" if row["agreement"] is None else f"{100 * row['agreement']:.2f}"
    yield "–" if row["p99_ms"] is None else f"{row['p99_ms']:.3f}"
    yield row["why"] or ""
