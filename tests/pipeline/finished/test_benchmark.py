"""Speed as ratios of one run: right on a machine that slows down, unsettled where it is noise, never a verdict."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exporters import onnx_file, reference
from exporters.engines import ort_integers
from pipeline.finished import race
from pipeline.finished.benchmark import Contender
from pipeline.parity import answers
from pipeline.parity.paired import median_bounds
from pipeline.report import terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Cli


class Machine:
    """A machine whose clock only moves when something runs, ever slower from run to run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, drift: float = 0.0, noise: float = 0.0, seed: int = 0) -> None:
        self.now, self.drift, self.slow = 0.0, drift, 1.0
        self.random, self.noise = np.random.default_rng(seed), noise
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def load(self, seconds: float, loading: float = 0.0, copies: float = 0.0) -> Callable[[], Callable[[], None]]:
        """Something of ``seconds``, by a share up to ``copies`` more in each copy that is loaded."""

        def load() -> Callable[[], None]:
            self.now += loading
            each = seconds * (1 + copies * self.random.uniform())

            def once() -> None:
                self.slow *= 1 + self.drift
                self.now += each * self.slow * (1 + self.noise * float(self.random.exponential()))

            return once

        return load


@pytest.mark.parametrize("drift", [0.0, 2e-5])
def test_a_ratio_is_right_on_a_machine_that_slows_down(monkeypatch: pytest.MonkeyPatch, drift: float) -> None:
    machine = Machine(monkeypatch, drift)
    timings, settled = race.race([machine.load(0.001), machine.load(0.003)], 100)
    found = race.ratio(timings[1], timings[0])
    assert found.value == pytest.approx(3, rel=0.01)
    assert settled
    assert machine.now < 5
    assert (timings[0].runs[-1] / timings[0].runs[0] > 1.01) == (drift > 0)


def test_noise_does_not_settle_and_ends_when_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, noise=3.0)
    timings, settled = race.race([machine.load(0.04), machine.load(0.04)], 10)
    found = race.ratio(timings[1], timings[0])
    assert not settled
    assert found.lower < 1 < found.upper
    assert 10 < machine.now < 15


def test_the_bounds_of_a_ratio_hold_as_often_as_they_say() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(400):
        timings = [race.Timing(rounds=list(random.lognormal(0, 0.5, 25))) for _ in range(2)]
        found = race.ratio(*timings)
        held += found.lower <= 1 <= found.upper
    assert held / 400 > 0.93


def test_two_of_the_same_speed_are_told_apart_no_oftener_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either is said to be the slower in at most 2.5 % of the races, however often it was looked whether one is."""
    slower = faster = 0
    for seed in range(1200):
        machine = Machine(monkeypatch, noise=1.0, seed=seed)
        timings, _ = race.race([machine.load(0.06), machine.load(0.06)], 120, decide=1)
        found = race.ratio(timings[1], timings[0])
        slower, faster = slower + (found.lower > 1), faster + (found.upper < 1)
    assert max(slower, faster) / 1200 <= 0.025


@pytest.mark.parametrize(("loading", "least", "most"), [(0.1, 0, 0.05), (5.0, 0.9, 1)])
def test_copies_of_one_file_are_told_apart_only_where_they_load_slowly(
    monkeypatch: pytest.MonkeyPatch, loading: float, least: float, most: float
) -> None:
    told = []
    for seed in range(100):
        machine = Machine(monkeypatch, seed=seed)
        timings, _ = race.race([machine.load(0.02, loading, 0.03) for _ in range(2)], 60, decide=1)
        told.append(race.ratio(timings[1], timings[0]).decided(1))
        assert [each.one_copy for each in timings] == [loading > 1] * 2
    assert least <= sum(told) / 100 <= most


@pytest.mark.parametrize("rounds", [10, 11, 20, 25, 40, 80, 100])
def test_the_error_is_spent_over_the_looks(rounds: int) -> None:
    """The bounds after n rounds are as wide as their own look's share of the error says."""
    shares = np.arange(1.0, rounds + 1)
    found = race.ratio(race.Timing(rounds=list(shares)), race.Timing(rounds=[1.0] * rounds), 0.9)
    look = {10: 1, 11: 2, 20: 2, 25: 3, 40: 3, 80: 4, 100: 5}[rounds]
    assert (found.lower, found.upper) == median_bounds(shares, 0.05 / 2**look)


def test_it_is_looked_at_doubling_rounds_and_never_before_bounds_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    for confidence, rounds in ((0.95, 10), (0.999, 20), (1 - 1e-9, 40)):
        machine = Machine(monkeypatch)
        timings, settled = race.race([machine.load(0.06), machine.load(0.12)], 60, decide=1, confidence=confidence)
        assert (len(timings[0].rounds), settled) == (rounds, True)
    hurried, _ = race.race([machine.load(0.06), machine.load(0.12)], 0, decide=1, confidence=1 - 1e-9)
    assert 0.5 ** len(hurried[0].rounds) < 1e-9 / 2


def test_a_build_times_its_8_bit_engine_next_to_float(built: Path, mixed: Path) -> None:
    found = json.loads((built / "report.json").read_text())["speed"]
    assert (found["engine"], found["next_to"], found["batch"]) == ("engine", "fold_batchnorm", 1)
    assert 0 < found["lower"] <= found["value"] <= found["upper"]
    assert json.loads((mixed / "report.json").read_text())["speed"] is None  # on the CPU only to be judged


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [((1.1, 1.3), "slower: do not ship it for its speed"), ((0.9, 1.1), "not told apart"), ((0.5, 0.6), "faster")],
)
def test_a_slower_8_bit_engine_is_said_to_be(bounds: tuple[float, float], verdict: str) -> None:
    found = {"engine": "engine", "next_to": "fp16", "value": sum(bounds) / 2, "lower": bounds[0], "upper": bounds[1]}
    assert terminal.speed(found).endswith(f"one image a run on this machine: {verdict}")


def test_fp16_comes_beside_8_bits(mixed: Path, cli: Cli, tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads((mixed / "report.json").read_text())["stages"]}
    assert list(rows)[-3:] == ["engine_tensorrt_rtx", "fp16", "fp16_engine_tensorrt_rtx"]
    assert (rows["fp16"]["source"], rows["fp16"]["verdict"]) == ("fold_batchnorm", "pass")
    assert rows["fp16"]["tolerance"]["sqnr_db"] == 40
    flags = ("--arch", "resnext_tiny", "--precision", "int8", "--dry-run", "-o", tmp_path / "out")
    for more in (("--beside", "none"), ("--engine", "onnxruntime"), ("--precision", "fp32")):
        assert "-fp16.onnx" not in cli(*flags, *more).stdout


def test_what_is_timed_is_optimised_and_what_is_judged_is_not(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels, real = [], reference.session

    def session(model: Path, level: str = reference.LEVEL, *options: Any, **named: Any) -> Any:
        levels.append(level)
        return real(model, level, *options, **named)

    monkeypatch.setattr(reference, "session", session)
    path = built / "04-fold_batchnorm.onnx"
    pixels = np.full((2, 1, 32, 32), 9, np.float32)
    timed, judged = Contender("float", path).load().run(pixels), answers.of_file(path).run(pixels)
    assert levels == ["ORT_ENABLE_ALL", "ORT_DISABLE_ALL"]
    np.testing.assert_allclose(timed, judged, rtol=1e-4, atol=1e-4)


def test_what_is_timed_runs_in_integers_as_onnx_runtime_would(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real, seen = onnx_file.read(built / "05-int8.onnx"), reference.session, tmp_path / "seen.onnx"
    ort_integers.to_uint8(model.graph)
    onnx_file.write(model, tmp_path / "uint8.onnx")

    def session(model: Path, level: str, disabled: tuple[str, ...], **options: Any) -> Any:
        return real(model, level, disabled, seen, **options)

    monkeypatch.setattr(reference, "session", session)
    Contender("int8", tmp_path / "uint8.onnx").load()
    assert onnx_file.count(onnx_file.read(seen, check=False), "QLinearConv") == 10


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", "bench", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(built, tmp_path_factory.mktemp("bench") / "out")


def test_the_engine_is_timed_next_to_what_was_named(copy: Path) -> None:
    chart = copy / "bench.svg"
    done = bench(copy, "--vs", f"torch,onnxruntime,int8,{copy}", "--batch", 1, 3, "--seconds", 2, "--chart", chart)
    assert done.returncode == 0, done.stderr
    result = json.loads((copy / "bench.json").read_text())
    assert [(row["name"], row["batch"]) for row in result["rows"]] == [
        (name, batch) for batch in (1, 3) for name in ("engine", "torch", "onnxruntime", "int8", str(copy))
    ]
    for row in result["rows"]:
        took = row["milliseconds"]
        assert 0 < took["50"] <= took["90"] <= took["99"]
        assert row["images_per_second"] == pytest.approx(1e3 * row["batch"] / took["50"])
        assert row["ratio"]["lower"] <= row["ratio"]["value"] <= row["ratio"]["upper"]
        assert row["resident_bytes"] > row["file_bytes"] > 0
    held = {row["name"]: row["resident_bytes"] for row in result["rows"]}
    assert held["torch"] > 1.2 * held["engine"]  # a process with torch in it
    assert "<svg" in chart.read_text()
    assert "engine" in done.stdout


def test_a_build_is_still_whole_after_it(copy: Path, cli: Cli) -> None:
    line = [sys.executable, "-m", "pipeline", "check", str(copy)]
    done = subprocess.run(line, env=cli.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--vs", "tensorflow"), "--vs tensorflow: take some of torch, compile, onnxruntime, freeze"),
        (("--batch", "5000"), "was judged on 900 images; take no more"),
        (("--chart", "x.bmp"), "give a file in .svg, .pdf, .png"),
        (("--batch", "0"), "0 is no whole number from 1"),
    ],
)
def test_what_cannot_be_timed_is_refused(copy: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = bench(copy, *arguments)
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr


def test_only_the_files_that_were_judged_are_timed(built: Path, tmp_path: Path) -> None:
    for name, sentence in (("06-engine.ort.onnx", "was changed after the build wrote it"), ("report.json", "build")):
        folder = shutil.copytree(built, tmp_path / name)
        (folder / name).write_bytes(b"")
        done = bench(folder)
        assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
