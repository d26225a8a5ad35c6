"""The real command line in real processes, on a network trained for seconds; weights are trained once per session."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shipping import Shipped

ROOT = Path(__file__).resolve().parent.parent


# What a machine that only plans or asks for help need not have; the package of a new backend belongs here too.
HEAVY = (
    "torch", "onnxruntime", "onnxsim", "tensorrt", "tensorrt_rtx", "sklearn", "scipy", "safetensors", "rich", "msgpack",
    "tensorstore", "huggingface_hub", "imagehash",
)  # fmt: skip


# Lists that tests compare with, one item a line; `pytest --renew` writes them anew.
GOLDEN = ROOT / "tests" / "golden"
Golden = Callable[[str, Sequence[str]], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew", action="store_true", help="write the lists in tests/golden instead of comparing")


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Golden:
    """Compare ``lines`` with the golden list of that name."""

    def compare(name: str, lines: Sequence[str]) -> None:
        path = GOLDEN / f"{name}.txt"
        if pytestconfig.getoption("--renew"):
            path.write_text("".join(f"{line}\n" for line in lines))
        assert list(lines) == path.read_text().splitlines(), f"{path} has another list; pytest --renew writes this one"

    return compare


@pytest.fixture(scope="module")
def quick_collection() -> Iterator[None]:
    """Reading a model collects garbage each time, and torch alone has a million objects that are none."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Cli:
    """``python -m pipeline build`` with a cache of its own."""

    def __init__(self, cache: Path) -> None:
        self.elsewhere = cache / "never made"
        # No GPU, so that the same is tested everywhere; the tests marked gpu take this back.
        own = {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT), "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}
        self.environment = {**os.environ, **own}

    def command(self, *flags: object) -> list[str]:
        return [sys.executable, "-m", "pipeline", "build", *map(str, flags)]

    def __call__(self, *flags: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*flags), env=self.environment, capture_output=True, text=True, check=False, **options
        )

    def report(self, *flags: object, expect: int = 0) -> dict[str, Any]:
        """Build with --json; the exit code is as expected and standard output is the report alone."""
        done = self(*flags, "--json")
        assert done.returncode == expect, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def refused(self, *flags: object, code: int = 2, **options: Any) -> str:
        """The one sentence of a build that is refused; no traceback, nothing on standard output."""
        output = [] if "-o" in flags else ["-o", self.elsewhere]
        done = self(*flags, *output, **options)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert not done.stdout
        sentence = done.stderr.strip().splitlines()[-1]
        assert sentence.startswith("error: ")
        assert not self.elsewhere.exists()
        return sentence


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("cache"))


TINY = ("--arch", "resnext_tiny", "--precision", "int8", "--engine", "onnxruntime", "--recover", "none")


@pytest.fixture(scope="session")
def built(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished INT8 build of the tiny ResNeXt, trained for seconds on the digits; not to be changed."""
    output = tmp_path_factory.mktemp("built") / "int8"
    cli.report(*TINY, "-o", output)
    return output


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture(scope="session")
def worse(cli: Cli, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network calibrated on 2 images: it passes its own bounds all the same; not to be changed."""
    assert built
    output = tmp_path_factory.mktemp("worse") / "int8"
    cli.report(*TINY, "--calib-samples", 2, "-o", output)
    return output


@pytest.fixture(scope="session")
def mixed(cli: Cli, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with float16 around its INT8 convolutions; not to be changed."""
    assert built
    output = tmp_path_factory.mktemp("mixed") / "int8-fp16"
    cli.report("--arch", "resnext_tiny", "--precision", "int8-fp16", "-o", output)
    return output


@pytest.fixture(scope="session")
def weights(built: Path) -> Path:
    """The trained weights of the tiny ResNeXt as a user's own file."""
    return built / "01-freeze.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder of images with two classes, from the digits."""
    from pipeline.data import digits

    train = digits.read().train
    for part in ("train", "val"):
        for label in (0, 1):
            place = tmp_path / "images" / part / f"class{label}"
            place.mkdir(parents=True)
            for index in np.flatnonzero(train.labels == label)[:20]:
                train.decode(index).save(place / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture(scope="session")
def shipped(cli: Cli, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """One bundle of the tiny ResNeXt and one agent that trusts its key."""
    made = Shipped(tmp_path_factory.mktemp("shipped"), cli.environment)
    for flags in (
        ("keygen", made.key),
        ("create", built, "--key", made.key, "-o", made.file, "--goldens", 24, "--released", 1_790_000_000),
        ("agent", "--key", made.public, "-o", made.agent),
    ):
        done = made.pipeline(*flags)
        assert done.returncode == 0, done.stderr
    return made
