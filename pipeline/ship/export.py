"""A bundle for who does not run the agent: Triton's model repository, DeepStream's configuration, trtexec's line."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from exporters import probabilities, trtexec
from exporters.portable import onnxruntime_session
from pipeline.errors import BadRequest
from pipeline.targets import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.ship.agent.container import Bundle

MODEL = "model.onnx"
LABELS = "labels.txt"
SCRIPT = "build-engine.sh"
ENGINE = "model.engine"
TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
# nvinfer's own filters, on the GPU (NvBufSurfTransform_Inter).
FILTERS = {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos": 4}

TRITON = """\
# Written from {name} ({digest}); images are pixels 0..255, normalisation is in the graph.
name: "{model}"
platform: "{platform}"
max_batch_size: {most}
input [ {{ name: "images" data_type: {type} dims: [ {shape} ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ {classes} ] label_filename: "{labels}" }} ]
dynamic_batching {{ preferred_batch_size: [ {best} ] }}
version_policy {{ latest {{ num_versions: 1 }} }}
{more}"""
# Triton's level 2 is ONNX Runtime without optimisations: the graph as it was judged. With them the INT8 sums of an x86
# without VNNI saturate, and float16 scales underflow, and Triton has no setting against either.
AS_JUDGED = (
    "# As it was judged, on any processor; for speed export again with --engine.\noptimization { graph { level: 2 } }\n"
)

NVINFER = """\
# Written from {name} ({digest}). Build the engine on the device first: sh {script}
# No ONNX file is named here: nvinfer would build another engine from it, in other types, where this one does not load.
[property]
gpu-id=0
gie-unique-id=1
process-mode=1
network-type=1
model-engine-file={engine}
labelfile-path={labels}
batch-size={most}
infer-dims={shape}
# Pixels go in as they are: normalisation is in the graph.
net-scale-factor=1.0
offsets={offsets}
model-color-format={colours}
# nvinfer scales the whole frame; what was judged is {resize}, then its centre. Hand it square frames, or have
# python -m pipeline conform count what the difference costs.
maintain-aspect-ratio=0
scaling-compute-hw=1
scaling-filter={filter}
output-blob-names={output}
# Below it nvinfer gives no class at all.
classifier-threshold=0.0
"""


def export(bundle: Bundle, form: str, output: Path, tensorrt: str | None, engine: Path | None) -> list[str]:
    """Write ``bundle`` as ``form`` to the new folder ``output``; what a person is told.

    Raises BadRequest where the form cannot hold it, or needs a TensorRT that nobody named.
    """
    if engine is not None and form != "triton":
        raise BadRequest(
            f"--engine goes with --format triton; for {form} the engine is built by {SCRIPT} on the device"
        )
    with folder(output) as fresh:
        return FORMATS[form](bundle, fresh, tensorrt, engine)


def _triton(bundle: Bundle, folder: Path, _: str | None, engine: Path | None) -> list[str]:
    model = bundle.manifest["model"]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", bundle.manifest["name"])
    platform, file_name, more = _served(model, engine)

    # Triton's repository: MODEL/config.pbtxt, and each version in a folder of its number.
    home = folder / name
    version = home / "1"
    version.mkdir(parents=True)
    if engine is None:
        (version / file_name).write_bytes(bundle.read(MODEL))
    else:
        _copy(engine, version / file_name)
    labels = _labels(bundle, "\n")
    (home / LABELS).write_text("".join(f"{label}\n" for label in labels))
    text = TRITON.format(
        **_about(bundle),
        model=name,
        platform=platform,
        type=TYPES[model["dtype"]],
        output="logits",
        classes=model["classes"],
        best=model["batches"][1],
        shape=", ".join(map(str, model["input"])),
        more=more,
    )
    (home / "config.pbtxt").write_text(text)
    return [f"{name}: {platform}; tritonserver --model-repository with this folder serves it"]


def _served(model: dict[str, Any], engine: Path | None) -> tuple[str, str, str]:
    """Triton's platform, its name of the file, and what else it must be told."""
    quantised = model["number_format"] is not None
    as_judged = AS_JUDGED if quantised else ""
    if engine is None:
        if model["computes_in"] not in onnxruntime_session.COMPUTES_IN:
            raise BadRequest(
                f"--format triton: ONNX Runtime does not compute in {model['precision']}; "
                "name the device's engine by --engine"
            )
        return "onnxruntime_onnx", MODEL, as_judged

    least = model["batches"][0]
    if least != 1:
        raise BadRequest(f"--format triton: it sends single images, and the engine takes at least {least}; build again")
    if engine.suffix in {".plan", ".engine"}:
        return "tensorrt_plan", "model.plan", ""
    if engine.suffix == ".onnx":
        return "onnxruntime_onnx", MODEL, as_judged
    raise BadRequest(f"--engine {engine}: it is no .plan or .engine of TensorRT, and no .onnx of ONNX Runtime")


def _deepstream(bundle: Bundle, folder: Path, tensorrt: str | None, _: Path | None) -> list[str]:
    model = bundle.manifest["model"]
    channels = model["input"][0]
    least = model["batches"][0]
    if model["dtype"] != "float32" or channels not in {1, 3} or least != 1:
        wanted = f"images of {model['dtype']} with {channels} channels, at least {least} a run"
        raise BadRequest(
            f"--format deepstream: nvinfer hands on float32, 1 or 3 channels, single images too, not {wanted}"
        )
    resize = json.loads(bundle.read("conformance.json"))["resize"]
    # nvinfer takes the answers of a classifier for shares of one, so a Softmax goes behind the logits.
    with TemporaryDirectory() as scratch:
        (Path(scratch) / MODEL).write_bytes(bundle.read(MODEL))
        probabilities.probabilities(Path(scratch) / MODEL, folder / MODEL)
    _write_script(bundle, folder, tensorrt)
    labels = _labels(bundle, "\n;")
    (folder / LABELS).write_text(";".join(labels) + "\n")
    text = NVINFER.format(
        **_about(bundle),
        script=SCRIPT,
        engine=ENGINE,
        shape=";".join(map(str, model["input"])),
        offsets=";".join(["0"] * channels),
        colours=0 if channels == 3 else 2,  # nvinfer's numbers for RGB and grey
        resize=f"a resize of the shorter side to {resize['shorter_side']}",
        filter=FILTERS[resize["filter"]],
        output=probabilities.OUTPUT,
    )
    (folder / "config_infer.txt").write_text(text)
    return [
        f"sh {SCRIPT} on the device, then nvinfer config-file-path=config_infer.txt; behind the logits is a Softmax now"
    ]


def _trtexec(bundle: Bundle, folder: Path, tensorrt: str | None, _: Path | None) -> list[str]:
    (folder / MODEL).write_bytes(bundle.read(MODEL))
    return [_write_script(bundle, folder, tensorrt)]


def _write_script(bundle: Bundle, folder: Path, tensorrt: str | None) -> str:
    """Write the script that builds the engine beside it; the line of trtexec in it."""
    model = bundle.manifest["model"]
    version = tensorrt or model["tensorrt"]
    if version is None:
        raise BadRequest("the bundle names no TensorRT; name that of the device, as in --tensorrt 10.3.0")
    table.version(version)  # refuses what is no version
    built_for = {
        "target": model["target"] or "the device",
        "tensorrt": version,
        "profiles": [model["batches"]],
        "typing": model["typing"],
        "weak_flags": model["weak_flags"],
    }
    # Of the file that lies there, which may be another than the bundle's: DeepStream's has a Softmax more.
    digest = hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()
    try:
        text = trtexec.script(SCRIPT, MODEL, digest, model["input"], model["precision"], built_for)
        flags = trtexec.flags(model["input"], model["precision"], built_for)
    except ValueError as error:
        raise BadRequest(f"--tensorrt {version}: {error}; build again with --target for this device") from error
    (folder / SCRIPT).write_text(text)
    (folder / SCRIPT).chmod(0o755)
    return shlex.join(["trtexec", f"--onnx={MODEL}", f"--saveEngine={ENGINE}", *flags])


def _about(bundle: Bundle) -> dict[str, Any]:
    """What every template of a configuration has."""
    manifest = bundle.manifest
    return {
        "name": manifest["name"],
        "digest": bundle.digest[:12],
        "labels": LABELS,
        "most": manifest["model"]["batches"][2],
    }


def _labels(bundle: Bundle, separators: str) -> list[str]:
    """The names of the classes; raises BadRequest where one would be read as two."""
    labels: list[str] = json.loads(bundle.read("classes.json"))
    for label in labels:
        if not label.isprintable() or set(label) & set(separators):
            raise BadRequest(
                f"{LABELS} cannot hold the class {label!r}: it would be read as two; rename it and build again"
            )
    return labels


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise BadRequest(f"--engine {source}: it cannot be read ({error.strerror})") from error


@contextmanager
def folder(output: Path) -> Iterator[Path]:
    """A new folder that becomes ``output`` as a whole, or not at all."""
    if os.path.lexists(output):
        raise BadRequest(f"-o {output}: it is there already; name a folder that is not")
    try:
        with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as name:
            fresh = Path(name) / output.name
            fresh.mkdir()
            yield fresh
            fresh.rename(output)
    except OSError as error:
        raise BadRequest(f"-o {output}: it cannot be written ({error.strerror}); choose another place") from error


FORMATS: dict[str, Callable[[Bundle, Path, str | None, Path | None], list[str]]] = {
    "triton": _triton,
    "deepstream": _deepstream,
    "trtexec": _trtexec,
}
