"""Bundles and agents for the tests: real keys, a real build, real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pipeline.ship import bundle
from pipeline.ship.agent import container, keys

ROOT = Path(__file__).resolve().parent.parent.parent


class Shipped:
    """A signed bundle of a build, its keys, and the agent that trusts them; ``again`` signs another like it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.key, self.public = folder / "release", folder / "release.pub"
        self.file, self.agent = folder / "a.edge", folder / "edge-agent.pyz"

    def pipeline(self, *flags: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "pipeline", "bundle", *map(str, flags)]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, check=False, cwd=ROOT)

    def run(self, *flags: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """The agent as it stands on a device: one file, and nothing of this project on the path."""
        bare = {name: value for name, value in self.environment.items() if name != "PYTHONPATH"} | options.pop(
            "env", {}
        )
        line = [sys.executable, str(self.agent), *map(str, flags)]
        return subprocess.run(line, env=bare, capture_output=True, text=True, check=False, cwd=self.folder, **options)

    def trusted(self) -> keys.Keys:
        return keys.read([str(self.public)])

    def opened(self) -> container.Bundle:
        return container.opened(str(self.file), self.trusted())

    def members(self) -> dict[str, bytes]:
        found = self.opened()
        return {name: found.read(name) for name in found.places}

    def again(self, name: str, members: dict[str, bytes] | None = None, **said: Any) -> Path:
        """A validly signed bundle with other members or other fields of the manifest."""
        manifest = {**self.opened().manifest, **said}
        key = load_pem_private_key(self.key.read_bytes(), None)
        path = self.folder / name
        path.write_bytes(bundle.pack(key, manifest, self.members() | (members or {})))  # type: ignore[arg-type]
        return path

    def wrong(self, name: str, **said: Any) -> Path:
        """A validly signed bundle of a network with other weights: its goldens tell."""
        judged = self.members()["golden-judged.npy"]
        content = judged[:128] + np.frombuffer(judged[128:], np.float32)[::-1].tobytes()
        return self.again(name, {"golden-judged.npy": content, "golden-reference.npy": content}, **said)


def refused(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one sentence of what was refused."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    return sentence


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
