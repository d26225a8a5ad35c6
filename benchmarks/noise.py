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
from pipeline.finished import build_directory
from pipeline.parity import answers
from pipeline.parity.drift import drift


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", nargs="+", type=Path)
    parser.add_argument("--samples", type=int, default=500)
    arguments = parser.parse_args()

    print("| network | both | activations only | weights only |\n|---|---|---|---|")
    for build in arguments.builds:
        cells = sqnr_cells(build, arguments.samples)
        print(f"| {build_directory.recipe_of(build).arch} | {' | '.join(cells)} |", flush=True)


def sqnr_cells(build: Path, samples: int) -> list[str]:
    """The SQNR of the file as it is and of its two halves, each as a cell of the table."""
    good, bad = build_directory.stage_files(build, "int8")
    images = sampling.some(build_directory.test_images(build), samples)
    reference = answers.of_file(good).answers(images, "float")
    cells = []
    for model in (onnx_file.read(bad), with_float_weights(good, bad), with_float_activations(bad)):
        runner = answers.of_model(ir.to_proto(model).SerializeToString())
        sqnr_db = drift(reference, runner.answers(images, "INT8")).sqnr_db
        if sqnr_db:
            cells.append(f"{sqnr_db:.1f}")
    return cells


def with_float_weights(good: Path, bad: Path) -> ir.Model:
    """``bad`` with the weights of ``good``: its activations alone are rounded."""
    model = onnx_file.read(bad)
    trusted_nodes = {str(node.outputs[0].name): node for node in onnx_file.read(good).graph}
    for node in model.graph:
        if node.op_type in {"Conv", "Gemm"}:
            weight = onnx_file.initializer_array(trusted_nodes[str(node.outputs[0].name)].inputs[1])
            assert weight is not None
            node.replace_input_with(1, onnx_file.add_initializer(model.graph, f"{node.name}_float", weight))
    return model


def with_float_activations(bad: Path) -> ir.Model:
    """``bad`` with every activation as it is before its pair: its weights alone are rounded."""
    model = onnx_file.read(bad)
    for node in list(model.graph):
        if node.op_type != "DequantizeLinear" or node.inputs[0] is None:
            continue
        # A weight is stored in levels: no node quantises it.
        quantise = node.inputs[0].producer()
        if quantise is not None and quantise.inputs[0] is not None:
            node.outputs[0].replace_all_uses_with(quantise.inputs[0])
    return model


if __name__ == "__main__":
    main()
