"""One ONNX file, read so that it can be compared with another: of ONNX's own operators alone, and with its shapes.

Functions that the file defines are put in place of their calls (by onnx's own inliner), constants become initialisers
(by onnx-ir's passes), and every shape is inferred from the shapes of the inputs: what the file itself says of its
tensors may be missing or wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from onnx import inliner

from exporters import onnx_file
from exporters.constant import Memo, evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    Dimension = int | str | None
    Shape = tuple[Dimension, ...]

# ONNX's own domain has two names; no other one has a meaning that could be compared.
OWN_DOMAINS = {"", "ai.onnx"}
# The largest network of this family has 4,000.
MOST_NODES = 100_000
# Rounds of inferring shapes, computing what they tell, and inferring again; networks need up to four.
ROUNDS = 16


def read(path: Path) -> ir.Model:
    """The model in ``path`` with the shapes of its tensors; raises ValueError where it cannot be compared."""
    proto = onnx_file.read_proto(path)
    try:
        if proto.functions:
            _refuse_explosion(proto, path.name)
            proto = inliner.inline_local_functions(proto)
        _refuse_foreign(proto.graph, path.name)
        model = ir.from_proto(proto)
        _store_constants(model, path.name)
        _refuse_large_constants(model.graph)
        _infer_shapes(model, proto)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise ValueError(f"{path.name} is not a valid ONNX file: {str(error).strip().splitlines()[0]}") from error
    return model


def _refuse_explosion(proto: onnx.ModelProto, name: str) -> None:
    """Raise ValueError where the file has more nodes than any network, its functions in place of their calls."""
    functions = {(function.domain, function.name): function for function in proto.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size_of(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in functions and key not in sizes:
                sizes[key] = size_of(functions[key].node)  # onnx.checker refuses functions that call themselves
            total += sizes.get(key, 1)
        return total

    count = size_of(proto.graph.node)
    if count > MOST_NODES:
        raise ValueError(
            f"{name} has functions of {count} nodes in all, and at most {MOST_NODES} are compared; write them smaller"
        )


def _refuse_foreign(graph: onnx.GraphProto, name: str) -> None:
    """Raise ValueError at the first operator that ONNX does not define."""
    for node in graph.node:
        if node.domain not in OWN_DOMAINS:
            raise ValueError(
                f"{name} has {node.op_type} of the domain {node.domain} (node {node.name or node.output[0]}), which "
                "ONNX does not define; only its own operators, and functions that the file defines, can be proven"
            )
        for attribute in node.attribute:
            subgraphs = [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs
            for subgraph in subgraphs:
                _refuse_foreign(subgraph, name)


def _store_constants(model: ir.Model, name: str) -> None:
    """Constant nodes as initialisers, none of them listed among the inputs, nothing handed on through Identity."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass

    if all(value.const_value is not None for value in model.graph.inputs) and model.graph.inputs:
        listed = ", ".join(str(value.name) for value in model.graph.inputs)
        raise ValueError(
            f"{name} gives all of its inputs a value of their own ({listed}), so it computes nothing from images; "
            "take the initialiser of the images out of it"
        )
    RemoveInitializersFromInputsPass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in list(model.graph):
        if node.op_type != "Identity" or node.outputs[0].is_graph_output():
            continue
        initializer = node.inputs[0]
        if initializer is not None and initializer.const_value is not None:
            node.outputs[0].replace_all_uses_with(initializer)


def _refuse_large_constants(graph: ir.Graph) -> None:
    """Raise ValueError, as evaluating does, before anything else computes what the graph computes of constants."""
    memo = Memo()
    for node in graph.all_nodes():
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            evaluate_constant(node.outputs[0], memo)


# --- shapes -----------------------------------------------------------------------------------------------------------


def _infer_shapes(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Give every value of ``model`` the shape that follows from its inputs, and none where none follows."""
    # What the file says of its own tensors has to fit, though nothing is taken from it.
    onnx.shape_inference.infer_shapes(
        onnx_file.without_weights(proto), check_type=True, strict_mode=True, data_prop=True
    )
    light = _without_shapes(proto)

    for _ in range(ROUNDS):
        inferred = onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
        told = _told_by_shapes(inferred)
        if not told:
            break
        _replace(light, told)

    # What was computed on the way stands among the initialisers now, of which no shape is inferred.
    computed = [
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in inferred.graph.initializer
    ]
    shapes = {}
    for value in (*computed, *inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = value.type.tensor_type
    for node in model.graph:
        for output in node.outputs:
            tensor = shapes.get(str(output.name))
            output.shape = None if tensor is None else ir.Shape([_dimension(size) for size in tensor.shape.dim])
            if tensor is not None:
                output.dtype = ir.DataType(tensor.elem_type)
    for value in model.graph.inputs:
        tensor = shapes[str(value.name)]
        value.shape = ir.Shape([_dimension(size) for size in tensor.shape.dim])


def _dimension(size: onnx.TensorShapeProto.Dimension) -> Dimension:
    if size.HasField("dim_value"):
        return size.dim_value
    return size.dim_param or None


def _without_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto`` without its weights, and with no shape but that of inputs.

    The open sizes of an input have names of their place, which are the same in every file.
    """
    light = onnx_file.without_weights(proto)
    del light.graph.value_info[:]
    stored = {tensor.name for tensor in proto.graph.initializer}
    for place, value in enumerate(item for item in light.graph.input if item.name not in stored):
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                size.dim_param = f"input_{place}_{axis}"
    for value in light.graph.output:
        value.type.tensor_type.ClearField("shape")
    return light


def _told_by_shapes(inferred: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """What the graph computes of its own shapes, as far as they are known: a tensor by the name of each."""
    graph = ir.from_proto(inferred).graph
    memo = Memo(shapes_known=True)
    told = {}
    for node in graph:
        for output in node.outputs:
            if output.dtype not in {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL} or not output.uses():
                continue
            constant = evaluate_constant(output, memo)
            if constant is not None and constant.exact and constant.numbers.size <= onnx_file.SMALL:
                told[str(output.name)] = onnx.numpy_helper.from_array(constant.array, str(output.name))
    return told


def _replace(model: onnx.ModelProto, told: dict[str, onnx.TensorProto]) -> None:
    """Put the tensors of ``told`` in place of the nodes that compute them."""
    kept = [node for node in model.graph.node if not (len(node.output) == 1 and node.output[0] in told)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for name, tensor in told.items():
        if all(name not in node.output for node in kept):
            model.graph.initializer.append(tensor)


def given_shape(value: ir.Value | None) -> Shape | None:
    """The inferred shape of ``value``: open sizes of inputs by name, others None; None where its rank is not known."""
    if value is None or value.shape is None:
        return None
    shape: list[Dimension] = []
    for size in value.shape:
        if isinstance(size, int):
            shape.append(size)
        else:
            named = size.value
            shape.append(named if named is not None and named.startswith("input_") else None)
    return tuple(shape)


def same_shape(one: ir.Value, other: ir.Value, open_sizes: int = 1) -> bool:
    """Whether both have the same shape.

    One size that no file tells follows from all others where the numbers are the same ones; ``open_sizes`` is 0 where
    they need not be.
    """
    one_shape = given_shape(one)
    other_shape = given_shape(other)
    if one_shape is None or other_shape is None or len(one_shape) != len(other_shape):
        return False
    unknown = 0
    for one_size, other_size in zip(one_shape, other_shape, strict=True):
        if one_size is None or other_size is None:
            unknown += 1
        elif one_size != other_size:
            return False
    return unknown <= open_sizes
