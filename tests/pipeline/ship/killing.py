"""Kills a real process at its n-th file operation, for every n, and looks at what is left.

``python killing.py SCENARIO STORE WORK PUB`` prints, as JSON, at how many points it was killed and what was wrong. A
file operation is any call into ``posix`` and any read, write, flush or close of a file, before it and after it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipping import names

from pipeline.ship.agent import activation, build, device_facts, disk, keys, verify
from pipeline.ship.agent.errors import AgentError, Failed
from pipeline.ship.agent.store import CURRENT, PREVIOUS, Store

if TYPE_CHECKING:
    from collections.abc import Callable

LISTED = {"edge-store.json", "versions", CURRENT, PREVIOUS, "pending.json"}
# What asks and changes nothing.
IDLE = {"fspath", "getpid", "stat", "lstat", "fstat", "lseek", "readlink", "listdir", "scandir", "getcwd", "geteuid"}
FILES = {"write", "flush", "close", "read", "readline"}


def is_operation(function: Any) -> bool:
    name = getattr(function, "__name__", "")
    if getattr(function, "__module__", None) in {"posix", "fcntl"}:
        return name not in IDLE
    return name in FILES and hasattr(getattr(function, "__self__", None), "fileno")


class Killer:
    """A profile hook that ends its own process, as a power cut would, at operation ``number``."""

    def __init__(self, number: int) -> None:
        self.number, self.count = number, 0

    def __call__(self, _: Any, event: str, function: Any) -> None:
        if event in {"c_call", "c_return"} and is_operation(function):
            self.count += 1
            if self.count == self.number:
                os.kill(os.getpid(), signal.SIGKILL)


def unwell(_: str) -> None:
    raise Failed("the camera shows nothing")


def well(folder: str) -> None:
    Path(folder, "model.onnx").read_bytes()


def device(store: Store, version: str) -> dict[str, Any]:
    return device_facts.read().device(str(store.built(version)["device"]["engine"]))


def act(scenario: str, store: Store, here: dict[str, Any], new: str) -> None:
    if scenario == "build":
        options = argparse.Namespace(
            engine="auto", workspace=None, timeout=60, allow_downgrade=False, allow_unknown=False
        )
        build.build(store, os.environ["BUNDLE"], device_facts.read(), options, lambda _: None)
    elif scenario == "rollback":
        activation.rollback(store, here)
    elif scenario == "gc":
        activation.gc(store, 0)
    elif scenario == "verified":
        disk.replace(store.path(new, "verified.json"), json.dumps(store.verified(new)).encode())
    else:
        health = unwell if scenario == "taken_back" else well
        try:
            activation.activate(store, new, here, health)
        except Failed:
            assert scenario == "taken_back"


def prepared(template: Path, work: Path, scenario: str, copy: Callable[..., Any] = os.link) -> None:
    """A copy of the store as it is before ``scenario``; versions never change, so their files are shared."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(template, work, symlinks=True, copy_function=copy)
    if scenario == "first":
        (work / CURRENT).unlink()
    if scenario in {"build", "update"}:
        shutil.rmtree(work / "versions" / names(work / "versions")[1])
    if scenario == "rollback":
        old, new = names(work / "versions")
        (work / PREVIOUS).symlink_to(f"versions/{old}")
        (work / CURRENT).unlink()
        (work / CURRENT).symlink_to(f"versions/{new}")
    if scenario == "gc":
        (work / f"{disk.UNFINISHED}current").symlink_to("versions/nothing")
        (work / "versions" / f"{disk.UNFINISHED}abc").mkdir()
        (work / "versions" / f"{disk.UNFINISHED}abc" / "half").write_bytes(b"half")


def left(scenario: str, store: Store, old: str, new: str, here: dict[str, Any]) -> None:
    """One version is in use, whole, verified, and its engine answers the goldens; nothing else is left after gc."""
    current = store.linked(CURRENT)
    assert current in ({None, new} if scenario == "first" else {old, new}), current
    if current is not None:
        store.loadable(current, here)
        found = verify.examine(
            {
                "folder": f"{store.root}/{CURRENT}",
                "file": store.built(current)["engine"],
                "runtime": "onnxruntime",
                "keys": {name: key.hex() for name, key in store.keys.items()},
                "latency": False,
            }
        )
        assert found["broken"] == [], found
    activation.gc(store, 5)
    assert set(names(Path(store.root))) <= LISTED
    assert not [name for name in names(Path(store.versions)) if name.startswith(".")]
    if scenario == "build":
        act("build", store, here, new)
        store.whole(new)
    elif scenario != "gc":
        for version in (old, new):
            assert not [name for name in names(Path(store.path(version))) if name.startswith(disk.UNFINISHED)], version
        activation.activate(store, new, here, well)
        assert store.linked(CURRENT) == new
        assert store.pending() == {}


def forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except (AssertionError, AgentError, OSError):
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(scenario: str, template: Path, work: Path, public: str) -> None:
    trusted = keys.read([public])
    store = Store(str(work), trusted)
    old, new = names(template / "versions")
    here = device(Store(str(template), trusted), new)
    import onnxruntime  # noqa: F401  # once, before all the forks

    def killed() -> None:
        sys.setprofile(Killer(number))
        act(scenario, store, here, new)
        sys.setprofile(None)

    number, kills, wrong = 1, 0, []
    while True:
        prepared(template, work, scenario)
        code = forked(killed)
        if code != -signal.SIGKILL:
            assert code == 0, code
            break
        kills += 1
        if forked(lambda: left(scenario, store, old, new, here)):
            wrong.append(number)
        number += STEP
    json.dump({"kills": kills, "operations": number, "wrong": wrong}, sys.stdout)


STEP = int(os.environ.get("STEP", "1"))

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
