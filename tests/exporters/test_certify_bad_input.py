"""What no certificate can be given for is said in a sentence: exit code 1 or 2, in little memory, never a traceback."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto

OPSET = 17
OWN = "own.operators"
GIGABYTE = 2**30
# All numbers of a constant of 2 GB in float32.
HUGE = 2**29
SECONDS = 120


def network() -> ModelProto:
    """Images (N, 3, 8, 8) → Conv → Relu → Flatten → logits."""
    generator = np.random.default_rng(0)
    arrays = {"conv.weight": generator.normal(size=(4, 3, 3, 3)), "conv.bias": generator.normal(size=4)}
    nodes = [
        helper.make_node("Conv", ["images", "conv.weight", "conv.bias"], ["c"], "/conv/Conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], "/relu/Relu"),
        helper.make_node("Flatten", ["r"], ["logits"], "/Flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 256])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def constant(model: ModelProto, name: str, array: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return name


def put_first(model: ModelProto, *nodes: onnx.NodeProto) -> None:
    held = list(model.graph.node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*nodes, *held)]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def images_with_a_default(model: ModelProto) -> None:
    """The input itself has numbers of its own, which whoever runs the file overrides."""
    constant(model, "images", np.zeros((1, 3, 8, 8), np.float32))


def weight_overridden_by_a_node(model: ModelProto) -> None:
    """A node computes what an initializer of the same name holds."""
    put_first(model, helper.make_node("Neg", [constant(model, "w", np.ones(4, np.float32))], ["conv.bias"]))


def weight_as_a_plain_input(model: ModelProto) -> None:
    """A weight that is an input of the graph without any numbers."""
    model.graph.input.append(helper.make_tensor_value_info("conv.bias", TensorProto.FLOAT, [4]))
    model.graph.initializer.remove(model.graph.initializer[1])


def unknown_domain(model: ModelProto) -> None:
    model.graph.node[1].domain = "nobody.knows"
    model.graph.node[1].op_type = "Bend"
    model.opset_import.append(helper.make_opsetid("nobody.knows", 1))


def domain_without_opset(model: ModelProto) -> None:
    model.graph.node[1].domain = "nobody.knows"


def unknown_operator(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Bend"


def function(model: ModelProto, name: str, calls: str) -> None:
    """A function that calls another one, or itself."""
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(OWN, 1)]
    body = [helper.make_node(calls, ["x"], ["y"], domain=OWN)]
    model.functions.append(helper.make_function(OWN, name, ["x"], ["y"], body, opsets))


def calls_itself(model: ModelProto) -> None:
    function(model, "Bend", "Bend")
    model.opset_import.append(helper.make_opsetid(OWN, 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Bend", OWN


def call_each_other(model: ModelProto) -> None:
    function(model, "Bend", "Turn")
    function(model, "Turn", "Bend")
    model.opset_import.append(helper.make_opsetid(OWN, 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Bend", OWN


def missing_function(model: ModelProto) -> None:
    function(model, "Bend", "Nothing")
    model.opset_import.append(helper.make_opsetid(OWN, 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Bend", OWN


def huge(*nodes: onnx.NodeProto, **constants: Any) -> Callable[[ModelProto], None]:
    """A bias that takes 2 GB on the way: what the nodes make in ``huge`` comes down to its largest number."""

    def change(model: ModelProto) -> None:
        for name, array in constants.items():
            constant(model, name, array)
        down = helper.make_node("ReduceMax", ["huge"], ["top"], "/huge/ReduceMax", keepdims=0)
        shift = helper.make_node("Add", ["conv.bias", "top"], ["shifted"], "/huge/Add")
        model.graph.node[0].input[2] = "shifted"
        put_first(model, *nodes, down, shift)

    return change


def huge_weight(model: ModelProto) -> None:
    """The weight itself takes 2 GB."""
    shape = constant(model, "shape", np.array([HUGE // 27, 3, 3, 3]))
    put_first(model, helper.make_node("ConstantOfShape", [shape], ["weight"], "/huge/ConstantOfShape"))
    model.graph.node[1].input[1] = "weight"
    del model.graph.node[1].input[2:]
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = HUGE // 27 * 64


def huge_by_doubling(model: ModelProto) -> None:
    """A constant that a Concat with itself makes twice as large, thirty times."""
    nodes = []
    name = constant(model, "start", np.ones(1, np.float32))
    for place in range(30):
        nodes.append(helper.make_node("Concat", [name, name], [f"d{place}"], f"/huge/Concat_{place}", axis=0))
        name = f"d{place}"
    nodes.append(helper.make_node("ReduceMax", [name], ["top"], "/huge/ReduceMax", keepdims=0))
    nodes.append(helper.make_node("Add", ["conv.bias", "top"], ["shifted"], "/huge/Add"))
    model.graph.node[0].input[2] = "shifted"
    put_first(model, *nodes)


def deep_chain(model: ModelProto) -> None:
    """A bias through five thousand nodes."""
    nodes = []
    name = "conv.bias"
    for place in range(5000):
        nodes.append(helper.make_node("Neg", [name], [f"n{place}"], f"/deep/Neg_{place}"))
        name = f"n{place}"
    model.graph.node[0].input[2] = name
    put_first(model, *nodes)


def shapes_do_not_fit(model: ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, ["batch", 4, 5, 5]))


def types_do_not_fit(model: ModelProto) -> None:
    put_first(model, helper.make_node("Cast", ["conv.bias"], ["whole"], to=TensorProto.INT64))
    model.graph.node[1].input[2] = "whole"


def unknown_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 99


def unsorted(model: ModelProto) -> None:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node][::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def circle(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "r"


def no_outputs(model: ModelProto) -> None:
    del model.graph.output[:]


def unknown_input(model: ModelProto) -> None:
    model.graph.node[1].input[0] = "nobody made it"


def same_output_twice(model: ModelProto) -> None:
    model.graph.node[1].output[0] = "c"


def constant_of_text(model: ModelProto) -> None:
    put_first(model, helper.make_node("Constant", [], ["text"], "/text", value_string=b"text"))
    model.graph.node[1].input[2] = "text"


def constant_of_nothing(model: ModelProto) -> None:
    put_first(model, helper.make_node("Constant", [], ["nothing"], "/nothing"))
    model.graph.node[1].input[2] = "nothing"


def sparse_constant(model: ModelProto) -> None:
    values = helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("places", TensorProto.INT64, [1], [2])
    sparse = helper.make_sparse_tensor(values, places, [4])
    put_first(model, helper.make_node("Constant", [], ["sparse"], "/sparse", sparse_value=sparse))
    model.graph.node[1].input[2] = "sparse"


def if_without_branches(model: ModelProto) -> None:
    condition = constant(model, "condition", np.bool_(True))
    model.graph.node[1].CopyFrom(helper.make_node("If", [condition], ["r"], "/if/If"))


BAD: dict[str, Callable[[ModelProto], None]] = {
    "a weight that a node overrides": weight_overridden_by_a_node,
    "a weight without numbers": weight_as_a_plain_input,
    "an unknown domain": unknown_domain,
    "a domain without an opset": domain_without_opset,
    "an unknown operator": unknown_operator,
    "a function that calls itself": calls_itself,
    "functions that call each other": call_each_other,
    "a function that calls nothing": missing_function,
    "2 GB by ConstantOfShape": huge(
        helper.make_node("ConstantOfShape", ["shape"], ["huge"], "/huge/ConstantOfShape"), shape=np.array([HUGE])
    ),
    "2 GB by Expand": huge(
        helper.make_node("Expand", ["one", "shape"], ["huge"], "/huge/Expand"),
        one=np.ones(1, np.float32),
        shape=np.array([1024, HUGE // 1024]),
    ),
    "2 GB by Tile": huge(
        helper.make_node("Tile", ["one", "times"], ["huge"], "/huge/Tile"),
        one=np.ones(1, np.float32),
        times=np.array([HUGE]),
    ),
    "2 GB by Range": huge(
        helper.make_node("Range", ["start", "end", "step"], ["huge"], "/huge/Range"),
        start=np.float32(0),
        end=np.float32(HUGE),
        step=np.float32(1),
    ),
    "2 GB by Pad": huge(
        helper.make_node("Pad", ["one", "pads"], ["huge"], "/huge/Pad"),
        one=np.ones(1, np.float32),
        pads=np.array([0, HUGE]),
    ),
    "2 GB by broadcasting": huge(
        helper.make_node("Add", ["row", "column"], ["huge"], "/huge/Sum"),
        row=np.ones((1, HUGE // 2**14), np.float32),
        column=np.ones((2**14, 1), np.float32),
    ),
    "2 GB by a product of matrices": huge(
        helper.make_node("MatMul", ["column", "row"], ["huge"], "/huge/MatMul"),
        row=np.ones((1, HUGE // 2**14), np.float32),
        column=np.ones((2**14, 1), np.float32),
    ),
    "2 GB by doubling": huge_by_doubling,
    "2 GB as the weight": huge_weight,
    "shapes that do not fit": shapes_do_not_fit,
    "types that do not fit": types_do_not_fit,
    "an unknown opset": unknown_opset,
    "nodes out of order": unsorted,
    "a circle": circle,
    "no outputs": no_outputs,
    "an input that nobody made": unknown_input,
    "an output made twice": same_output_twice,
    "a constant of text": constant_of_text,
    "a constant of nothing": constant_of_nothing,
    "a sparse constant": sparse_constant,
    "an If without branches": if_without_branches,
}
# What may be proven as well, as long as it is said in a sentence.
ODD: dict[str, Callable[[ModelProto], None]] = {
    "images with a default": images_with_a_default,
    "a chain of five thousand": deep_chain,
}


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTE, GIGABYTE))


def certified(folder: Path, before: ModelProto, after: ModelProto) -> subprocess.CompletedProcess[str]:
    """The command, in a gigabyte of memory at most."""
    for name, model in (("before", before), ("after", after)):
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    command = [sys.executable, "-m", "pipeline", "certify", str(folder / "before.onnx"), str(folder / "after.onnx")]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS, preexec_fn=limited
    )


def test_the_network_itself_is_proven(tmp_path: Path) -> None:
    done = certified(tmp_path, network(), network())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("where", ["after", "both"])
@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_a_sentence(tmp_path: Path, change: Callable[[ModelProto], None], where: str) -> None:
    before, after = network(), network()
    change(after)
    if where == "both":
        change(before)
    done = certified(tmp_path, before, after)
    assert "Traceback" not in done.stdout + done.stderr
    assert "fault of this program" not in done.stderr
    # An odd file next to itself may be proven: nothing changed.
    allowed = {0, 1, 2} if where == "both" else {1, 2}
    assert done.returncode in allowed, done.stdout + done.stderr
    if done.returncode == 2:
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_an_odd_file_gets_its_certificate_or_a_sentence(tmp_path: Path, change: Callable[[ModelProto], None]) -> None:
    after = network()
    change(after)
    done = certified(tmp_path, network(), after)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode in {0, 1, 2}, done.stdout + done.stderr
