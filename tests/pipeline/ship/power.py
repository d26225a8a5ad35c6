"""Cuts the power of a disk at every write that a file system makes to it, and looks at what is left.

``python power.py SCENARIO KIND TEMPLATE WORK PUB`` prints, as JSON, how many states of the disk it looked at, and at
which events what was left was wrong. The disk is a loop device on a file of FUSE, which notes every write and flush in
their order. What was flushed is there after the cut; of what was written since, any part may be, in any order, and the
last block only in part.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import killing
from shipping import names

from pipeline.ship.agent import activation, build, device_facts, keys, verify
from pipeline.ship.agent.store import CURRENT, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Event = tuple[int, bytes]
MIB = 2**20
# mkfs, mount options, size. What is not synced stays in memory for minutes; nothing helps who forgets to sync.
KINDS = {
    "ext4": ("mkfs.ext4 -q -b 4096 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0", "commit=300", 28 * MIB),
    "ext4-writeback": (
        "mkfs.ext4 -q -b 4096 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0",
        "commit=300,data=writeback,noauto_da_alloc",
        28 * MIB,
    ),
}
# What is carried out when the agent syncs: without one of both, power cuts must do harm.
SYNCED = {"all": bool, "files": stat.S_ISREG, "folders": stat.S_ISDIR}
RECORD = struct.Struct(">QI")
SECTOR, BLOCK = 512, 4096
SUBSETS = 8  # of the writes since the last flush, at every STEP-th write
STEP = int(os.environ.get("STEP", "1"))


def serve(image: Path, folder: Path, log: Path) -> None:
    """A process that holds the disk; ends when ``folder`` is unmounted."""
    import mfusepy

    class Drive(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True
        content = bytearray(image.read_bytes())
        noted = log.open("ab", buffering=0)

        def getattr(self, path: str, _: Any = None) -> dict[str, int]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": len(self.content)}

        def readdir(self, _: str, __: Any) -> list[str]:
            return [".", "..", "disk"]

        def read(self, _: str, size: int, offset: int, __: Any) -> bytes:
            return bytes(self.content[offset : offset + size])

        def write(self, _: str, data: bytes, offset: int, __: Any) -> int:
            self.content[offset : offset + len(data)] = data
            self.noted.write(RECORD.pack(offset, len(data)) + data)
            return len(data)

        def fsync(self, *_: Any) -> int:
            self.noted.write(RECORD.pack(0, 0))
            return 0

    mfusepy.FUSE(Drive(), str(folder), foreground=True, nothreads=True)


def call(*line: object) -> None:
    subprocess.run(list(map(str, line)), check=True, stdout=subprocess.DEVNULL)


def events(log: bytes) -> list[Event]:
    """(offset, content) of each block written, since no disk promises more at once; a flush has no content."""
    found, place = [], 0
    while place < len(log):
        offset, size = RECORD.unpack_from(log, place)
        place += RECORD.size
        written = log[place : place + size]
        found += [(offset + start, written[start : start + BLOCK]) for start in range(0, size, BLOCK)] or [(0, b"")]
        place += size
    return found


def states(base: bytes, noted: list[Event], ended: int) -> Iterator[tuple[int, bytes]]:
    """(number of events, disk): every state that a cut after so many events may leave, or a drawn part of them."""
    draw = random.Random(0)
    flushed, since = bytearray(base), list[Event]()
    yield 0, base
    for number, event in enumerate(noted, 1):
        if not event[1]:
            for offset, content in since:
                flushed[offset : offset + len(content)] = content
            since = []
        if not event[1] or number == ended:
            yield number, bytes(flushed)
        if event[1] and number % STEP == 0:
            for written in written_of(since, event, draw):
                disk = bytearray(flushed)
                for offset, content in written:
                    disk[offset : offset + len(content)] = content
                yield number, bytes(disk)
        if event[1]:
            since.append(event)


def written_of(since: list[Event], event: Event, draw: random.Random) -> Iterator[list[Event]]:
    """What may be on the disk of the writes ``since`` the last flush and of ``event`` after them, without a flush."""
    chosen: list[tuple[bool, ...]]
    if 2 ** len(since) > SUBSETS:
        drawn = [tuple(draw.random() < 0.5 for _ in since) for _ in range(SUBSETS - 2)]
        chosen = [(True,) * len(since), (False,) * len(since), *drawn]
    else:
        chosen = list(itertools.product((True, False), repeat=len(since)))
    # Those without this write were possible before it.
    yield from ([*itertools.compress(since, kept), event] for kept in chosen)
    yield [*since, (event[0], event[1][: draw.randrange(SECTOR, BLOCK, SECTOR)])]


class Bench:
    """Where a scenario is recorded and its states are mounted; ``folder`` is in memory, its mounts end with us."""

    def __init__(self, scenario: str, kind: str, template: Path, folder: Path, public: str) -> None:
        self.scenario, self.template = scenario, template
        self.make, self.options, self.size = KINDS[kind]
        self.image, self.log = folder / "image", folder / "log"
        self.fuse, self.mounted = folder / "fuse", folder / "mounted"
        for each in (self.fuse, self.mounted):
            each.mkdir(parents=True)
        self.trusted = keys.read([public])
        self.store = Store(str(self.mounted / "store"), self.trusted)
        self.old, self.new = names(template / "versions")
        self.here = killing.device(Store(str(template), self.trusted), self.new)

    def mount(self, disk: Path) -> None:
        call("mount", "-o", f"loop,{self.options}", disk, self.mounted)

    def unmount(self) -> None:
        call("umount", self.mounted)

    def prepare(self) -> bytes:
        """A disk with the store before the scenario; all of it is on the disk."""
        with self.image.open("wb") as file:
            file.truncate(self.size)
        call(*self.make.split(), self.image)
        self.mount(self.image)
        killing.prepared(self.template, self.mounted / "store", self.scenario, shutil.copy2)
        self.unmount()
        return self.image.read_bytes()

    def record(self, kept: Callable[[int], bool]) -> tuple[list[Event], int, int]:
        """All events, how many there were when the scenario had ended, and its file operations.

        ``kept`` says of a file's mode whether to sync such a file is carried out.
        """
        server = os.fork()
        if server == 0:
            serve(self.image, self.fuse, self.log)
            os._exit(0)
        while not (self.fuse / "disk").exists():
            time.sleep(0.01)
        self.mount(self.fuse / "disk")
        places: list[int] = []

        def at_operation(_: Any, event: str, function: Any) -> None:
            if event in {"c_call", "c_return"} and killing.is_operation(function):
                places.append(self.log.stat().st_size)

        def acted() -> None:
            sync = os.fsync
            os.fsync = lambda handle: sync(handle) if kept(os.fstat(handle).st_mode) else None
            sys.setprofile(at_operation)
            self.act()
            sys.setprofile(None)
            ended = self.log.stat().st_size
            (self.log.parent / "places").write_text(json.dumps([len(places), ended]))

        code = killing.forked(acted)
        content = self.log.read_bytes()
        self.unmount()
        call("umount", self.fuse)
        os.waitpid(server, 0)
        assert code == 0
        operations, ended = json.loads((self.log.parent / "places").read_text())
        return events(content), len(events(content[:ended])), operations

    def act(self) -> None:
        if self.scenario != "update":
            killing.act(self.scenario, self.store, self.here, self.new)
            return
        options = argparse.Namespace(
            engine="auto", workspace=None, timeout=300, allow_downgrade=False, allow_unknown=False
        )
        version = build.build(self.store, os.environ["BUNDLE"], device_facts.read(), options, lambda _: None)
        assert version == self.new
        verify.verify(self.store, version, self.here, "", 300, lambda _: None)
        activation.activate(self.store, version, self.here, killing.well)
        activation.gc(self.store, 0)

    def look(self, ended: bool) -> None:
        """What any cut may leave; and once the agent has said that it is done, it is done."""
        if ended and self.scenario in {"activate", "first", "update"}:
            assert self.store.linked(CURRENT) == self.new
        if ended and self.scenario in {"rollback", "taken_back"}:
            assert self.store.linked(CURRENT) == self.old
        if ended and self.scenario in {"build", "update"}:
            self.store.whole(self.new)
        killing.left("build" if self.scenario == "update" else self.scenario, self.store, self.old, self.new, self.here)


def main(scenario: str, kind: str, template: Path, folder: Path, public: str) -> None:
    import onnxruntime  # noqa: F401  # once, before all the forks

    bench = Bench(scenario, kind, template, folder, public)
    base = bench.prepare()
    noted, ended, operations = bench.record(SYNCED[os.environ["SYNCED"]])
    looked, wrong = 0, []
    for looked, (number, disk) in enumerate(states(base, noted, ended), 1):  # noqa: B007
        bench.image.write_bytes(disk)
        bench.mount(bench.image)
        if killing.forked(lambda: bench.look(number >= ended)):  # noqa: B023
            wrong.append(number)
        bench.unmount()
    flushes = sum(not content for _, content in noted)
    json.dump(
        {
            "states": looked,
            "writes": len(noted) - flushes,
            "flushes": flushes,
            "operations": operations,
            "wrong": wrong,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
