"""Lint's word on each convolution of files that others wrote, next to what TensorRT-RTX builds of them.

``python -m benchmarks.lint_foreign [--work DIR]``: one small ResNet, trained for seconds on the digits, written by
PyTorch's exporters, onnxruntime, Model Optimizer and NNCF, each in an environment of its own. Prints the table of
docs/results/lint.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import platformdirs

from benchmarks.peers import environments
from exporters import lint, onnx_file
from exporters.engines import tensorrt_rtx
from exporters.engines.description import from_json
from exporters.lint_graph import is_a
from pipeline.data import digits
from pipeline.data.images import Images
from pipeline.data.part import spread

if TYPE_CHECKING:
    import onnx_ir as ir

WRITERS = Path(__file__).parent / "peers" / "quantisers"
ARCH, IMAGES = "resnet_tiny", 64
INT8, FLOAT, REFUSED = "int8", "float", "refused"


class Writer(NamedTuple):
    """Who wrote the files: its environment, its script, what the script reads, and the settings."""

    environment: str
    script: str
    reads: str
    settings: tuple[str, ...]


FOLDED, SIMPLIFIED, WEIGHTS = "04-fold_batchnorm.onnx", "03-simplify.onnx", "01-freeze.safetensors"
FOREIGN: dict[str, Writer] = {
    "PyTorch": Writer(
        "torch", "torch_fake_quantize", WEIGHTS,
        ("dynamo tensors", "dynamo numbers", "torchscript modules", "torchscript numbers"),
    ),
    "onnxruntime": Writer(
        "onnxruntime", "ort_settings", FOLDED,
        (
            "defaults", "signed", "signed, symmetric", "for TensorRT", "stored weights", "one weight scale",
            "pairs of their own", "convolutions only", "without the first convolution", "unsigned, symmetric",
        ),
    ),
    "onnxruntime on BatchNormalization": Writer("onnxruntime", "ort_settings", SIMPLIFIED, ("for TensorRT",)),
    "Model Optimizer": Writer(
        "modelopt", "modelopt_settings", FOLDED, ("max, fp32", "entropy, fp32", "max, fp16"),
    ),
    "NNCF": Writer("nncf", "nncf_settings", FOLDED, ("performance", "mixed")),
}  # fmt: skip


def main() -> None:
    """Write, lint and build every file; exit 1 where a word is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(platformdirs.user_cache_dir("edge-resnet"), "lint-foreign"))
    work = parser.parse_args().work
    source = ours(work)
    print("| file | convolutions | lint says | TensorRT-RTX builds | the same | rules |\n|---|---|---|---|---|---|")
    wrong = 0
    for writer, row in FOREIGN.items():
        for setting in row.settings:
            wrong += compared(f"{writer}, {setting}", written(work, row, setting, source))
    wrong += compared("edge-resnet", next(source.glob("0?-int8.onnx")))
    for environment in dict.fromkeys(row.environment for row in FOREIGN.values()):
        print(environments.versions(environment, work))
    sys.exit(bool(wrong))


def ours(work: Path) -> Path:
    """Our own build, whose float graph the others start from."""
    done = work / "ours"
    if not (done / "report.json").exists():
        command = [sys.executable, "-m", "pipeline", "build", "--arch", ARCH, "--precision", "int8"]
        subprocess.run([*command, "--engine", "onnxruntime", "--recover", "none", "-o", done], check=True)
    if not (work / "calibration.npy").exists():
        train = digits.read().train
        batches = Images(train.take(spread(train.labels, IMAGES, 0)), digits.read().preprocessing).batches(IMAGES)
        np.save(work / "calibration.npy", next(iter(batches)))
    return done


def written(work: Path, writer: Writer, setting: str, source: Path) -> Path:
    """The file of ``writer`` under ``setting``, made once."""
    dst = work / f"{writer.script}-{writer.reads[:2]}-{setting.replace(', ', '-').replace(' ', '-')}.onnx"
    if not dst.exists():
        interpreter = environments.python(writer.environment, work)
        paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "CUDA_VISIBLE_DEVICES": ""}
        script = WRITERS / f"{writer.script}.py"
        files = (source / writer.reads, work / "calibration.npy", dst)
        command = [str(interpreter), str(script), setting, *map(str, files)]
        subprocess.run(command, check=True, env=paths, stdout=sys.stderr)
    return dst


def compared(name: str, path: Path) -> int:
    """Print the row of one file; how many words are wrong."""
    model = onnx_file.read(path)
    findings = lint.lint(model)
    convolutions = list(onnx_file.convolutions(model))
    said = [word(node, findings) for node in convolutions]
    built = built_as(path, len(convolutions))
    wrong = sum(one != other for one, other in zip(said, built, strict=True))
    rules = ", ".join(sorted({finding.rule for finding in findings})) or "–"
    cells = (name, len(convolutions), counted(said), counted(built), f"{len(said) - wrong} of {len(said)}", rules)
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return wrong


def word(convolution: ir.Node, findings: list[lint.Finding]) -> str:
    """What lint says of a convolution: REFUSED with the whole file, in FLOAT, or in INT8."""
    if any(finding.effect == lint.REFUSED for finding in findings):
        return REFUSED
    pairs = []
    for value in convolution.inputs[:2]:
        dequantise = value.producer() if value is not None else None
        if is_a(dequantise, "DequantizeLinear"):
            assert dequantise is not None
            pairs += [dequantise, dequantise.inputs[0].producer() if dequantise.inputs[0] is not None else None]
    if not pairs:
        return FLOAT
    modules = {lint.module_of(node) for node in (convolution, *pairs) if node is not None}
    in_float = {finding.module for finding in findings if finding.effect == lint.FLOAT}
    return FLOAT if modules & in_float else INT8


def built_as(path: Path, count: int) -> list[str]:
    """What TensorRT-RTX builds of each convolution."""
    # Some writers fix the batch.
    shape = onnx_file.read(path).graph.inputs[0].shape
    batch = shape[0] if shape is not None else None
    options = {"profiles": [[batch] * 3]} if isinstance(batch, int) else None
    try:
        made = tensorrt_rtx.BACKEND.build(path, path.with_suffix(".engine"), options)
    except RuntimeError as error:
        print(f"{path.name}: {error}", file=sys.stderr)
        return [REFUSED] * count
    assert made.description is not None
    return [INT8 if each.reads_8_bits else FLOAT for each in from_json(made.description).convolutions]


def counted(words: list[str]) -> str:
    """``10 int8, 1 float``."""
    return ", ".join(f"{words.count(each)} {each}" for each in dict.fromkeys(words))


if __name__ == "__main__":
    main()
