"""One cell of a table: what one quantiser makes of one network, judged; made once, and kept as JSON."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers import environments, foreign, judge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.data.images import Images

# Ours by the placement that is asked of it; a build for TensorRT has the bare name.
OURS = {"edge-resnet": "tensorrt", "edge-resnet for ONNX Runtime": "onnxruntime"}
QUANTISERS = (*OURS, *foreign.PEERS)
# A build that passed, or whose drop so few test images leave open.
ENDS_OF_A_BUILD = {0, 4}


@dataclass(frozen=True)
class Task:
    """One network in one case: what every quantiser starts from, and the images that judge its file.

    ``source`` answers the float graph and ``calibration`` the array that the peers read, each made where it is not
    there. ``build`` are the arguments of our own build beside its placement and folder. Below ``folder`` is all that is
    made, below ``environments`` are those of the peers.
    """

    folder: Path
    source: Callable[[], Path]
    calibration: Callable[[], Path]
    build: Callable[[], list[str]]
    images: Images
    environments: Path


def cell(task: Task, quantiser: str, *, again: bool = False) -> dict[str, Any]:
    """What ``quantiser`` makes of ``task``: read where it is known, else made now; ``again`` makes ours anew.

    What an environment or a build of ours that ends before its INT8 file leaves undone is not kept.
    """
    stem = quantiser.replace(" ", "-")
    note, file = task.folder / f"{stem}-{len(task.images)}.json", task.folder / f"{stem}.onnx"
    is_ours = quantiser in OURS
    if note.exists() and not (again and is_ours):
        return dict(json.loads(note.read_text()))
    task.folder.mkdir(parents=True, exist_ok=True)
    print(f"{time.strftime('%H:%M:%S')} {task.folder}: {quantiser}", file=sys.stderr, flush=True)

    made: dict[str, Any] = {}
    if is_ours:
        done = built(task, OURS[quantiser], again=again)
        found = sorted(done.glob("0?-int8.onnx"))
        if not found:
            return {"failed": f"our own build ended before it had an INT8 file; see {done}/build.log"}
        file = found[0]
        made = {"work": json.loads(file.with_suffix(".json").read_text())["work"]}
    elif not file.exists():
        try:
            made = foreign.quantised(quantiser, task.source(), task.calibration(), file, task.environments)
        except environments.CannotBeMadeError as error:
            return {"failed": str(error)}
    if "failed" not in made:
        try:
            made |= judge.judged(file, reference(task), task.images)
        except Exception as error:  # noqa: BLE001 - whatever a foreign file does to the judge is a result
            made["failed"] = f"its file cannot be judged: {str(error).strip().splitlines()[0]}"
    note.write_text(json.dumps(made, indent=1))
    return made


def built(task: Task, placement: str, *, again: bool = False) -> Path:
    """The folder of our own build by the product's defaults; what it said is in its build.log."""
    done = task.folder / {"tensorrt": "ours"}.get(placement, f"ours-{placement}")
    if again:
        shutil.rmtree(done, ignore_errors=True)
    if (done / "report.json").exists():
        return done
    command = [sys.executable, "-m", "pipeline", "build", *task.build(), "-o", str(done), "--placement", placement]
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    done.mkdir(parents=True, exist_ok=True)
    (done / "build.log").write_text(finished.stdout)
    if finished.returncode not in ENDS_OF_A_BUILD:
        last = (finished.stdout.strip().splitlines() or ["it said nothing"])[-1]
        print(f"our own build ends with {finished.returncode}: {last}", file=sys.stderr)
    return done


def reference(task: Task) -> judge.Answers:
    """What the float graph answers."""
    source = task.source()
    key = hashlib.sha256(source.read_bytes() + str(len(task.images)).encode()).hexdigest()[:16]
    path = task.folder / f"reference-{key}.npz"
    if not path.exists():
        answered = judge.answers(source, task.images)
        np.savez(path, logits=answered.logits, read=answered.read)
    with np.load(path) as held:
        return judge.Answers(held["logits"], held["read"])
