"""The agent on an aarch64 userland, as .ci/aarch64 makes it: the same bundle, and answers as on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shipping import Shipped, refused

from exporters.portable.consistency import WORST_DB
from exporters.portable.sqnr import capped_sqnr_db

pytestmark = [pytest.mark.aarch64, pytest.mark.timeout(900)]
# What an application does: the engine that is in use, its images, its answers; and who answered.
APPLICATION = """
import json, platform, numpy, onnxruntime
session = onnxruntime.InferenceSession("STORE/current/engine.onnx", providers=["CPUExecutionProvider"])
images = numpy.load("STORE/current/golden-images.npy").astype(numpy.float32)
numpy.save("STORE/../answers.npy", session.run(None, {session.get_inputs()[0].name: images})[0])
print(json.dumps([platform.machine(), platform.python_version(), numpy.__version__, onnxruntime.__version__]))
"""
VERBS = ("build", "verify", "activate")


class Device:
    """A root of another machine type, entered as a device would be: one agent, one bundle, no checkout."""

    def __init__(self, root: Path, shipped: Shipped) -> None:
        self.root = root
        for file in (shipped.agent, shipped.file):
            shutil.copy(file, root / "srv")

    def python(self, *line: str) -> subprocess.CompletedProcess[str]:
        own = {name: os.environ[name] for name in ("PATH", "QEMU_CPU")}
        environment = {**own, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "PYTHONPATH": "/opt/site"}
        called = ["chroot", str(self.root), "/usr/bin/python3", *line]
        return subprocess.run(called, env=environment, capture_output=True, text=True, check=False)

    def agent(self, verb: str, *line: str) -> subprocess.CompletedProcess[str]:
        return self.python("/srv/edge-agent.pyz", verb, *line, "--store", "/srv/store")

    def said(self, *line: str) -> Any:
        done = self.agent(*line, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def answers(self) -> tuple[Any, list[str]]:
        done = self.python("-c", APPLICATION.replace("STORE", "/srv/store"))
        assert done.returncode == 0, done.stderr
        return np.load(self.root / "srv/answers.npy"), json.loads(done.stdout)


@pytest.fixture(scope="module", params=os.environ.get("AARCH64_ROOTS", "made by .ci aarch64").split(":"))
def device(request: pytest.FixtureRequest, shipped: Shipped) -> Device:
    return Device(Path(request.param), shipped)


@pytest.fixture(scope="module")
def here(shipped: Shipped, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The answers of the same bundle, built and activated on this machine."""
    import onnxruntime

    store = tmp_path_factory.mktemp("here") / "store"
    for verb, *line in (["build", shipped.file], *([verb] for verb in VERBS[1:])):
        done = shipped.run(verb, *line, "--store", store)
        assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(store / "current/engine.onnx", providers=["CPUExecutionProvider"])
    images = np.load(store / "current/golden-images.npy").astype(np.float32)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def test_a_bundle_becomes_an_engine_whose_answers_are_those_of_this_machine(
    device: Device, shipped: Shipped, here: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bounds = shipped.opened().manifest["bounds"]
    asked = device.said("preflight", "/srv/a.edge")
    assert asked["verdict"] == "go", asked["answers"]
    assert asked["facts"]["machine"] == "aarch64"
    assert asked["facts"]["processor"] == "ARM 0x41/0xd0b with dot products"
    device.said("build", "/srv/a.edge")
    found = device.said("verify")
    device.said("activate", "--health-cmd", 'test -s "$EDGE_VERSION/engine.onnx"')
    (row,) = device.said("status")["versions"]
    assert row["is"] == ["active", "verified"]

    answers, who = device.answers()
    assert who[0] == "aarch64"
    apart = capped_sqnr_db(here, answers)
    assert np.median(apart) >= bounds["judged_db"]
    assert min(apart) >= bounds["judged_db"] - WORST_DB
    assert (answers.argmax(1) == here.argmax(1)).all()
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{who[0]}, Python {who[1]}, numpy {who[2]}, ONNX Runtime {who[3]}: {len(answers)} goldens keep "
            f"{found['sqnr_db']:.1f} dB of PyTorch ({bounds['sqnr_db']:g} asked for), {found['judged_db']:.1f} of the "
            f"judged file and {np.median(apart):.1f}, at worst {min(apart):.1f}, of x86 ({bounds['judged_db']:g}); "
            f"{int((answers == here).all(1).sum())} bit for bit"
        )


def test_a_wrong_network_and_a_changed_engine_are_refused_there(device: Device, shipped: Shipped) -> None:
    shutil.copy(shipped.wrong("wrong.edge", released=1_790_000_002), device.root / "srv")
    wrong = device.said("build", "/srv/wrong.edge")["version"]
    assert "of the file that was judged" in refused(device.agent("verify", wrong), code=1)
    assert "has not passed verification" in refused(device.agent("activate", wrong))
    engine = device.root / "srv/store/current/engine.onnx"
    engine.write_bytes(engine.read_bytes()[:-1] + b"\0")
    assert "not what was built here" in refused(device.agent("bench"))
