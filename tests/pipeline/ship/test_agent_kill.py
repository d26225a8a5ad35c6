"""A power cut at any file operation: the version before or the new one is in use, whole, verified and answering."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from shipping import ROOT, Shipped, names

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def store(shipped: Shipped, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two verified versions, the older one in use."""
    path = tmp_path_factory.mktemp("killed") / "store"
    newer = shipped.again("newer.edge", released=1_790_000_001)
    for verb in (["build", shipped.file], ["verify"], ["activate"], ["build", newer], ["verify"]):
        done = shipped.run(*verb, "--store", path)
        assert done.returncode == 0, done.stderr
    return path


def asked(shipped: Shipped, step: int, *line: object, **own: str) -> tuple[dict[str, Any], str]:
    """What a script beside this file found, and what it said."""
    environment = {
        **shipped.environment, "STEP": str(step), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1",
        "BUNDLE": str(shipped.folder / "newer.edge"), **own,
    }  # fmt: skip
    done = subprocess.run(list(map(str, line)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.stderr


def killed(shipped: Shipped, store: Path, scenario: str, step: int) -> dict[str, Any]:
    work = store.with_name(f"work-{scenario}")
    found, said = asked(shipped, step, sys.executable, HERE / "killing.py", scenario, store, work, shipped.public)
    assert found["wrong"] == [], said
    return found


def cut(shipped: Shipped, store: Path, scenario: str, kind: str, step: int, synced: str = "all") -> dict[str, Any]:
    """The same with a disk that loses what was not flushed; its mounts end with the process."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as work:
        script = [sys.executable, HERE / "power.py", scenario, kind, store, work, shipped.public]
        found, said = asked(shipped, step, "unshare", "--mount", "--propagation", "private", *script, SYNCED=synced)
    assert synced != "all" or found["wrong"] == [], said
    return found


@pytest.mark.timeout(1800)  # 20 s of one processor
def test_an_activation_at_every_one_of_its_file_operations(shipped: Shipped, store: Path) -> None:
    assert killed(shipped, store, "activate", 1)["kills"] >= 200


@pytest.mark.parametrize(
    ("scenario", "step", "least"),
    [
        ("taken_back", 3, 60),
        ("first", 4, 40),
        ("rollback", 4, 40),
        ("gc", 1, 30),
        ("build", 50, 8),
        ("verified", 1, 10),
    ],
)
def test_what_else_changes_a_store(shipped: Shipped, store: Path, scenario: str, step: int, least: int) -> None:
    assert killed(shipped, store, scenario, step)["kills"] >= least


@pytest.mark.loop
@pytest.mark.timeout(1800)  # 45 s of one processor
def test_an_activation_on_a_disk_that_loses_power_at_every_write(shipped: Shipped, store: Path) -> None:
    found = cut(shipped, store, "activate", "ext4", 1)
    assert found["states"] >= 200
    assert found["flushes"] >= 8


@pytest.mark.loop
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("scenario", "kind", "step"),
    [
        ("update", "ext4", 40), ("verified", "ext4-writeback", 3), ("activate", "ext4-writeback", 4),
        ("taken_back", "ext4-writeback", 4), ("first", "ext4", 4), ("rollback", "ext4-writeback", 4), ("gc", "ext4", 2),
    ],
)  # fmt: skip
def test_what_else_changes_a_disk_that_loses_power(
    shipped: Shipped, store: Path, scenario: str, kind: str, step: int
) -> None:
    assert cut(shipped, store, scenario, kind, step)["states"] >= 20


@pytest.mark.loop
@pytest.mark.parametrize(
    ("scenario", "kind", "synced"), [("activate", "ext4", "files"), ("verified", "ext4-writeback", "folders")]
)
def test_that_disk_tells_what_was_not_synced(
    shipped: Shipped, store: Path, scenario: str, kind: str, synced: str
) -> None:
    assert cut(shipped, store, scenario, kind, 1, synced)["wrong"]


def test_files_are_on_the_disk_before_their_name_is(shipped: Shipped, tmp_path: Path) -> None:
    """The order of syncs and renames of a real build and activation, as the system was asked for them."""
    log = tmp_path / "log"
    code = f"""
import os, sys
log = os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def hook(_, event, function):
    name = getattr(function, "__name__", "")
    if event == "c_call" and getattr(function, "__module__", "") == "posix" and name in ("fsync", "rename", "replace"):
        os.write(log, (name + "\\n").encode())
sys.path.insert(0, {str(ROOT)!r})
from pipeline.ship.agent.__main__ import main
sys.setprofile(hook)
for line in (["build", {str(shipped.file)!r}], ["verify"], ["activate"]):
    assert main([*line, "--store", {str(tmp_path / "store")!r}, "--key", {str(shipped.public)!r}]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=shipped.environment, capture_output=True)
    said = log.read_text().split()
    # Every file of the version, then the folder's name, then the folder that holds it; no rename without a sync around.
    renames = [place for place, name in enumerate(said) if name in {"rename", "replace"}]
    assert len(renames) >= 5
    assert all(said[place - 1] == "fsync" for place in renames if said[place] == "rename")
    assert all(said[place + 1] == "fsync" for place in renames)
    (version,) = (tmp_path / "store/versions").iterdir()
    assert said.count("fsync") >= len(names(version))
