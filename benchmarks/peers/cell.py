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

# Ours, by what is asked beside the product's defaults.
OURS = {
    "edge-resnet": ("--placement", "tensorrt"),
    "edge-resnet, all in INT8": ("--placement", "tensorrt", "--recover", "equalise"),
    "edge-resnet for ONNX Runtime": ("--placement", "onnxruntime"),
    "edge-resnet for ONNX Runtime, all in INT8": ("--placement", "onnxruntime", "--recover", "equalise"),
}
QUANTISERS = (*OURS, *foreign.PEERS)
# A build that passed, or whose drop so few test images leave open.
ENDS_OF_A_BUILD = {0, 4}


class NoFileError(Exception):
    """A build of ours that ended before its INT8 file."""


@dataclass(frozen=True)
class Task:
    """One network in one case: what every quantiser starts from, and the images that judge its file.

    ``source`` answers the float graph and ``calibration`` the array that the peers read, each made where it is not
    there. ``build`` answers the arguments of our own build beside its folder and those in OURS. Below ``folder`` is
    all that is made, below ``environments`` are those of the peers.
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
    is_ours = quantiser in OURS
    note = task.folder / f"{_stem(quantiser)}-{len(task.images)}.json"
    if note.exists() and not (again and is_ours):
        return dict(json.loads(note.read_text()))
    task.folder.mkdir(parents=True, exist_ok=True)
    print(f"{time.strftime('%H:%M:%S')} {task.folder}: {quantiser}", file=sys.stderr, flush=True)
    try:
        file, made = _ours(task, quantiser, again=again) if is_ours else _theirs(task, quantiser)
    except (environments.CannotBeMadeError, NoFileError) as error:
        return {"failed": str(error)}
    if "failed" not in made:
        made |= _judged(task, file)
    note.write_text(json.dumps(made, indent=1))
    return made


def _ours(task: Task, quantiser: str, *, again: bool) -> tuple[Path, dict[str, Any]]:
    """The INT8 file of our build, and what was done to it."""
    done = built(task, quantiser, again=again)
    found = sorted(done.glob("0?-int8.onnx"))
    if not found:
        raise NoFileError(f"our own build ended before it had an INT8 file; see {done}/build.log")
    return found[0], {"work": json.loads(found[0].with_suffix(".json").read_text())["work"]}


def _theirs(task: Task, quantiser: str) -> tuple[Path, dict[str, Any]]:
    """The file of a peer, and what it cost where it is made now."""
    file = task.folder / f"{_stem(quantiser)}.onnx"
    if file.exists():
        return file, {}
    return file, foreign.quantised(quantiser, task.source(), task.calibration(), file, task.environments)


def _judged(task: Task, file: Path) -> dict[str, Any]:
    try:
        return judge.judged(file, reference(task), task.images)
    except Exception as error:  # noqa: BLE001 - whatever a foreign file does to the judge is a result
        return {"failed": f"its file cannot be judged: {str(error).strip().splitlines()[0]}"}


def _stem(quantiser: str) -> str:
    """The name of a file or folder."""
    return quantiser.replace(",", "").replace(" ", "-")


def built(task: Task, quantiser: str, *, again: bool = False) -> Path:
    """The folder of our own build; what it said is in its build.log."""
    done = task.folder / _stem(quantiser)
    if again:
        shutil.rmtree(done, ignore_errors=True)
    if (done / "report.json").exists():
        return done
    command = [sys.executable, "-m", "pipeline", "build", *task.build(), *OURS[quantiser], "-o", str(done)]
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
