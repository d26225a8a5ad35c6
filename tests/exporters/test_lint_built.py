"""Each word of lint is held against what TensorRT-RTX really builds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
import rtx_layers
from small_graphs import BROKEN, HONEST, IN_FLOAT, REFUSED, UNSAID, UPSAMPLED, Small

from exporters import lint, onnx_file

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = {"Conv", "Gemm", "MatMul"}


def written(small: Small, folder: Path) -> Path:
    model = small.make()
    onnx.save(model, folder / "small.onnx")
    return folder / "small.onnx"


def layers_of(path: Path) -> list[str]:
    return [onnx_file.module_of(node) for node in onnx.load(path).graph.node if node.op_type in LAYERS]


@pytest.mark.parametrize("small", HONEST.values(), ids=HONEST)
def test_of_an_honest_graph_nothing_is_said_and_all_of_it_is_built_in_8_bits(small: Small, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    assert lint.lint(onnx_file.read(path)) == []
    description = rtx_layers.built(path)
    assert description is not None
    # By number: behind an If, the builder lists its kernels without names.
    assert len(rtx_layers.kernels_in_8_bits(description)) == len(layers_of(path))


@pytest.mark.parametrize("small", BROKEN.values(), ids=BROKEN)
def test_a_broken_graph_is_named_and_built_as_lint_says(small: Small, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    found = lint.lint(onnx_file.read(path))
    assert {(item.rule, item.module) for item in found} == small.broken
    effects = {item.effect for item in found}
    assert small.built in effects
    assert (REFUSED in effects) == (small.built == REFUSED)

    description = rtx_layers.built(path)
    assert (description is None) == (small.built == REFUSED)
    if description is None:
        return
    in_float = set(layers_of(path)) - rtx_layers.in_8_bits(description)
    assert in_float == ({layers_of(path)[-1]} if small.built == IN_FLOAT else set())


@pytest.mark.parametrize("small", UPSAMPLED.values(), ids=UPSAMPLED)
def test_a_transposed_convolution_is_a_layer_with_weights_and_never_built_in_8_bits(
    small: Small, tmp_path: Path
) -> None:
    path = written(small, tmp_path)
    assert {(item.rule, item.module) for item in lint.lint(onnx_file.read(path))} == small.broken
    description = rtx_layers.built(path)
    assert description is not None
    kernels = [layer for layer in description.layers if layer.kind == "deconv"]
    assert [layer.inputs for layer in kernels] == [("float32", "float32")]


@pytest.mark.parametrize("small", UNSAID.values(), ids=UNSAID)
def test_nothing_is_said_of_what_is_no_layer_with_weights(small: Small, tmp_path: Path) -> None:
    assert lint.lint(onnx_file.read(written(small, tmp_path))) == []
