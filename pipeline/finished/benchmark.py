"""The engine of a finished build next to what else could answer: latency, throughput, memory, in one run."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import child
from exporters.engines import named
from pipeline import provenance
from pipeline.errors import BadRequest
from pipeline.finished import race
from pipeline.finished.finished_build import FinishedBuild
from pipeline.finished.report_json import Environment, Speed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.parity.answers import Runner
    from pipeline.stage import StageRow

# Baselines that are no stage: the network as PyTorch runs it, and the exported graph as ONNX Runtime runs it.
STAGES = {"torch": "freeze", "compile": "freeze", "onnxruntime": "export"}
MEDIAN = 50
PERCENTILES = (MEDIAN, 90, 99)
# Seconds that an engine and its float neighbour are timed side by side at most, at the end of every build.
BESIDE_SECONDS = 3.0


@dataclass(frozen=True)
class Contender:
    """What answers: a file, and how it is run."""

    name: str
    path: Path
    compiled: bool = False

    def timed(self, pixels: NDArray[np.float32]) -> Callable[[], object]:
        """A new copy of it that answers ``pixels`` (N, C, H, W)."""
        return partial(self.load().run, pixels)

    def load(self) -> Runner:
        """What gives its answers, as fast as its runtime can."""
        from pipeline.parity import answers

        return answers.of_compiled(self.path) if self.compiled else answers.of_file(self.path, fastest=True)


def contenders(build: FinishedBuild, versus: Sequence[str]) -> list[Contender]:
    """The engine of ``build``, then ``versus``: torch, compile, onnxruntime, a stage, or another build's directory.

    Raises BadRequest where there is none of that name.
    """
    files = _files_that_ran(build)
    field = [Contender("engine", _engine(build, files))]
    for name in versus:
        stage = STAGES.get(name, name)
        other = Path(name)
        if stage in files:
            field.append(Contender(name, files[stage], compiled=name == "compile"))
        elif other.is_dir():
            other_build = FinishedBuild.open(other)
            field.append(Contender(name, _engine(other_build, _files_that_ran(other_build))))
        else:
            known = ", ".join([*STAGES, *files])
            raise BadRequest(f"--vs {name}: take some of {known}, or the directory of another build")
    return field


def _files_that_ran(build: FinishedBuild) -> dict[str, Path]:
    """The files of the build that were run, by stage; raises BadRequest where one is gone or another."""
    return {row.name: build.intact(row) for row in build.stages if row.provider is not None}


def _engine(build: FinishedBuild, files: Mapping[str, Path]) -> Path:
    for row in build.engines:
        if row.name in files:
            return files[row.name]
    raise BadRequest(f"{build.directory} has no engine that runs on this machine: nothing can be timed")


def beside_float(rows: Sequence[StageRow], files: Mapping[str, Path], images: Images) -> Speed | None:
    """How many times as long an 8-bit engine takes as its float neighbour, one image a run; None where none can tell.

    The neighbour is the FP16 engine of the same backend, on the CPU the float32 graph in ONNX Runtime.
    """
    ran = [row for row in rows if row.provider is not None]
    engines = [row for row in ran if row.role == "engine"]
    # The engines of the precision asked for come first; those without a share have nothing in 8 bits.
    if not engines or engines[0].int8_share is None:
        return None
    engine = engines[0]
    has_float_engine = named(engine.details["backend"]).beside
    neighbour = _float_engine(engine, engines) if has_float_engine else _float_graph(engine, ran)
    if neighbour is None:
        return None

    pixels = images.select(np.arange(1))
    field = [Contender(row.name, files[row.name]) for row in (neighbour, engine)]
    loads = [partial(contender.timed, pixels) for contender in field]
    (neighbour_timing, engine_timing), _ = race.race(loads, BESIDE_SECONDS, decide=1)
    ratio = race.ratio(engine_timing, neighbour_timing)
    return Speed(engine.name, neighbour.name, 1, ratio.value, ratio.lower, ratio.upper)


def _float_engine(engine: StageRow, engines: Sequence[StageRow]) -> StageRow | None:
    """The float16 engine that the same backend built beside ``engine``."""
    for row in engines:
        if row.precision == "fp16" and row.details["backend"] == engine.details["backend"]:
            return row
    return None


def _float_graph(engine: StageRow, ran: Sequence[StageRow]) -> StageRow | None:
    """The last graph in float32, where ``engine`` was made of the quantised graph as it came.

    Other forms of INT8, with float16 around it or weights in float32, run on the CPU to be judged only.
    """
    source = next((row for row in ran if row.name == engine.source), None)
    if source is None or source.role != "quantised":
        return None
    graphs = [row for row in ran if row.role == "graph"]
    return graphs[-1] if graphs else None


@dataclass(frozen=True)
class Measurement:
    """One contender at one batch size, as bench.json has it.

    ``milliseconds`` by percentile; ``ratio`` is how many times as long it takes as the engine, of the same images;
    ``one_copy``: it was loaded once, not in each of the ``rounds``.
    """

    name: str
    file: str
    provider: str
    batch: int
    milliseconds: dict[str, float]
    images_per_second: float
    ratio: race.Ratio
    rounds: int
    runs: int
    one_copy: bool
    resident_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class Benchmark:
    """bench.json; ``answers`` tell of which build it is, ``settled`` whether every ratio is known as well as asked."""

    schema: int
    directory: str
    answers: str | None
    confidence: float
    settled: bool
    rows: list[Measurement]
    environment: Environment


def bench(directory: Path, versus: Sequence[str], batches: Sequence[int], seconds: float) -> dict[str, Any]:
    """All figures as JSON, the fields of ``Benchmark``; the time is shared out over ``batches``."""
    from pipeline.console.progress import bar

    build = FinishedBuild.open(directory)
    field = contenders(build, versus)
    images = build.test_images()
    if max(batches) > len(images):
        raise BadRequest(f"--batch {max(batches)}: {directory} was judged on {len(images)} images; take no more")

    # Before the first race, since what cannot be loaded ends all of it.
    providers = [contender.load().provider for contender in field]
    memory = [_resident(contender, images.shape) for contender in field]
    rows: list[dict[str, Any]] = []
    settled = True
    # Each batch size is a race of its own, with its share of the time.
    with bar("timing", len(batches)) as advance:
        for batch in batches:
            pixels = images.select(np.arange(batch))
            loads = [partial(contender.timed, pixels) for contender in field]
            timings, batch_settled = race.race(loads, seconds / len(batches))
            settled = settled and batch_settled
            for contender, provider, resident_bytes, timing in zip(field, providers, memory, timings, strict=True):
                ratio = race.ratio(timing, timings[0])
                rows.append(asdict(_measurement(contender, provider, batch, resident_bytes, timing, ratio)))
            advance()
    return {
        "schema": 1,
        "directory": str(directory),
        "answers": build.answers_digest,  # tells whether it is still the same build
        "confidence": race.CONFIDENCE,
        "settled": settled,
        "rows": rows,
        "environment": provenance.environment(),
    }


def _measurement(
    contender: Contender, provider: str, batch: int, resident_bytes: int, timing: race.Timing, ratio: race.Ratio
) -> Measurement:
    milliseconds = {str(percentile): 1e3 * float(np.percentile(timing.runs, percentile)) for percentile in PERCENTILES}
    return Measurement(
        name=contender.name,
        file=contender.path.name,
        provider=provider,
        batch=batch,
        milliseconds=milliseconds,
        images_per_second=1e3 * batch / milliseconds[str(MEDIAN)],
        ratio=ratio,
        rounds=len(timing.rounds),
        runs=len(timing.runs),
        one_copy=timing.one_copy,
        resident_bytes=resident_bytes,
        file_bytes=contender.path.stat().st_size,
    )


def _resident(contender: Contender, shape: Sequence[int]) -> int:
    """The most memory, in bytes, of a process that only loads the file and answers one image (C, H, W) twice."""
    job = json.dumps([str(contender.path), contender.compiled, list(shape)])
    return int(child.call("pipeline.finished.benchmark:in_child", job))


def in_child(job: str) -> int:
    """What ``_resident`` measures; runs in a process of its own."""
    # As much Python in every child, whatever its own file needs.
    importlib.import_module("exporters.engines.onnxruntime")
    path, compiled, shape = json.loads(job)
    runner = Contender("", Path(path), compiled).load()
    for _ in range(2):
        runner.run(np.zeros((1, *shape), np.float32))

    # Of this process alone: getrusage would count what its parent held when it was started.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            kilobytes = int(line.split()[1])
            return kilobytes * 1024
    raise OSError("/proc/self/status has no VmHWM")
