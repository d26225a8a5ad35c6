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
from pipeline import provenance, workspace
from pipeline.errors import BadRequest
from pipeline.finished import build_directory, race

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.parity.answers import Runner
    from pipeline.stage import StageRow

# Baselines that are no stage: the network as PyTorch runs it, and the exported graph as ONNX Runtime runs it.
STAGES = {"torch": "freeze", "compile": "freeze", "onnxruntime": "export"}
PERCENTILES = (50, 90, 99)
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


def contenders(directory: Path, versus: Sequence[str]) -> list[Contender]:
    """The engine of ``directory``, then ``versus``: torch, compile, onnxruntime, a stage, or another build's directory.

    Raises BadRequest where there is none of that name.
    """
    files = _files(directory)
    found = [Contender("engine", _engine(directory, files))]
    for name in versus:
        other = Path(name)
        if (stage := STAGES.get(name, name)) in files:
            found.append(Contender(name, files[stage], compiled=name == "compile"))
        elif other.is_dir():
            found.append(Contender(name, _engine(other, _files(other))))
        else:
            known = ", ".join([*STAGES, *files])
            raise BadRequest(f"--vs {name}: take some of {known}, or the directory of another build")
    return found


def _files(directory: Path) -> dict[str, Path]:
    """The files of the build that were run, by stage; raises BadRequest where one is gone or another."""
    found = {}
    try:
        for row in build_directory.report(directory)["stages"]:
            if row["provider"]:
                found[row["name"]] = path = directory / Path(row["file"]).name
                if (why := workspace.other(path, row["sha256"])) is not None:
                    raise BadRequest(f"{directory}: {why}; build again")
    except (KeyError, TypeError, AttributeError) as error:
        raise build_directory.damaged(directory, error) from error
    return found


def _engine(directory: Path, files: dict[str, Path]) -> Path:
    name = next((name for name in files if name.startswith("engine")), None)
    if name is None:
        raise BadRequest(f"{directory} has no engine that runs on this machine: nothing can be timed")
    return files[name]


def beside_float(rows: Sequence[StageRow], files: Mapping[str, Path], images: Images) -> dict[str, Any] | None:
    """How many times as long an 8-bit engine takes as its float neighbour, one image a run; None where none can tell.

    The neighbour is the FP16 engine of the same backend, on the CPU the float32 graph in ONNX Runtime.
    """
    ran = {row.name: row for row in rows if row.provider is not None}
    engine = ran.get("engine")
    if engine is None or engine.int8_share is None:
        return None
    here = engine.provider == "TensorRT"
    neighbour = "fp16_engine_tensorrt" if here else "fold_batchnorm"
    # Other forms of INT8 run on the CPU to be judged only.
    if neighbour not in ran or not (here or engine.source == "int8"):
        return None
    pixels = images.select(np.arange(1))
    field = [Contender(name, files[name]) for name in (neighbour, engine.name)]
    timings, _ = race.race([partial(each.timed, pixels) for each in field], BESIDE_SECONDS, decide=1)
    return {"engine": engine.name, "next_to": neighbour, "batch": 1, **asdict(race.ratio(timings[1], timings[0]))}


def bench(directory: Path, versus: Sequence[str], batches: Sequence[int], seconds: float) -> dict[str, Any]:
    """All figures as JSON: ``ratio`` is how many times as long each takes as the engine, of the same images."""
    from pipeline.console.progress import bar

    field = contenders(directory, versus)
    images = build_directory.test_images(directory)
    if max(batches) > len(images):
        raise BadRequest(f"--batch {max(batches)}: {directory} was judged on {len(images)} images; take no more")
    providers = [each.load().provider for each in field]
    memory = [_resident(each, images.shape) for each in field]
    rows, settled = [], True
    with bar("timing", len(batches)) as advance:
        for batch in batches:
            pixels = images.select(np.arange(batch))
            timings, steady = race.race([partial(each.timed, pixels) for each in field], seconds / len(batches))
            settled &= steady
            for each, provider, held, timing in zip(field, providers, memory, timings, strict=True):
                took = [1e3 * float(value) for value in np.percentile(timing.runs, PERCENTILES)]
                rows.append(
                    {
                        "name": each.name,
                        "file": each.path.name,
                        "provider": provider,
                        "batch": batch,
                        "milliseconds": dict(zip(map(str, PERCENTILES), took, strict=True)),
                        "images_per_second": 1e3 * batch / took[0],
                        "ratio": asdict(race.ratio(timing, timings[0])),
                        "rounds": len(timing.rounds),
                        "runs": len(timing.runs),
                        "one_copy": timing.one_copy,
                        "resident_bytes": held,
                        "file_bytes": each.path.stat().st_size,
                    }
                )
            advance()
    judged = build_directory.report(directory).get("answers")  # tells whether it is still the same build
    about = {"directory": str(directory), "answers": judged, "confidence": race.CONFIDENCE, "settled": settled}
    return {"schema": 1, **about, "rows": rows, "environment": provenance.environment()}


def _resident(contender: Contender, shape: Sequence[int]) -> int:
    """The most memory, in bytes, of a process that only loads the file and answers one image (C, H, W) twice."""
    told = json.dumps([str(contender.path), contender.compiled, list(shape)])
    return int(child.call("pipeline.finished.benchmark:in_child", told))


def in_child(told: str) -> int:
    """Runs in a process of its own."""
    # As much Python in every child, whatever its own file needs.
    importlib.import_module("exporters.engines.onnxruntime")
    path, compiled, shape = json.loads(told)
    runner = Contender("", Path(path), compiled).load()
    for _ in range(2):
        runner.run(np.zeros((1, *shape), np.float32))
    # Of this process alone: getrusage would count what its parent held when it was started.
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024
