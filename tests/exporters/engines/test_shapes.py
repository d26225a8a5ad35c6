"""An engine makes of its images what its graph makes of them; where it does not, it is not built."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper
from tensorrt_surface import SURFACES

from exporters import reference
from exporters.engines import onnxruntime, shapes, tensorrt_rtx
from pipeline.building import stages

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

SIDE = 5


def network(
    path: Path,
    *,
    pads: int = 1,
    ceil_mode: int = 1,
    operator: str = "MaxPool",
    head: str = "mean",
    opset: int = 17,
    images: tuple[Any, ...] = ("N", 3, SIDE, SIDE),
    logits: tuple[Any, ...] = ("N", 4),
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Two convolutions with a pool between them, which PyTorch and ONNX Runtime end before a window in the padding."""
    numbers = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(numbers.standard_normal(shape).astype(np.float32), name)

    pooled = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [pads] * 4, "ceil_mode": ceil_mode}
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], "/Cast", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "first"], ["wide"], "/layer1/layer1.0/conv1/Conv", pads=[1] * 4),
        helper.make_node(operator, ["wide"], ["narrow"], f"/layer1/layer1.0/pool/{operator}", **pooled),
        helper.make_node("Conv", ["narrow", "second"], ["maps"], "/layer1/layer1.1/conv1/Conv", pads=[1] * 4),
    ]
    constants = [constant("first", 4, 3, 3, 3), constant("second", 4, 4, 3, 3)]
    if head == "mean":
        nodes.append(helper.make_node("GlobalAveragePool", ["maps"], ["mean"], "/pool/GlobalAveragePool"))
        nodes.append(helper.make_node("Flatten", ["mean"], ["logits"], "/Flatten"))
    else:
        nodes.append(helper.make_node("Flatten", ["maps"], ["all"], "/Flatten"))
        nodes.append(helper.make_node("Gemm", ["all", "fc"], ["logits"], "/fc/Gemm"))
        constants.append(constant("fc", 4 * 3 * 3, 4))
    inputs = [helper.make_tensor_value_info("images", kind, images)]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits)]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(made, path)
    return path


# In opset 17 ONNX's own shape inference, and with it ONNX Runtime, refuses a Gemm behind such a pool.
@pytest.mark.parametrize(("opset", "head"), [(17, "mean"), (19, "mean"), (22, "mean"), (22, "gemm")])
def test_a_pool_that_tensorrt_ends_one_row_later_is_no_engine(tmp_path: Path, opset: int, head: str) -> None:
    src = network(tmp_path / "x.onnx", opset=opset, head=head)
    with pytest.raises(RuntimeError) as refused:
        tensorrt_rtx.BACKEND.build(src, tmp_path / "x.engine")
    sentence = (
        "tensorrt-rtx makes narrow of shape 1x4x4x4 from 1 image(s), the graph 1x4x3x3: they part at layer1.0.pool"
    )
    assert sentence in str(refused.value)
    assert not (tmp_path / "x.engine").exists()


def test_the_refusal_of_a_parser_begins_with_its_reason(tmp_path: Path) -> None:
    src = network(tmp_path / "x.onnx", operator="AveragePool")
    with pytest.raises(
        RuntimeError, match=r"the parser refuses x\.onnx: .*the padding size is larger than or equal to"
    ):
        tensorrt_rtx.BACKEND.build(src, tmp_path / "x.engine")


@pytest.mark.parametrize(
    "change",
    [
        {"pads": 0},
        {"ceil_mode": 0},
        {"operator": "AveragePool", "pads": 0},
        {"kind": TensorProto.UINT8, "pads": 0},
        {"pads": 0, "head": "gemm", "opset": 22},
        {"pads": 0, "logits": (None, None)},
        {"pads": 0, "images": (4, 3, SIDE, SIDE), "logits": (4, 4)},
    ],
    ids=str,
)
def test_honest_pools_are_built_without_a_word(tmp_path: Path, change: dict[str, Any]) -> None:
    src = network(tmp_path / "x.onnx", **change)
    batch = change.get("images", ("N",))[0]
    options = {"profiles": [[batch] * 3]} if isinstance(batch, int) else {"profiles": [[1, 1, 1], [2, 4, 8]]}
    assert tensorrt_rtx.BACKEND.build(src, tmp_path / "x.engine", options).warnings == ()
    assert onnxruntime.BACKEND.build(src, tmp_path / "x.ort.onnx").warnings == ()


def test_a_graph_without_the_shape_of_its_output_is_one_sentence(tmp_path: Path) -> None:
    src = network(tmp_path / "x.onnx", pads=0)
    model = onnx.load(src)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, src)
    for backend in (tensorrt_rtx.BACKEND, onnxruntime.BACKEND):
        with pytest.raises((RuntimeError, ValueError), match=r"x\.onnx is not a valid ONNX file: .*shape.* missing"):
            backend.build(src, tmp_path / "engine")


def test_shapes_for_many_images_are_those_of_a_run_with_as_many(tmp_path: Path) -> None:
    src = network(tmp_path / "x.onnx")
    graph = shapes.of_graph(src, (1, 16))
    assert graph.ends == ["images", "logits"]
    for batch in (1, 16):
        ran = shapes.of_session(reference.session(src), batch)
        assert ran == {"images": [batch, 3, SIDE, SIDE], "logits": [batch, 4]}
        assert {name: graph.batches[str(batch)][name] for name in graph.ends} == ran
    assert graph.batches["16"]["narrow"] == [16, 4, 3, 3]


def test_a_graph_for_one_batch_is_asked_for_that(tmp_path: Path) -> None:
    src = network(tmp_path / "x.onnx", images=(4, 3, SIDE, SIDE), logits=(4, 4))
    assert list(shapes.of_graph(src, (1, 16)).batches) == ["4"]


def test_images_of_any_size_cannot_be_compared_and_that_is_said(tmp_path: Path) -> None:
    src = network(tmp_path / "x.onnx", pads=0, images=("N", 3, "height", SIDE))
    built = onnxruntime.BACKEND.build(src, tmp_path / "x.ort.onnx")
    (warning,) = built.warnings
    assert warning == "its shapes are not compared with the graph's: images takes any size in dimension 2"


def test_an_engine_of_onnx_runtime_with_another_shape_is_refused(tmp_path: Path) -> None:
    src = network(tmp_path / "x.onnx", opset=22, pads=0)
    other = network(tmp_path / "y.onnx", opset=22, pads=0, images=("N", 3, 6, 6), logits=("N", 4))
    session = reference.session(other)
    assert shapes.refuse("ONNX Runtime", other, session, (1, 16)) == ()
    with pytest.raises(RuntimeError, match=r"makes images of shape 1x3x6x6 from 1 image\(s\), the graph 1x3x5x5"):
        shapes.refuse("ONNX Runtime", src, session, (1, 16))


GRAPH = {
    "batches": {"1": {"images": [1, 3], "mean": [1, 4, 1, 1], "logits": [1, 4]}, "8": {"logits": [8, 4]}},
    "ends": ["images", "logits"],
    "modules": {"mean": "pool (ReduceMean)", "logits": "fc (Gemm)"},
}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"1": {"images": [1, 3], "mean": [1, 4], "logits": [1, 4]}}, ""),
        ({"1": {"mean": [-1, 4, 1, 1], "logits": [-1, 4]}}, ""),
        ({"1": {"mean": [1, 4, 2, 1]}}, "mean of shape 1x4x2x1 from 1 image(s)"),
        ({"1": {"logits": [1, 4, 1]}}, "makes logits of shape 1x4x1 from 1 image(s), the graph 1x4: they part at fc"),
        ({"1": {"logits": [1, 4]}, "8": {"logits": [9, 4]}}, "logits of shape 9x4 from 8 image(s), the graph 8x4"),
        ({"8": {"logits": [-1, 4]}}, ""),
        ({"1": {"images": [1, 4]}}, "they part at its input"),
        ({"1": {"of its own": [7]}}, ""),
    ],
)
def test_ends_are_the_same_and_inner_tensors_but_for_ones(found: dict[str, shapes.Shapes], said: str) -> None:
    difference = shapes.difference("it", json.loads(json.dumps(GRAPH)), found)
    assert said in difference
    assert bool(difference) == bool(said)


def test_a_list_of_layers_gives_the_sizes_of_its_tensors() -> None:
    text = "Layers:\nName: pool, LayerType: maxpool, Inputs: [ { Name: images, Dimensions: [-1,3,5,5], Strides: [1]}], "
    assert shapes.of_list([text, "Name: images, Dimensions: [7]"], ["images"], 16) == {"images": [16, 3, 5, 5]}


def test_a_tensor_that_is_written_in_parts_is_not_taken_for_one_of_them() -> None:
    part = "Name: joined, Dimensions: [-1,16,8,8], "
    text = f"Layers:\nOutputs: [ {{ Name: joined, Dimensions: [-1,32,8,8], }}], Outputs: [ {{ {part} }}]"
    assert shapes.of_list([text], ["joined"], 1) == {}
    assert shapes.of_list([f"Layers:\n{{ {part} }} {{ {part} }}"], ["joined"], 1) == {"joined": [1, 16, 8, 8]}


@pytest.mark.parametrize("version", SURFACES)
def test_every_tensorrt_tells_the_shapes_of_its_network(version: str) -> None:
    network_names = {"num_inputs", "get_input", "num_layers", "get_layer", "num_outputs", "get_output"}
    assert network_names <= SURFACES[version]["INetworkDefinition"].keys()
    assert {"name", "shape"} <= SURFACES[version]["ITensor"].keys()


POOLS = """
import itertools, sys
from pathlib import Path
import onnx_ir as ir
import tensorrt_rtx as trt
from onnx import helper, save
from exporters.engines import shapes
from exporters.opsets import changed

path = Path(sys.argv[1])
logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
builder = trt.Builder(logger)
outcomes = []
for kernel, stride, pad, size in itertools.product((2, 3), (2, 3), (0, 1), (5, 6, 7)):
    pooled = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": 1}
    nodes = [helper.make_node("MaxPool", ["images"], ["maps"], **pooled)]
    nodes.append(helper.make_node("GlobalAveragePool", ["maps"], ["logits"]))
    images = helper.make_tensor_value_info("images", 1, ["N", 1, size, size])
    logits = helper.make_tensor_value_info("logits", 1, ["N", 1, 1, 1])
    model = helper.make_model(
        helper.make_graph(nodes, "pool", [images], [logits]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    save(model, path)
    graph = shapes.of_graph(path, (1, 16))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path))
    found = {batch: shapes.of_network(network, int(batch)) for batch in graph.batches}
    parts = bool(shapes.difference("rtx", graph.to_json(), found))
    pool = ir.from_proto(model).graph[0]
    assert parts == bool(changed(pool, 17, 22)), (pooled, size, parts)
    outcomes.append(parts)
print(sum(outcomes), len(outcomes))
"""


def test_the_pools_that_tensorrt_ends_later_are_those_whose_last_window_starts_in_the_padding(tmp_path: Path) -> None:
    command = [sys.executable, "-c", POOLS, str(tmp_path / "pool.onnx")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parted, pools = map(int, done.stdout.split())
    assert 0 < parted < pools == 24


CODE = """
from torch import nn

def net(classes, channels):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2, 3, 1, ceil_mode=True),
        nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )
"""


def test_a_build_of_such_a_pool_fails_with_its_module(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(CODE)
    done = cli(
        "--arch", "ends:net", "--precision", "fp32", "--engine", "tensorrt-rtx", "--epochs", 1, "-o", "out",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "they part at 2 (MaxPool)" in said
    assert not list((tmp_path / "out").glob("*.engine"))


def test_an_engine_of_such_a_pool_is_refused_with_its_module(tmp_path: Path) -> None:
    src = network(tmp_path / "x.onnx")
    with pytest.raises(RuntimeError, match=r"they part at layer1\.0\.pool \(MaxPool\)"):
        stages.engine(tensorrt_rtx.BACKEND, {}, src, tmp_path / "x.engine")
