"""Requests that cannot be met: exit code and sentence; nothing is left half-written."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import ROOT, TINY, Cli

if TYPE_CHECKING:
    from pathlib import Path


def test_unknown_architecture(cli: Cli, tmp_path: Path) -> None:
    sentence = cli.refused("--arch", "resnxt50", "-o", tmp_path / "out")
    assert "no such architecture" in sentence
    assert "resnext50" in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--std", "0"), "must be above 0"),
        (("--mean", "123.7"), "--mean 123.7 is above 1; --mean and --std are in 0..1 units"),
        (("--mean", "nan"), "--mean nan is no number"),
        (("--std", "inf"), "--std inf is no number"),
        (("--mean=-0.485",), "give it without its sign"),
        (("--mean", "0.485", "--std", "58.4"), "--std 58.4 is above 4; --mean and --std are in 0..1 units"),
        (("--mean", "1.01", "--std", "1/255"), "divide yours by 255"),
        (("--max-drop", "1"), "0.01 is one point"),
        (("--confidence", "95"), "below 1"),
        (("--data-root", "."), "goes with --data fashion-mnist"),
        (("--weights", "w.pth", "--epochs", "3"), "exclude each other"),
        (("--mean", "0.1", "0.2"), "one value or one per channel"),
        (("--mean", "0.1", "0.2", "0.3"), "3 values for a network of 1 channel"),
        (("--input-size", "64", "--resize", "32"), "the crop needs at least that"),
        (("--device", "cuda"), "sees no GPU"),
        (("--engine", "tensorrt"), "no NVIDIA GPU"),
        (("--min-batch", "8", "--max-batch", "4"), "--min-batch 8 --opt-batch 4 --max-batch 4: they must not fall"),
        (("--min-batch", "1", "2", "--max-batch", "4"), "as many numbers as there are profiles"),
        (("--engine", "onnxruntime", "--max-batch", "4"), "goes with --engine tensorrt"),
        (("--dla-core", "0"), "--dla-core goes with --engine tensorrt"),
        (("--no-gpu-fallback",), "--no-gpu-fallback goes with --dla-core"),
        (("--error-on-timing-cache-miss",), "goes with --timing-cache"),
    ],
)
def test_flags_that_make_no_sense(cli: Cli, tmp_path: Path, flags: tuple[str, ...], part: str) -> None:
    assert part in cli.refused("--arch", "resnet_tiny", *flags, "-o", tmp_path / "out")


@pytest.mark.parametrize(
    "flag",
    [
        "--calib-samples=0",
        "--calib-samples=abc",
        "--max-batch=0",
        "--workspace=0",
        "--workspace=2X",
        "--precision=int4",
        "--seed=-1",
        "--input-size=200000",
        "--no-such-flag",
    ],
)
def test_flags_that_do_not_exist(cli: Cli, flag: str) -> None:
    done = cli("--arch", "resnet_tiny", flag)
    assert done.returncode == 2
    assert flag.split("=", maxsplit=1)[0] in done.stderr


def test_an_output_directory_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be made" in cli.refused("--arch", "resnet_tiny", "-o", tmp_path / "file" / "out")


def test_an_output_directory_that_cannot_be_written(cli: Cli) -> None:
    # Where not even root may write.
    assert "nothing can be written there" in cli.refused("--arch", "resnet_tiny", "-o", "/proc")


@pytest.mark.parametrize("stage", ["freeze", "export", "simplify"])
def test_a_full_disk(cli: Cli, built: Path, weights: Path, tmp_path: Path, stage: str) -> None:
    # A limit on the size of files answers like a full disk and needs no file system of its own. Each of these files
    # is larger than the one before, so the first that does not fit is the one asked for.
    limit = next(built.glob(f"*-{stage}.[so]*")).stat().st_size - 1

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    sentence = cli.refused(*TINY, "--weights", weights, "-o", tmp_path, code=3, preexec_fn=limited)
    assert f"stage {stage} could not make" in sentence
    assert "disk is full" in sentence
    assert not list(tmp_path.glob(".unfinished-*"))
    cli.report(*TINY, "--weights", weights, "-o", tmp_path)


@pytest.mark.parametrize(
    ("module", "extra", "flags"),
    [("onnxruntime", "[cpu]", ("--engine", "onnxruntime")), ("tensorrt_rtx", "[rtx]", ("--engine", "tensorrt-rtx"))],
)
def test_a_missing_dependency_names_its_extra(
    cli: Cli, tmp_path: Path, module: str, extra: str, flags: tuple[str, ...]
) -> None:
    code = f"""
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {module!r} else real(name, *rest)
sys.modules[{module!r}] = None
from pipeline.__main__ import main
sys.exit(main(["build", "--arch", "resnet_tiny", *{flags!r}, "-o", {str(tmp_path)!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=cli.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert module.replace("_", "-") in done.stderr
    assert extra.strip("[]") in done.stderr


def test_debug_shows_the_traceback(cli: Cli) -> None:
    done = cli("--arch", "nothing", "--debug")
    assert "Traceback" in done.stderr
