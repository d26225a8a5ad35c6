"""Which half of INT8 makes the noise, weights or activations: ``python -m benchmarks.noise BUILD…``.

Of finished int8 builds the file as it is, with its weights back in float, and with its activations back in float: SQNR
of the logits in dB, median over test images. What better rounding of weights could buy at most is the first gap.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx_ir as ir

from exporters import onnx_file
from pipeline.data import sampling
from pipeline.finished.finished_build import FinishedBuild
from pipeline.parity import answers
from pipeline.parity.drift import drift


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", nargs="+", type=Path)
    parser.add_argument("--samples", type=int, default=500)
    asked = parser.parse_args()
    print("| network | both | activations only | weights only |\n|---|---|---|---|")
    for build in asked.builds:
        finished = FinishedBuild.open(build)
        good, bad = finished.stage_files("int8")
        images = sampling.some(finished.test_images(), asked.samples)
        reference = answers.of_file(good).answers(images, "float")
        files = [ir.to_proto(model).SerializeToString() for model in (onnx_file.read(bad), *halves(good, bad))]
        found = [drift(reference, answers.of_model(file).answers(images, "INT8")).sqnr_db for file in files]
        print(
            f"| {finished.arch} | {' | '.join(f'{each:.1f}' for each in found if each)} |",
            flush=True,
        )


def halves(good: Path, bad: Path) -> tuple[ir.Model, ir.Model]:
    """``bad`` with float weights, and with float activations."""
    activations, weights = onnx_file.read(bad), onnx_file.read(bad)
    trusted = {str(node.outputs[0].name): node for node in onnx_file.read(good).graph}
    for node in activations.graph:
        if node.op_type in {"Conv", "Gemm"}:
            held = onnx_file.initializer_array(trusted[str(node.outputs[0].name)].inputs[1])
            assert held is not None
            node.replace_input_with(1, onnx_file.add_initializer(activations.graph, f"{node.name}_float", held))
    for node in list(weights.graph):
        quantise = node.inputs[0].producer() if node.op_type == "DequantizeLinear" and node.inputs[0] else None
        if quantise is not None and quantise.inputs[0] is not None:
            node.outputs[0].replace_all_uses_with(quantise.inputs[0])
    return activations, weights


if __name__ == "__main__":
    main()
