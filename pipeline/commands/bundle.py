"""``python -m pipeline bundle …``: a build as one signed file for a device, and the agent that reads it there."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest, Exit
from pipeline.recipe import whole

if TYPE_CHECKING:
    from pipeline.ship.agent.container import Bundle

HELP = "ship a build as one signed file, and make the agent that builds and activates its engine on a device"
EXAMPLES = """examples:
  python -m pipeline bundle keygen release
  python -m pipeline bundle agent --key release.pub -o edge-agent.pyz
  python -m pipeline bundle create build/resnext50-int8 --key release -o resnext50.edge
  python -m pipeline bundle verify resnext50.edge --key release.pub
  python -m pipeline bundle export resnext50.edge --key release.pub --format trtexec --tensorrt 10.3.0 -o engine
"""
# The actions that read one bundle.
READING = {
    "verify": "is it what one of these keys signed",
    "unpack": "its members into a new folder",
    "export": "for Triton, DeepStream or trtexec, into a new folder",
}


def add_flags(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The flags of each action, and the parsers of all of them."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    keygen = actions.add_parser("keygen", help="a new Ed25519 key: PATH, which only you can read, and PATH.pub")
    keygen.add_argument("path", type=Path, metavar="PATH")

    create = actions.add_parser("create", help="the bundle of a build that passed")
    _add_create_flags(create)

    for name, text in READING.items():
        reader = actions.add_parser(name, help=text)
        reader.add_argument("file", type=Path, metavar="FILE")
        _add_trusted_keys(reader)
        if name == "export":
            _add_export_flags(reader)
        if name == "verify":
            reader.add_argument("--json", action="store_true", help="print the manifest as JSON")
        else:
            reader.add_argument(
                "-o", "--output", type=Path, metavar="DIR", required=True, help="a folder that is not there"
            )

    agent = actions.add_parser("agent", help="the device agent as one file, with the keys that it trusts")
    _add_trusted_keys(agent)
    agent.add_argument("-o", "--output", type=Path, default=Path("edge-agent.pyz"), help="(default: edge-agent.pyz)")
    return list(actions.choices.values())


def _add_trusted_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", type=str, metavar="PUB", action="append", required=True, help="trusted; again for more"
    )


def _add_export_flags(export: argparse.ArgumentParser) -> None:
    export.add_argument("--format", required=True, choices=("triton", "deepstream", "trtexec"))
    export.add_argument("--tensorrt", metavar="VERSION", help="on the device (default: the bundle's)")
    export.add_argument(
        "--engine", type=Path, metavar="FILE", help="for triton: an engine that was built and verified where it serves"
    )


def _add_create_flags(create: argparse.ArgumentParser) -> None:
    create.add_argument("directory", type=Path, metavar="DIR", help="what -o named when it was built")
    create.add_argument("--key", type=Path, required=True, help="the private key of bundle keygen")
    create.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.edge")
    create.add_argument(
        "--released",
        type=whole(0, 2**40),
        metavar="SECONDS",
        help="since 1970; a device takes none older than what it runs (default: SOURCE_DATE_EPOCH, else of the report)",
    )
    create.add_argument("--expires-days", type=whole(1, 36500), metavar="N", help="after that no device builds it")
    create.add_argument("--goldens", type=whole(8, 4096), default=64, metavar="N", help="images to ask (default: 64)")
    create.add_argument(
        "--max-latency-ms", type=_milliseconds, metavar="MS", help="that 99 %% of runs must keep on the device"
    )
    create.add_argument("--licence", type=Path, metavar="FILE", help="of the model")
    create.add_argument(
        "--timing-cache", metavar="DEVICE=FILE", action="append", help="for a device type, as in jetson-orin-nx=a.cache"
    )
    create.add_argument("--agent", type=Path, metavar="PYZ", help="a newer agent, for the one on the device to verify")


def _milliseconds(text: str) -> float:
    """A time as argparse reads it."""
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no time from 0 to 1e9 ms")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 where it is done, 2 where it is refused."""
    from pipeline.ship.agent.errors import AgentError

    action = ACTIONS[arguments.action]
    try:
        for line in action(arguments):
            sys.stdout.write(f"{line}\n")
    except AgentError as error:
        # The agent runs alone on a device, and knows no errors but its own.
        raise BadRequest(str(error)) from error
    return Exit.PASS


def _open(arguments: argparse.Namespace) -> Bundle:
    """The bundle, signed by one of the trusted keys, and every member of it what was signed."""
    from pipeline.ship.agent import container, keys

    bundle = container.opened(str(arguments.file), keys.read(arguments.key))
    bundle.check()
    return bundle


def _open_whole(arguments: argparse.Namespace) -> Bundle:
    """The same, and every member holds what it must hold."""
    from pipeline.ship.agent import contents

    bundle = _open(arguments)
    contents.refuse(bundle)
    return bundle


def _export(arguments: argparse.Namespace) -> list[str]:
    from pipeline.ship import export

    bundle = _open_whole(arguments)
    return export.export(bundle, arguments.format, arguments.output, arguments.tensorrt, arguments.engine)


def _keygen(arguments: argparse.Namespace) -> list[str]:
    from pipeline.ship import signing

    name = signing.keygen(arguments.path)
    return [f"{arguments.path} signs, keep it; {arguments.path}.pub goes to the devices; its name is {name}"]


def _create(arguments: argparse.Namespace) -> list[str]:
    from pipeline.ship import bundle

    timing_caches: dict[str, Path] = {}
    for text in arguments.timing_cache or ():
        device, path = _timing_cache(text)
        timing_caches[device] = path
    manifest = bundle.create(
        arguments.directory,
        arguments.key,
        arguments.output,
        goldens=arguments.goldens,
        released=arguments.released,
        expires_days=arguments.expires_days,
        max_latency_ms=arguments.max_latency_ms,
        licence=arguments.licence,
        timing_caches=timing_caches,
        agent=arguments.agent,
    )
    return [f"{arguments.output}: {_summary(manifest)}"]


def _timing_cache(text: str) -> tuple[str, Path]:
    """The device type and the file of one --timing-cache."""
    device, _, path = text.partition("=")
    if not re.fullmatch("[a-z0-9-]+", device) or not path:
        raise BadRequest(f"--timing-cache {text} is no DEVICE=FILE, as in jetson-orin-nx=a.cache")
    return device, Path(path)


def _verify(arguments: argparse.Namespace) -> list[str]:
    manifest = _open_whole(arguments).manifest
    if arguments.json:
        return [json.dumps(manifest, indent=1)]
    return [f"{arguments.file}: signed by {manifest['signer']} and whole; {_summary(manifest)}"]


def _unpack(arguments: argparse.Namespace) -> list[str]:
    from pipeline.ship import export

    bundle = _open(arguments)
    with export.folder(arguments.output) as fresh:
        bundle.unpack(str(fresh))
    return [f"{arguments.output}: {_summary(bundle.manifest)}"]


def _agent(arguments: argparse.Namespace) -> list[str]:
    from pipeline.ship import zipapp
    from pipeline.ship.agent import keys

    trusted = keys.read(arguments.key)
    size = zipapp.write(arguments.output, trusted)
    return [
        f"{arguments.output}: {size / 1024:.0f} KiB, trusts {', '.join(trusted)}; python3 {arguments.output} --help"
    ]


def _summary(manifest: dict[str, Any]) -> str:
    """What a bundle is, for a person."""
    model = manifest["model"]
    members = manifest["members"]
    size = sum(member["size"] for member in members)
    subject = f"{model['arch']} in {model['precision']}"
    if model["target"]:
        subject += f" for {model['target']}"
    times = f"released {manifest['released']}"
    if manifest["expires"]:
        times += f", expires {manifest['expires']}"
    return f"{subject}, {len(members)} members, {size / 1e6:.1f} MB, {times}"


ACTIONS = {
    "keygen": _keygen,
    "create": _create,
    "verify": _verify,
    "unpack": _unpack,
    "export": _export,
    "agent": _agent,
}
