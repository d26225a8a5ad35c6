"""Thousands of bundles that must be refused: each with a sentence, by the code that the device runs.

``python mutations.py FILE KEY COUNT`` prints how many were refused, what was wrong, and the most memory it took.
"""

from __future__ import annotations

import copy
import json
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pipeline.ship.agent import container, contents, keys, manifest
from pipeline.ship.agent.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("../evil", "/etc/passwd", "..", ".", "a/b", "A.onnx", "model.onnx\0", "", "x" * 65, "card.md/", "\u202e.md")
# What no field may be, whichever it is.
ODD: tuple[Any, ...] = (-(10**9), 2**64, 10**400, "", "é", "a b", [], {}, True, [[[]]], ["x"], {"a": 1})
# What no class is called.
NO_NAMES: tuple[Any, ...] = (None, 7, True, [], {}, "x" * 201, "a\nb", "\x1b[2J", "\u202e", "\ud800")
EXTERNAL = bytes(
    [0x3A, 12, 10, 0, 0x2A, 8, 0x6A, 6, 10, 1, 97, 18, 1, 98]
)  # graph: a node, and a tensor kept in a file


class Factory:
    """Mutants of one bundle; ``kind`` and what the sentence must name go with each."""

    def __init__(self, file: Path, key: Path) -> None:
        self.whole = file.read_bytes()
        self.key: Any = load_pem_private_key(key.read_bytes(), None)
        self.length = container.START.unpack(self.whole[: container.START.size])[2]
        self.start = container.START.size + self.length + container.SIGNATURE
        text = self.whole[container.START.size : container.START.size + self.length]
        self.manifest = json.loads(text)
        self.random = random.Random(0)

    def member_at(self, place: int) -> str:
        for member in self.manifest["members"]:
            place -= member["size"]
            if place < 0:
                return str(member["name"])
        raise AssertionError

    def flip(self) -> tuple[bytes, str]:
        # Every other one in the head, which is small.
        place = self.random.randrange(self.start if self.random.random() < 0.5 else len(self.whole))
        content = bytearray(self.whole)
        content[place] ^= 1 << self.random.randrange(8)
        return bytes(content), self.member_at(place - self.start) if place >= self.start else ""

    def cut(self) -> tuple[bytes, str]:
        place = self.random.choice([self.random.randrange(len(self.whole)), self.random.randrange(self.start)])
        return self.whole[:place], self.member_at(place - self.start) if place >= self.start else ""

    def longer(self) -> tuple[bytes, str]:
        return self.whole + self.random.randbytes(self.random.randrange(1, 100)), ""

    def swapped(self) -> tuple[bytes, str]:
        """Two members in each other's place."""
        pieces, place = [], self.start
        for member in self.manifest["members"]:
            pieces.append(self.whole[place : place + member["size"]])
            place += member["size"]
        one = self.random.randrange(len(pieces))
        # Two vectors may have the same bytes.
        other = self.random.choice([place for place, piece in enumerate(pieces) if piece != pieces[one]])
        pieces[one], pieces[other] = pieces[other], pieces[one]
        return self.whole[: self.start] + b"".join(pieces), ""

    def header(self) -> tuple[bytes, str]:
        version, length = self.random.choice([(1, self.random.randrange(2**32)), (self.random.randrange(2, 2**32), 10)])
        return container.START.pack(container.MAGIC, version, length) + self.whole[container.START.size :], ""

    def signed(self, text: bytes, rest: bytes | None = None) -> bytes:
        head = container.START.pack(container.MAGIC, container.VERSION, len(text)) + text
        return head + self.key.sign(head) + (self.whole[self.start :] if rest is None else rest)

    def field(self) -> tuple[bytes, str]:
        """Validly signed, and one field is another, missing or too much."""
        said = copy.deepcopy(self.manifest)
        bounds = said["bounds"]
        tables = [said, said["model"], bounds, bounds["worst_class"], self.random.choice(said["members"])]
        place: Any = self.random.choice([*tables, said["model"]["batches"]])
        names = list(place) if isinstance(place, dict) else list(range(len(place)))
        name = self.random.choice(names)
        action = self.random.randrange(4)
        # The one field that may be missing, and the one that may be any text.
        if name == "worst_class" and action == 0:
            action = 1
        if place is bounds["worst_class"] and name == "name":
            place[name] = self.random.choice(NO_NAMES)
        elif action == 0:
            del place[name]
        elif action == 1 and isinstance(place, dict):
            place[f"{name}_"] = 1
        else:
            place[name] = self.random.choice(ODD)
        return self.signed(manifest.encoded(said)), ""

    def name(self) -> tuple[bytes, str]:
        said = copy.deepcopy(self.manifest)
        self.random.choice(said["members"])["name"] = self.random.choice(
            [*NAMES, *(member["name"] for member in said["members"][:1]), "extra.bin", "run.py"]
        )
        if said == self.manifest:
            said["members"].append(said["members"][0])
        return self.signed(manifest.encoded(said)), ""

    def text(self) -> tuple[bytes, str]:
        """Validly signed, and no canonical JSON."""
        good = manifest.encoded(self.manifest)
        return self.signed(
            self.random.choice(
                [
                    json.dumps(self.manifest).encode(),
                    b"[" * self.random.randrange(1, 10**5),
                    b'{"a":' * 10**4 + b"1" + b"}" * 10**4,
                    good[: self.random.randrange(len(good))],
                    good[:-1] + b',"schema":1}',
                    b"\xff" * 100,
                    b"",
                    b"null",
                    b"[]",
                    b"NaN",
                    good.replace(b'"schema":1', b'"schema":NaN'),
                    good.replace(b'"schema":1', b'"schema":1.0'),
                    self.random.randbytes(self.random.randrange(200)),
                ]
            )
        ), ""

    def bomb(self) -> tuple[bytes, str]:
        """Sizes that no file holds."""
        said = copy.deepcopy(self.manifest)
        for member in said["members"]:
            if self.random.random() < 0.5:
                member["size"] = self.random.choice([2**31, 2**30, 2**40, member["size"] + 1, 10**9])
        said["members"][0]["size"] += 1
        return self.signed(manifest.encoded(said)), ""

    def content(self) -> tuple[bytes, str]:
        """Validly signed, hashes and all, and what a member holds is not what its name says."""
        name = self.random.choice(
            ["model.onnx", "classes.json", "conformance.json", "golden-images.npy", "golden-judged.npy"]
        )
        choices = {".onnx": self.graphs, ".json": self.texts, ".npy": self.arrays}
        held = self.random.choice(list(choices[name[name.index(".") :]](name)))
        return self.packed(name, held), name

    def packed(self, name: str, held: bytes) -> bytes:
        import hashlib

        pieces, place, said = [], self.start, copy.deepcopy(self.manifest)
        for member in said["members"]:
            piece = self.whole[place : place + member["size"]]
            place += member["size"]
            if member["name"] == name:
                piece = held
                member |= {"size": len(held), "sha256": hashlib.sha256(held).hexdigest()}
            pieces.append(piece)
        return self.signed(manifest.encoded(said), b"".join(pieces))

    def held(self, name: str) -> bytes:
        place = self.start
        for member in self.manifest["members"]:
            if member["name"] == name:
                return self.whole[place : place + member["size"]]
            place += member["size"]
        raise AssertionError

    def graphs(self, name: str) -> Iterator[bytes]:
        good = self.held(name)
        nested = b""
        for _ in range(200):
            nested = b"\x32" + varint(len(nested)) + nested  # an attribute's graph
            nested = b"\x2a" + varint(len(nested)) + nested
            nested = b"\x0a" + varint(len(nested)) + nested
        yield from (b"", b"\0", b"PK\3\4", EXTERNAL, b"\x3a" + varint(len(nested)) + nested, good + EXTERNAL)
        yield good[: self.random.randrange(1, len(good) - 1)]
        yield b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + good
        yield good + b"\x3b"

    def texts(self, _: str) -> Iterator[bytes]:
        yield from (b"", b"[" * 10**5, b"{", b"\xff", b"1", b'{"a":' * 10**5, b'["a"]', b"null")

    def arrays(self, name: str) -> Iterator[bytes]:
        good = self.held(name)
        for shape in (
            "(9999999999, 9999999999)",
            "()",
            "(1,)",
            "(0, 1, 32, 32)",
            "(-1, 1)",
            "((((((((1",
            "(64, 10, 10**9)",
        ):
            yield npy("<f4", shape) + good[128:]
        yield npy("|O", "(3,)") + b"cos\nsystem\n(S'true'\ntR."
        yield npy("<f8", "(2, 10)") + bytes(160)
        yield npy("<f4", "(24, 10)") + b"\xff" * 960 if name == "golden-judged.npy" else good[:64]
        yield from (b"", b"\x93NUMPY", good[:-1], good + b"\0", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)


def npy(kind: str, shape: str) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def judge(path: Path, trusted: keys.Keys) -> str:
    """The sentence of the refusal, or what is wrong with it."""
    try:
        found = container.opened(str(path), trusted)
        found.check()
        contents.refuse(found)
    except Refused as error:
        said = str(error)
        return said if said.startswith(str(path)) and len(said) > len(str(path)) + 20 else f"WRONG: no sentence: {said}"
    except BaseException as error:  # noqa: BLE001
        return f"WRONG: {type(error).__name__}: {error}"
    return "WRONG: accepted"


def main(file: Path, key: Path, count: int) -> None:
    made = Factory(file, key)
    trusted = keys.read([f"{key}.pub"])
    kinds = (
        [made.flip] * 6 + [made.cut] * 2 + [made.longer, made.swapped, made.header]
        + [made.field] * 3 + [made.name, made.text, made.bomb, made.content, made.content]
    )  # fmt: skip
    wrong: list[str] = []
    asked: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mutant.edge")
        for number in range(count):
            kind = kinds[number % len(kinds)]
            content, named = kind()
            assert content != made.whole
            assert len(content) < 10**6
            path.write_bytes(content)
            said = judge(path, trusted)
            asked[kind.__name__] = asked.get(kind.__name__, 0) + 1
            if said.startswith("WRONG") or named not in said:
                wrong.append(f"{kind.__name__} ({named}): {said[:300]}")
    # Not ru_maxrss: a child begins with that of the process it was forked from.
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    json.dump({"asked": asked, "wrong": wrong[:20], "wrongs": len(wrong), "peak_mb": peak}, sys.stdout, indent=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
