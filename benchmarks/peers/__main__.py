"""Ours against the other quantisers: ``python -m benchmarks.peers [--quick] [--networks …] [--cases …] [--peers …]``.

Every cell (network, case, quantiser) is a JSON file in the work folder, made once: an interrupted run goes on. Prints
the tables of docs/results/peers.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from benchmarks.peers import environments, judge, networks, table
from benchmarks.peers.cases import CASES
from pipeline.data import fashion_mnist
from pipeline.data.part import spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.data.images import Images

HERE = Path(__file__).parent
# Each quantiser: its environment, its script and the method that is asked of it; of ours the placement.
PEERS: dict[str, tuple[str, str, str] | str] = {
    "edge-resnet": "tensorrt",
    "edge-resnet for ONNX Runtime": "onnxruntime",
    "ORT minmax": ("onnxruntime", "ort", "minmax"),
    "ORT entropy": ("onnxruntime", "ort", "entropy"),
    "ORT percentile": ("onnxruntime", "ort", "percentile"),
    "ORT uint8": ("onnxruntime", "ort", "uint8"),
    "ModelOpt max": ("modelopt", "modelopt", "max"),
    "ModelOpt entropy": ("modelopt", "modelopt", "entropy"),
    "NNCF": ("nncf", "nncf_onnx", "default"),
    "esp-ppq": ("esp-ppq", "esp_ppq_trt", "equalise"),
    "AIMET": ("aimet", "aimet_cle", "tf-enhanced"),
}
MOST_GB, MOST_SECONDS, QUICK = 16.0, 3600.0, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(platformdirs.user_cache_dir("edge-resnet"), "peers"))
    parser.add_argument("--networks", nargs="+", choices=networks.NETWORKS, default=list(networks.NETWORKS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} test images")
    asked = parser.parse_args()
    count = QUICK if asked.quick else asked.test_images
    test = fashion_mnist.read(None).test
    images = networks.images(test.take(spread(test.labels, count, 0)))
    for arch in asked.networks:
        for case in asked.cases:
            rows = {peer: cell(asked.work, arch, case, peer, images) for peer in asked.peers}
            print("\n".join(table.lines(arch, case, len(images), rows)), flush=True)
    print(
        table.tools(
            asked.work, {row[0] for peer, row in PEERS.items() if isinstance(row, tuple) and peer in asked.peers}
        )
    )


def cell(work: Path, arch: str, case: str, peer: str, images: Images) -> dict[str, Any]:
    """What one quantiser makes of one network in one case: read where it is known, else made now."""
    folder = work / arch / case.replace(" ", "-")
    name = f"{peer.replace(' ', '-')}-{len(images)}"
    note, file = folder / f"{name}.json", folder / f"{peer.replace(' ', '-')}.onnx"
    if note.exists():
        return dict(json.loads(note.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    source, asked = ours(work, arch, case, folder, "tensorrt"), PEERS[peer]
    print(f"{time.strftime('%H:%M:%S')} {arch}, {case}: {peer}", file=sys.stderr, flush=True)
    made: dict[str, Any] = {}
    if isinstance(asked, str):
        file = next(ours(work, arch, case, folder, asked).parent.glob("0?-int8.onnx"))
        made = {"work": json.loads(file.with_suffix(".json").read_text())["work"]}
    elif not file.exists():
        made = theirs(work, asked, source, calibration(folder, case, source), file)
    if "failed" not in made:
        try:
            made |= judge.judged(file, reference(folder, source, images), images)
        except Exception as error:  # noqa: BLE001 - whatever a foreign file does to the judge is a result
            made["failed"] = f"its file cannot be judged: {str(error).strip().splitlines()[0]}"
    note.write_text(json.dumps(made, indent=1))
    return made


def ours(work: Path, arch: str, case: str, folder: Path, placement: str) -> Path:
    """The float graph that everybody starts from, of a build by the product's defaults."""
    done = folder / {"tensorrt": "ours"}.get(placement, f"ours-{placement}")
    if not (done / "report.json").exists():
        _, is_rescaled, taken = CASES[case]
        weights = networks.checkpoint(arch, work)
        if is_rescaled:
            networks.rescaled(arch, weights, folder / "weights.safetensors")
            weights = folder / "weights.safetensors"
        pixels = CASES[case][0]()
        np.save(folder / "calibration.npy", pixels)
        command = [sys.executable, "-m", "pipeline", "build", "--arch", arch, "--weights", str(weights)]
        command += ["--data", "fashion-mnist", "--input-size", str(networks.SIZE), "--precision", "int8"]
        command += ["--calib-data", str(folder / "calibration.npy"), "--engine", "onnxruntime", "-o", str(done)]
        command += ["--placement", placement]
        command += ["--test-samples", "500", *(["--calib-samples", str(taken)] if taken else [])]
        finished = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if finished.returncode not in {0, 4}:  # undecided: so few test images leave the drop open
            print(f"our own build ends with {finished.returncode}", file=sys.stderr)
    return done / "04-fold_batchnorm.onnx"


def calibration(folder: Path, case: str, source: Path) -> Path:
    """The array that the peers read: the first images of it where the case takes a part."""
    assert source.exists()
    taken, path = CASES[case][2], folder / "calibration.npy"
    if taken is None:
        return path
    first = folder / "first.npy"
    np.save(first, np.load(path)[:taken])
    return first


def theirs(work: Path, peer: tuple[str, str, str], source: Path, pixels: Path, dst: Path) -> dict[str, Any]:
    """What the peer cost, or ``failed`` and why; it writes ``dst``."""
    environment, script, method = peer
    try:
        interpreter = environments.python(environment, work)
    except subprocess.CalledProcessError as error:
        return {"failed": f"its environment cannot be made: {error}"}
    command = [str(interpreter), str(HERE / "quantisers" / f"{script}.py"), method, str(source), str(pixels), str(dst)]
    paths = {**os.environ, "PYTHONPATH": str(HERE), "CUDA_VISIBLE_DEVICES": ""}
    log = dst.with_suffix(".log")
    with log.open("w") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=paths, start_new_session=True)
        stopped = _watched(child)
    lines = log.read_text().splitlines()
    if stopped or child.returncode or not dst.exists():
        return {"failed": stopped or (lines or ["it said nothing"])[-1][:300]}
    return dict(json.loads(next(line for line in reversed(lines) if line.startswith('{"seconds'))))


def _watched(child: subprocess.Popen[bytes]) -> str | None:
    """Why the child was ended, None where it ended by itself."""
    begun = time.monotonic()
    while child.poll() is None:
        time.sleep(0.5)
        why = None
        if time.monotonic() - begun > MOST_SECONDS:
            why = f"not done after {MOST_SECONDS:.0f} s"
        elif _resident(child.pid) > MOST_GB:
            why = f"more than {MOST_GB:.0f} GB of memory"
        if why:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return why
    return None


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def reference(folder: Path, source: Path, images: Images) -> NDArray[np.float32]:
    """What the float graph answers."""
    key = hashlib.sha256(source.read_bytes() + str(len(images)).encode()).hexdigest()[:16]
    path = folder / f"reference-{key}.npy"
    if not path.exists():
        np.save(path, judge.logits(source, images))
    return np.asarray(np.load(path))


if __name__ == "__main__":
    main()
