"""The agent end to end with ONNX Runtime, as the one file that goes to a device; and what it refuses there."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shipping import ROOT, Shipped, names, refused, tree

from pipeline.ship import bundle_members, signing
from pipeline.ship.agent import child, latency
from pipeline.ship.agent.errors import Broken, Refused

# The build's own bound of an engine next to the file that it was built from, in dB (docs/bounds.md).
BOUND = 30.0


@pytest.fixture(scope="module")
def device(shipped: Shipped, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one version in use; not to be changed."""
    store = tmp_path_factory.mktemp("device") / "store"
    for verb in (["preflight", shipped.file], ["build", shipped.file], ["verify"], ["activate"]):
        done = shipped.run(*verb, "--store", store)
        assert done.returncode == 0, done.stderr
    return store


def copied(device: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", device, tmp_path / "store"], check=True)
    return tmp_path / "store"


def status(shipped: Shipped, store: Path) -> dict[str, Any]:
    done = shipped.run("status", "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_answers_are_those_that_were_judged(shipped: Shipped, device: Path, built: Path) -> None:
    """The engine that the agent built and activated, run by itself, next to the build's own answers."""
    import onnxruntime
    import safetensors.numpy

    found = status(shipped, device)
    assert found["pending"] is None
    assert [row["is"] for row in found["versions"]] == [["active", "verified"]]
    verified = json.loads((device / "current/verified.json").read_text())
    assert verified["judged_db"] >= BOUND
    images = np.load(device / "current/golden-images.npy").astype(np.float32)
    session = onnxruntime.InferenceSession(str(device / "current/engine.onnx"), providers=["CPUExecutionProvider"])
    answers = session.run(None, {"images": images})[0]
    judged = np.load(device / "current/golden-judged.npy")
    noise = ((answers - judged) ** 2).sum(1)
    assert float(np.median(10 * np.log10((judged**2).sum(1) / noise))) >= BOUND
    reference = safetensors.numpy.load_file(built / "answers.safetensors")["reference"]
    golden = np.load(device / "current/golden-reference.npy")
    assert all((row == reference).all(1).any() for row in golden)


def test_a_network_with_other_answers_is_never_active(shipped: Shipped, device: Path, tmp_path: Path) -> None:
    store = copied(device, tmp_path)
    before = status(shipped, store)["active"]
    done = shipped.run("build", shipped.wrong("wrong.edge", released=1_790_000_009), "--store", store, "--quiet")
    version = done.stdout.strip()
    sentence = refused(shipped.run("verify", version, "--store", store), 1)
    assert "goldens keep" in sentence
    assert sentence.endswith("it is not activated")
    assert "has not passed verification" in refused(shipped.run("activate", version, "--store", store))
    assert status(shipped, store)["active"] == before
    assert f"removed {version}" in shipped.run("gc", "--store", store).stdout
    assert names(store / "versions") == [before]


def test_what_is_not_well_is_taken_back_and_rollback_goes_back(shipped: Shipped, device: Path, tmp_path: Path) -> None:
    store = copied(device, tmp_path)
    old = status(shipped, store)["active"]
    new = shipped.run("build", shipped.again("two.edge", released=1_790_000_002), "--store", store).stdout.strip()
    assert shipped.run("verify", new, "--store", store).returncode == 0
    for health, words in (("exit 3", "answered 3"), ("sleep 30", "did not end within 1 s")):
        sentence = refused(
            shipped.run("activate", new, "--store", store, "--health-cmd", health, "--health-seconds", 1), 1
        )
        assert words in sentence
        assert sentence.endswith(f"rolled back to {old}")
        assert status(shipped, store)["active"] == old
    health = 'echo well; test -f "$EDGE_VERSION/engine.onnx"'
    assert shipped.run("activate", new, "--store", store, "--health-cmd", health).returncode == 0
    assert status(shipped, store)["active"] == new
    # An engine that was changed after it was verified is not gone back to.
    assert f"{old} is active again" in shipped.run("rollback", "--store", store).stdout
    assert "no version before" in refused(shipped.run("rollback", "--store", store))
    engine = store / "versions" / new / "engine.onnx"
    engine.write_bytes(engine.read_bytes()[:-1] + b"x")
    assert "not what was built here" in refused(shipped.run("activate", new, "--store", store))


def test_releases_keys_and_dates(shipped: Shipped, device: Path, tmp_path: Path) -> None:
    store = copied(device, tmp_path)
    old = shipped.again("old.edge", released=1_780_000_000)
    assert "older; --allow-downgrade takes it anyway" in refused(shipped.run("build", old, "--store", store))
    done = shipped.run("build", old, "--store", store, "--allow-downgrade")
    assert shipped.run("verify", done.stdout.strip(), "--store", store).returncode == 0
    assert "--allow-downgrade" in refused(shipped.run("activate", done.stdout.strip(), "--store", store))
    assert shipped.run("activate", done.stdout.strip(), "--store", store, "--allow-downgrade").returncode == 0
    late = shipped.again("late.edge", released=1_780_000_001, expires=1_780_000_002)
    assert "expired at 1780000002" in refused(shipped.run("build", late, "--store", store))
    early = shipped.again("early.edge", released=4_000_000_000, expires=4_100_000_000)
    assert "set the clock" in refused(shipped.run("build", early, "--store", store))
    signing.keygen(tmp_path / "stranger")
    other = Shipped(shipped.folder, shipped.environment)
    other.agent = tmp_path / "other.pyz"
    shipped.pipeline("agent", "--key", tmp_path / "stranger.pub", "-o", other.agent)
    sentence = refused(other.run("build", shipped.file, "--store", tmp_path / "never"))
    assert "and trusted are" in sentence
    assert not (tmp_path / "never").exists()
    assert "check the key" in refused(other.run("activate", "--store", store))
    both = other.run("status", "--store", store, "--key", shipped.public)
    assert "active, verified" in both.stdout


def test_foreign_folders_and_two_at_once(shipped: Shipped, device: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "photos").write_text("mine")
    assert "it holds photos and is no store" in refused(
        shipped.run("build", shipped.file, "--store", tmp_path / "home")
    )
    assert tree(tmp_path / "home") == ["photos"]
    assert "there is no store" in refused(shipped.run("activate", "--store", tmp_path / "nothing"))
    store = copied(device, tmp_path)
    new = shipped.run("build", shipped.again("two.edge", released=1_790_000_002), "--store", store).stdout.strip()
    assert shipped.run("verify", new, "--store", store).returncode == 0
    asked: list[Any] = []
    slow = ("activate", new, "--store", store, "--health-cmd", f"touch {tmp_path}/begun; sleep 8")
    first = threading.Thread(target=lambda: asked.append(shipped.run(*slow)))
    first.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    assert "another agent is at work there" in refused(shipped.run("activate", "--store", store))
    first.join()
    assert asked[0].returncode == 0
    store.chmod(0o777)
    assert "others can write there" in refused(shipped.run("status", "--store", store))


def test_a_full_disk_leaves_nothing(shipped: Shipped, device: Path, tmp_path: Path) -> None:
    store = copied(device, tmp_path)
    before = tree(store)

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    path = shipped.again("two.edge", released=1_790_000_002)
    sentence = refused(shipped.run("build", path, "--store", store, preexec_fn=small), 3)
    assert "the disk is full" in sentence
    assert tree(store) == before
    assert status(shipped, store)["versions"][0]["loadable"]


def test_another_device_builds_again(shipped: Shipped, device: Path, tmp_path: Path) -> None:
    store = copied(device, tmp_path)
    (version,) = names(store / "versions")
    note = store / "versions" / version / "built.json"
    said = json.loads(note.read_text())
    said["device"]["onnxruntime"] = "1.0.0"
    note.write_text(json.dumps(said))
    done = shipped.run("preflight", shipped.file, "--store", store)
    assert "rebuild  the engine in use was built with another onnxruntime" in done.stdout
    assert done.returncode == 0
    assert "built for onnxruntime 1.0.0, here" in shipped.run("status", "--store", store).stdout
    again = shipped.run("build", shipped.file, "--store", store).stdout.strip()
    assert again == version[:-1] + "2"


def test_the_loader_of_the_device_is_held_to_the_vectors(shipped: Shipped, device: Path, tmp_path: Path) -> None:
    store = copied(device, tmp_path)
    (shipped.folder / "camera.py").write_text(
        "import os\nimport numpy\n"
        "print('hello')\ndef right(path):\n    print(path)\n    return numpy.load(path[:-4] + '.npy')\n"
        "def wrong(path):\n    return numpy.load(path[:-4] + '.npy') / 255\n"
    )
    assert "levels away" in refused(shipped.run("verify", "--store", store, "--loader", "camera:wrong"), 1)
    done = shipped.run("verify", "--store", store, "--loader", "camera:right", "--json")
    assert max(far["largest"] for far in json.loads(done.stdout)["loader"].values()) == 0
    assert "no such function" in refused(shipped.run("verify", "--store", store, "--loader", "camera:none"))


def test_latency_is_bounded_and_bench_compares_like_with_like(shipped: Shipped, device: Path, tmp_path: Path) -> None:
    store = copied(device, tmp_path)
    bounds = {**shipped.opened().manifest["bounds"], "latency_ms": 1e-4}
    path = shipped.again("fast.edge", released=1_790_000_003, bounds=bounds)
    fast = shipped.run("build", path, "--store", store).stdout.strip()
    assert "0.0001 are allowed" in refused(shipped.run("verify", fast, "--store", store), 1)
    done = shipped.run("bench", "--store", store, "--seconds", 0.3, "--json", env=meter(tmp_path, "15W"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["power_mode"], found["rails"]) == ("15W", ["VDD_IN"])
    assert (found["watts"], found["throttled"]) == (pytest.approx(10.0), False)
    assert found["joules_per_image"] == pytest.approx(10.0 / found["images_per_second"])
    (tmp_path / "before.json").write_text(done.stdout)
    again = ("bench", "--store", store, "--seconds", 0.3, "--against", tmp_path / "before.json")
    assert "energy per image" in shipped.run(*again, env=meter(tmp_path, "15W")).stdout
    assert "no result of bench" in refused(shipped.run(*again[:-1], shipped.public))
    sentence = refused(shipped.run(*again, env=meter(tmp_path, "MAXN")))
    assert "measured with power_mode 15W, here MAXN" in sentence
    with pytest.raises(Refused, match="throttled before"):
        latency.compared({**found, "throttled": True}, found)


def meter(tmp_path: Path, mode: str) -> dict[str, str]:
    """A PATH with programs that print what NVIDIA's print."""
    line = "RAM 1/2MB GR3D_FREQ 99%@[918] gpu@50C VDD_IN 10000mW/9000mW"
    idle = "RAM 1/2MB GR3D_FREQ 0%@[306] gpu@40C VDD_IN 5000mW/9000mW"
    for name, text in (
        ("nvpmodel", f"echo 'NV Power Mode: {mode}'; echo 2"),
        # Idle at first, while the engine is loaded.
        ("tegrastats", f"yes '{idle}' | head -n 9; sleep 300 & while :; do echo '{line}'; sleep 0.02; done"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_an_agent_travels_in_a_bundle(shipped: Shipped, tmp_path: Path) -> None:
    mine = Shipped(shipped.folder, shipped.environment)
    mine.agent = tmp_path / "edge-agent.pyz"
    mine.agent.write_bytes(shipped.agent.read_bytes())
    signing.keygen(tmp_path / "next")
    shipped.pipeline("agent", "--key", shipped.public, "--key", tmp_path / "next.pub", "-o", tmp_path / "newer.pyz")
    newer = (tmp_path / "newer.pyz").read_bytes()
    path = shipped.again("with-agent.edge", {"agent.pyz": newer})
    assert "carries no agent" in refused(mine.run("update", shipped.file))
    broken = shipped.again("broken-agent.edge", {"agent.pyz": b"#!/bin/false\n"})
    assert "this one stays" in refused(mine.run("update", broken), 1)
    content = bytearray(path.read_bytes())
    content[content.index(newer[:64])] ^= 1
    (tmp_path / "forged.edge").write_bytes(content)
    assert "agent.pyz is not what was signed" in refused(mine.run("update", tmp_path / "forged.edge"))
    assert mine.agent.read_bytes() == shipped.agent.read_bytes()
    assert mine.run("update", path).returncode == 0
    assert mine.agent.read_bytes() == newer
    assert [name for name in names(tmp_path) if name.startswith(".")] == []


@pytest.fixture
def crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A package of the agent's name whose child dies, hangs or fails as it is told."""
    heard: list[str] = []
    monkeypatch.setattr(child, "__name__", "agent_copy.child")
    monkeypatch.setattr(child, "HOME", str(tmp_path))
    folder = tmp_path / "agent_copy"
    subprocess.run(["cp", "-r", Path(child.__file__).parent, folder], check=True)
    subprocess.run(
        ["cp", "-r", "--parents", "exporters/__init__.py", "exporters/portable", tmp_path], cwd=ROOT, check=True
    )
    (folder / "crash.py").write_text(
        "import os, time\nfrom exporters.portable.child_process import say\n"
        "from exporters.portable.errors import NativeError\n"
        "def die(job):\n    say('Parsing node: conv1')\n    os.kill(os.getpid(), job['signal'])\n"
        "def hang(job):\n    say('timing')\n    time.sleep(60)\n"
        "def refuse(job):\n    raise NativeError('the engine failed to run')\n"
    )
    return heard


def test_a_builder_that_crashes_hangs_or_is_killed_is_a_sentence(crash: list[str]) -> None:
    with pytest.raises(Broken, match=r"crashed \(SIGSEGV\): Parsing node: conv1"):
        child.call("crash:die", {"signal": signal.SIGSEGV}, 60, crash.append)
    with pytest.raises(Broken, match=r"was killed, as the system does where memory runs out"):
        child.call("crash:die", {"signal": signal.SIGKILL}, 60, crash.append)
    with pytest.raises(Broken, match=r"did not end within 3 s and was stopped: timing"):
        child.call("crash:hang", {}, 3, crash.append)
    assert crash == ["Parsing node: conv1", "Parsing node: conv1", "timing"]
    with pytest.raises(Broken, match=r"^the engine failed to run$"):
        child.call("crash:refuse", {}, 60, crash.append)


def test_a_checkout_in_the_folder_that_it_is_called_from_is_not_read(shipped: Shipped, tmp_path: Path) -> None:
    for name in ("exporters", "edge_agent"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('another file of that name')\n")
    bare = {name: value for name, value in shipped.environment.items() if name != "PYTHONPATH"}
    line = [sys.executable, shipped.agent, "build", shipped.file, "--store", tmp_path / "store"]
    done = subprocess.run(line, env=bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_bundle_that_does_not_say_what_its_precision_needs_is_to_be_made_again(
    shipped: Shipped, tmp_path: Path
) -> None:
    """As bundle create wrote it before precisions became data: a default could be wrong for a precision."""
    model = shipped.opened().manifest["model"]
    needs = bundle_members.needs(model["precision"])
    old = shipped.again("without-needs.edge", model={name: model[name] for name in model if name not in needs})
    sentence = refused(shipped.run("build", old, "--store", tmp_path / "store"))
    assert "lacks or has too much: 'computes_in', 'number_format', 'scales', 'typing', 'weak_flags'; make" in sentence
    assert not (tmp_path / "store").exists()


def test_python_is_told_nothing_about_this_project(shipped: Shipped, device: Path) -> None:
    code = f"""
import runpy, sys
sys.argv = ["x", "status", "--store", {str(device)!r}]
runpy.run_path({str(shipped.agent)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
