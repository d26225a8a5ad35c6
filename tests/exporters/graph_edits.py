"""Small changes of ONNX models in memory, from which the kinds of mutants are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.random import Generator

# The domain of everything that only these tests define.
OWN = "own.operators"
INT_RANGES = {"i": (-128, 127), "u": (0, 255)}
PAIR = ("QuantizeLinear", "DequantizeLinear")
LAYERS = ("Conv", "Gemm", "MatMul")
# Through these a layer reads the constant that is its weight.
PASSED = (*PAIR, "Cast", "Identity", "Transpose")


class Absent(Exception):
    """The model has nothing that this change could be made to."""


def pick(generator: Generator, choices: Iterable[Any]) -> Any:
    """One of ``choices``; raises Absent where there is none."""
    listed = list(choices)
    if not listed:
        raise Absent
    return listed[int(generator.integers(len(listed)))]


def first(generator: Generator, choices: Iterable[Any], change: Callable[[Any], None]) -> None:
    """Make ``change`` to the first of ``choices``, in a random order, that it can be made to."""
    listed = list(choices)
    for place in generator.permutation(len(listed)):
        try:
            change(listed[int(place)])
        except Absent:
            continue
        return
    raise Absent


def nodes(model: onnx.ModelProto, *operators: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in operators]


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The node that computes each tensor."""
    return {output: node for node in model.graph.node for output in node.output}


def readers(model: onnx.ModelProto, tensor: str) -> list[tuple[onnx.NodeProto, int]]:
    """The nodes that read ``tensor``, and where."""
    found = []
    for node in model.graph.node:
        found += [(node, index) for index, name in enumerate(node.input) if name == tensor]
    return found


def initializers(model: onnx.ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def numbers(model: onnx.ModelProto, name: str) -> np.ndarray:
    """What the initializer ``name`` holds; raises Absent where it is none."""
    tensor = initializers(model).get(name)
    if tensor is None:
        raise Absent
    return numpy_helper.to_array(tensor).copy()


def put(model: onnx.ModelProto, name: str, array: np.ndarray | np.generic) -> None:
    """Other numbers for the initializer ``name``."""
    initializers(model)[name].CopyFrom(numpy_helper.from_array(np.asarray(array), name))


def fresh(model: onnx.ModelProto, hint: str) -> str:
    """A name that the model does not have yet."""
    taken = {name for node in model.graph.node for name in (*node.input, *node.output, node.name)}
    taken |= {value.name for value in (*model.graph.input, *model.graph.output)} | set(initializers(model))
    count = 0
    while f"{hint}_{count}" in taken:
        count += 1
    return f"{hint}_{count}"


def constant(model: onnx.ModelProto, array: Any, hint: str = "planted") -> str:
    """The name of a new initializer that holds ``array``."""
    name = fresh(model, hint)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return name


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    for held in node.attribute:
        if held.name == name:
            return helper.get_attribute_value(held)
    return default


def tell(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set one attribute of ``node``; drop it where ``value`` is None."""
    kept = [held for held in node.attribute if held.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def behind(node: onnx.NodeProto, read: str) -> str:
    """The module of ``node`` before the name of what is planted beside it, so that a refutation can name it."""
    scope = node.name.rpartition("/")[0]
    return f"{scope}/{read}"


def insert_behind(model: onnx.ModelProto, tensor: str, chain: Sequence[onnx.NodeProto]) -> None:
    """Everything that read ``tensor`` reads what ``chain`` makes of it.

    The chain's ends are called ``<`` and ``>``; tensors within it begin with ``~`` and get names of their own.
    """
    source = tensor
    if tensor in {value.name for value in model.graph.output}:
        # The name stays with the output: what computed it gets another.
        source = fresh(model, f"{tensor}_inner")
        producer = producers(model)[tensor]
        producer.output[list(producer.output).index(tensor)] = source
        for node, index in readers(model, tensor):
            node.input[index] = source
        target = tensor
    else:
        target = fresh(model, f"{tensor}_changed")
        for node, index in readers(model, tensor):
            node.input[index] = target
    _add(model, chain, source, target)


def insert_before(model: onnx.ModelProto, node: onnx.NodeProto, index: int, chain: Sequence[onnx.NodeProto]) -> None:
    """``node`` alone reads what ``chain`` makes of its input ``index``."""
    source = node.input[index]
    target = fresh(model, f"{source}_changed")
    node.input[index] = target
    _add(model, chain, source, target)


def _add(model: onnx.ModelProto, chain: Sequence[onnx.NodeProto], source: str, target: str) -> None:
    names = {"": "", "<": source, ">": target}
    for node in chain:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        for index, name in enumerate(node.output):
            if name.startswith("~"):
                names[name] = fresh(model, f"planted{name}")
            node.output[index] = names.get(name, name)
        node.name = fresh(model, f"planted/{node.op_type}")
        model.graph.node.append(node)
    sort(model)


def bypass(model: onnx.ModelProto, node: onnx.NodeProto, index: int = 0) -> None:
    """Take ``node`` out: what read its output reads its input."""
    source, target = node.input[index], node.output[0]
    for reader, place in readers(model, target):
        reader.input[place] = source
    if target in {value.name for value in model.graph.output}:
        producer = producers(model).get(source)
        if producer is None:
            raise Absent
        producer.output[list(producer.output).index(source)] = target
        for reader, place in readers(model, source):
            if reader is not node:
                reader.input[place] = target
    model.graph.node.remove(node)


def replace(node: onnx.NodeProto, new: onnx.NodeProto) -> None:
    """``new`` in the place of ``node``, under its name."""
    new.name = node.name
    node.CopyFrom(new)


def sort(model: onnx.ModelProto) -> None:
    """Every node behind those that it reads, otherwise in the order that they have."""
    waiting = list(model.graph.node)
    computed = {output for node in waiting for output in node.output}
    done: set[str] = set()
    ordered = []
    while waiting:
        ready = [node for node in waiting if all(name in done or name not in computed for name in _read(node))]
        if not ready:
            raise Absent  # a circle
        for node in ready:
            ordered.append(node)
            done.update(node.output)
        waiting = [node for node in waiting if node not in ready]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _read(node: onnx.NodeProto) -> list[str]:
    """What ``node`` reads, also in its subgraphs."""
    names = list(node.input)
    for held in node.attribute:
        for inner in held.g.node:
            names += _read(inner)
    return names


def drop_unused(model: onnx.ModelProto) -> None:
    """Take out nodes and initializers that nothing reads."""
    wanted = {value.name for value in model.graph.output}
    for node in reversed(list(model.graph.node)):
        if wanted.isdisjoint(node.output):
            model.graph.node.remove(node)
        else:
            wanted.update(_read(node))
    kept = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor for a batch of 1, as far as ONNX infers it."""
    inferred = onnx.shape_inference.infer_shapes(model)
    known = {}
    graph = inferred.graph
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            known[value.name] = tuple(dim.dim_value or 1 for dim in tensor.shape.dim)
    return known


def float_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every float tensor that is computed or read from outside."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        kind = value.type.tensor_type.elem_type
        if kind in {TensorProto.FLOAT, TensorProto.FLOAT16}:
            types[value.name] = kind
    return types


def activations(model: onnx.ModelProto) -> list[str]:
    """The float tensors that depend on the images."""
    moving = {value.name for value in model.graph.input} - set(initializers(model))
    found = []
    types = float_types(model)
    for node in model.graph.node:
        if moving.isdisjoint(_read(node)):
            continue
        moving.update(node.output)
        found += [output for output in node.output if output in types]
    return found


def unrounded(model: onnx.ModelProto) -> dict[str, str]:
    """What each computed tensor is but for pairs and casts."""
    source: dict[str, str] = {}
    for node in model.graph.node:
        rounds = node.op_type in {*PAIR, "Cast", "Identity"}
        for output in node.output:
            source[output] = source.get(node.input[0], node.input[0]) if rounds else output
    return source


def source_of_constant(model: onnx.ModelProto, tensor: str) -> str:
    """The initializer that ``tensor`` is made of, through pairs and casts; raises Absent where it is computed."""
    held = initializers(model)
    made_by = producers(model)
    while tensor not in held:
        node = made_by.get(tensor)
        if node is None or node.op_type not in PASSED:
            raise Absent
        tensor = node.input[0]
    return tensor


def layers(model: onnx.ModelProto, *operators: str) -> list[onnx.NodeProto]:
    """Nodes with a constant weight."""
    found = []
    for node in nodes(model, *(operators or LAYERS)):
        try:
            source_of_constant(model, node.input[1])
        except Absent:
            continue
        found.append(node)
    return found


def weight_of(model: onnx.ModelProto, layer: onnx.NodeProto) -> str:
    """The initializer with the weight, or the levels, of ``layer``."""
    return source_of_constant(model, layer.input[1])


def with_bias(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The layers whose bias is an initializer."""
    held = initializers(model)
    return [node for node in nodes(model, "Conv", "Gemm") if len(node.input) > 2 and node.input[2] in held]


def activation_pairs(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Q and DQ of every activation."""
    made_by = producers(model)
    moving = set(activations(model)) | {value.name for value in model.graph.input}
    found = []
    for dequantise in nodes(model, "DequantizeLinear"):
        quantise = made_by.get(dequantise.input[0])
        if quantise is not None and quantise.op_type == "QuantizeLinear" and quantise.input[0] in moving:
            found.append((quantise, dequantise))
    return found


def weight_dequantisers(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Each layer and the DequantizeLinear that its weight comes from."""
    made_by = producers(model)
    found = []
    for layer in layers(model):
        dequantise = made_by.get(layer.input[1])
        if dequantise is not None and dequantise.op_type == "DequantizeLinear":
            found.append((layer, dequantise))
    return found


def opset(model: onnx.ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})


def declare_opset(model: onnx.ModelProto, domain: str, version: int) -> None:
    for entry in model.opset_import:
        if entry.domain == domain:
            entry.version = version
            return
    model.opset_import.append(helper.make_opsetid(domain, version))


def numpy_type(kind: int) -> np.dtype[Any]:
    return helper.tensor_dtype_to_np_dtype(kind)


def as_type(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """``values`` rounded to ``dtype``, at the ends of whole numbers clipped."""
    if dtype.kind in INT_RANGES:
        values = np.clip(np.rint(values), *INT_RANGES[dtype.kind])
    return values.astype(dtype)


def change_constant(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    held = numbers(model, name)
    changed = as_type(np.asarray(change(held.astype(np.float64))), held.dtype)
    if changed.shape != held.shape or changed.tobytes() == held.tobytes():
        raise Absent
    put(model, name, changed)
