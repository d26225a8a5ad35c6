"""Two ONNX files cut at the tensors that both of them compute, so that they can be run and compared piece by piece.

One tensor name means the same values in every file that the stages write, which is what makes a cut possible: behind
a folded BatchNormalization stands a convolution whose output has the name that the BatchNormalization's had. Files
with other names get those of the file that they are compared with first (see pairing).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from exporters import onnx_file, pairs, reference, stored_constants
from exporters.constant import evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Run = Callable[[Mapping[str, NDArray[np.float32]]], list[NDArray[np.float32]]]

FLOAT16 = onnx.TensorProto.FLOAT16
# ONNX Runtime's names of types. An input in bytes can be fed, but bytes are never compared.
ELEMENT_TYPES = {"tensor(float)": onnx.TensorProto.FLOAT, "tensor(float16)": FLOAT16}
BYTES = "tensor(uint8)"
# What float32 values are turned into before they are fed.
FED_AS = {"tensor(float16)": "float16", BYTES: "uint8"}
PAIR = {"QuantizeLinear", "DequantizeLinear"}
# What hands on the values that it reads, but for their rounding.
HANDED_ON = {*PAIR, "Cast", "Identity"}
# What tells of its input its shape alone.
SHAPES = {"Shape", "Size"}
# Files that ONNX Runtime compiled: with operators of its own, and unsigned activations under the same names.
COMPILED = ".ort.onnx"


@dataclass(frozen=True)
class Subgraph:
    """What computes the tensor ``output`` from the tensors ``inputs``: some nodes of one file and their weights.

    ``has_float16``: one of the tensors or weights in it is float16.
    """

    output: str
    inputs: tuple[str, ...]
    nodes: tuple[onnx.NodeProto, ...]
    has_float16: bool

    @property
    def worker(self) -> onnx.NodeProto:
        """Its last node that is more than a change of type."""
        for node in reversed(self.nodes):
            if node.op_type not in PAIR and node.op_type != "Cast":
                return node
        return self.nodes[-1]

    @property
    def modules(self) -> list[str]:
        """The PyTorch modules of its nodes that compute something, the last first; without one, those of the others."""
        workers = [node for node in self.nodes if node.op_type not in HANDED_ON]
        modules = [onnx_file.module_of(node) for node in reversed(workers or self.nodes)]
        return list(dict.fromkeys(module for module in modules if module))

    @property
    def narrowest(self) -> str:
        """The narrowest kind of number that passes it: int8, float16 or float32."""
        if any(node.op_type in PAIR for node in self.nodes):
            return "int8"
        return "float16" if self.has_float16 else "float32"

    @property
    def dequantised(self) -> dict[str, str]:
        """For each of its inputs that passes a Q/DQ pair, the tensor behind that pair."""
        producers = {node.output[0]: node for node in self.nodes}
        behind_pair = {}
        for node in self.nodes:
            if node.op_type != "DequantizeLinear":
                continue
            quantise = producers.get(node.input[0])
            if quantise is not None and quantise.input[0] in self.inputs:
                behind_pair[quantise.input[0]] = node.output[0]
        return behind_pair


class Subgraphs:
    """One ONNX file that can be cut into subgraphs.

    Its constants are initializers, however the file spells them, and what stands behind a DequantizeLinear stays there.
    ``weights`` are these by name, ``sources`` its inputs, ``answers`` its outputs, ``made`` the node that computes each
    tensor, ``moving`` the tensors whose values depend on the images, and ``types`` the element types of its inputs and
    float tensors. ``changed``: it is not what stands in the file.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.compiled = path.name.endswith(COMPILED)
        # The checker does not know ONNX Runtime's own operators.
        model = onnx_file.read(path, check=not self.compiled)
        self.changed = False
        if not self.compiled:
            model, self.changed = stored_constants.store(model)
        self._index(ir.to_proto(model))

    def _index(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.graph = proto.graph
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.sources = [value.name for value in self.graph.input]
        self.answers = [value.name for value in self.graph.output]
        self.made = {name: node for node in self.graph.node for name in node.output if name}
        self.moving = self._find_moving()
        self.types = self._infer_types()

    def _find_moving(self) -> set[str]:
        """The tensors whose values depend on those of the images, and not on how many there are."""
        moving = set(self.sources)
        for node in self.graph.node:
            if node.op_type not in SHAPES and any(name in moving for name in reads(node)):
                moving.update(name for name in node.output if name)
        return moving

    def _infer_types(self) -> dict[str, int]:
        """The element type of every float tensor that a node computes, and of inputs."""
        try:
            return self._types_by_runtime()
        except reference.refusals():
            # A file that cannot run as a whole: which piece of it cannot is what its reader wants to know.
            return self._types_by_onnx()

    def _types_by_runtime(self) -> dict[str, int]:
        present = set(self.answers)
        hidden = []
        for node in self.graph.node:
            hidden += [name for name in node.output if name and name not in present]

        # The runtime tells the types of outputs alone, so every tensor becomes one.
        whole = onnx.ModelProto()
        whole.CopyFrom(self.proto)
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in hidden)
        session = reference.session(whole.SerializeToString())

        types: dict[str, int] = {}
        for value in (*session.get_inputs(), *session.get_outputs()):
            if value.type in ELEMENT_TYPES:
                types[value.name] = ELEMENT_TYPES[value.type]
        for value in session.get_inputs():
            if value.type == BYTES:
                types[value.name] = onnx.TensorProto.UINT8
        return types

    def _types_by_onnx(self) -> dict[str, int]:
        whole = onnx.ModelProto()
        whole.CopyFrom(self.proto)
        # What the file says of its shapes would be held against what it computes.
        del whole.graph.value_info[:]
        for value in whole.graph.output:
            value.type.tensor_type.ClearField("shape")
        try:
            inferred = onnx.shape_inference.infer_shapes(whole).graph
        except onnx.shape_inference.InferenceError as error:
            raise ValueError(f"{self.name} holds no tensors of one type: {str(error).splitlines()[0]}") from error

        types: dict[str, int] = {}
        for value in (*inferred.input, *inferred.output, *inferred.value_info):
            element_type = value.type.tensor_type.elem_type
            if element_type in ELEMENT_TYPES.values():
                types[value.name] = element_type
        for value in inferred.input:
            types[value.name] = value.type.tensor_type.elem_type
        return types

    @property
    def shifted(self) -> bool:
        """Whether most of its QuantizeLinear have a zero point that makes them cut off what a ReLU would.

        One of many that has is a fault.
        """
        quantisers = [node for node in ir.from_proto(self.proto).graph if node.op_type == "QuantizeLinear"]
        cutting = [node for node in quantisers if pairs.number_format_of(node) is None]
        return 2 * len(cutting) > len(quantisers)

    @property
    def batch(self) -> int | None:
        """The number of images that it takes at a time; None where that is any."""
        dimensions = self.graph.input[0].type.tensor_type.shape.dim
        return (dimensions[0].dim_value or None) if dimensions else None

    def take_record(self, other: Subgraphs) -> None:
        """A file that says nothing of its images and classes takes what ``other`` says: it was another tool's."""
        if not self.proto.metadata_props and other.proto.metadata_props:
            self.proto.metadata_props.extend(other.proto.metadata_props)
            self.changed = True

    def renamed(self, names: Mapping[str, str], apart_from: Subgraphs | None = None) -> Subgraphs:
        """The same file with other ``names`` (new by old) of its tensors.

        No other tensor in it has the name of one in ``apart_from``, and the nodes that make a tensor of both have the
        names that they have there.
        """
        # What has a name that is wanted elsewhere gives way.
        wanted = set(names.values())
        if apart_from is not None:
            wanted |= {*apart_from.made, *apart_from.weights, *apart_from.sources}
        new_names = dict(names)
        for name in (*self.made, *self.weights, *self.sources):
            if name in wanted and name not in names:
                new_names[name] = f"{name} of {self.name}"

        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        del proto.graph.value_info[:]
        _rename(proto.graph, new_names)
        if apart_from is not None:
            _name_nodes(proto.graph, apart_from)
        other = object.__new__(Subgraphs)
        other.name, other.compiled, other.changed = self.name, self.compiled, True
        other._index(proto)
        return other

    def at(self, cuts: Sequence[str]) -> list[Subgraph]:
        """The subgraph of each of ``cuts``, in the order given; the graph's inputs are cuts as well."""
        ends = {*cuts, *self.sources}
        return [self._subgraph(name, ends) for name in cuts]

    def _subgraph(self, output: str, ends: set[str]) -> Subgraph:
        """What computes ``output``, back to the next tensors that are among ``ends``."""
        wanted = [output]
        found: set[str] = set()
        inputs: dict[str, None] = {}  # in the order in which they are met, each once
        while wanted:
            node = self.made[wanted.pop()]
            key = _first_output(node)
            if key in found:
                continue
            found.add(key)
            for name in reads(node):
                if name in ends:
                    inputs[name] = None
                elif name in self.made:
                    wanted.append(name)

        nodes = tuple(node for node in self.graph.node if _first_output(node) in found)
        return Subgraph(output, tuple(inputs), nodes, self._has_float16((output, *inputs), nodes))

    def _has_float16(self, ends: Sequence[str], nodes: Sequence[onnx.NodeProto]) -> bool:
        """Whether a tensor or weight of this piece is float16."""
        if any(self.types.get(name) == FLOAT16 for name in ends):
            return True
        for node in nodes:
            for name in reads(node):
                weight = self.weights.get(name)
                is_float16_weight = weight is not None and weight.data_type == FLOAT16
                if is_float16_weight or self.types.get(name) == FLOAT16:
                    return True
        return False

    def model(self, subgraph: Subgraph, also: Sequence[str] = ()) -> onnx.ModelProto:
        """``subgraph`` as a model of its own, with ``also`` as further outputs.

        Metadata stays behind: a piece of a file says nothing of whose it was.
        """
        initializers: dict[str, onnx.TensorProto] = {}
        for node in subgraph.nodes:
            for name in reads(node):
                if name in self.weights:
                    initializers[name] = self.weights[name]

        # Without shapes: they are those of a batch of any size, which the runtime infers.
        inputs = [onnx.helper.make_tensor_value_info(name, self.types[name], None) for name in subgraph.inputs]
        outputs = [onnx.ValueInfoProto(name=name) for name in (subgraph.output, *also)]
        graph = onnx.helper.make_graph(list(subgraph.nodes), "piece", inputs, outputs, list(initializers.values()))
        return onnx.helper.make_model(graph, opset_imports=self.proto.opset_import, ir_version=self.proto.ir_version)

    def array(self, name: str) -> NDArray[np.float32]:
        """The initializer ``name``."""
        return onnx.numpy_helper.to_array(self.weights[name])

    def values(self, names: Sequence[str], images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The tensors ``names`` that the whole file computes from ``images`` (n, C, H, W)."""
        source = self.sources[0]
        values = {source: images}
        computed = [name for name in names if name not in self.sources]
        if not computed:
            return values

        whole = onnx.ModelProto()
        whole.CopyFrom(self.proto)
        del whole.graph.output[:]
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
        arrays = self.runner(whole, self.sources)(values)
        return {**values, **dict(zip(computed, arrays, strict=True))}

    def runner(self, model: onnx.ModelProto, inputs: Sequence[str]) -> Run:
        """What turns tensors by name, of which it takes ``inputs``, into the outputs of ``model``, all float32."""
        session = reference.session(model.SerializeToString())
        dtypes = {value.name: FED_AS.get(value.type, "float32") for value in session.get_inputs()}
        options = reference.silent()

        def run(tensors: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
            fed = {name: tensors[name].astype(dtypes[name]) for name in inputs}
            return [output.astype("float32") for output in session.run(None, fed, options)]

        return run

    def constant_array(self, subgraph: Subgraph, name: str) -> NDArray[np.float32] | None:
        """The constant ``name`` that ``subgraph`` reads, dequantised, float32; None where it is computed."""
        if name in self.weights:
            return self.array(name)
        for node in ir.from_proto(self.model(subgraph)).graph:
            for value in node.outputs:
                if value.name == name:
                    constant = evaluate_constant(value)
                    return None if constant is None else constant.values.astype("float32")
        return None


def stored_shape(file: Subgraphs, name: str) -> tuple[int, ...] | None:
    """The shape of the initializer behind ``name``, through a DequantizeLinear; None where it is computed."""
    node = file.made.get(name)
    stored = node.input[0] if node is not None and node.op_type == "DequantizeLinear" else name
    weight = file.weights.get(stored)
    return None if weight is None else tuple(weight.dims)


def reads(node: onnx.NodeProto) -> list[str]:
    """The tensors that ``node`` reads, those of its branches and loops as well, which read what stands around them."""
    names = [name for name in node.input if name]
    for graph in _branches(node):
        inner = {name for own in graph.node for name in own.output}
        inner |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        for own in graph.node:
            names += [name for name in reads(own) if name not in inner]
        names += [value.name for value in graph.output if value.name not in inner]
    return names


def _branches(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that ``node`` has as attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def _first_output(node: onnx.NodeProto) -> str:
    """The first output that has a name, by which a node is known."""
    return next(str(name) for name in node.output if name)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give the tensors of ``graph`` and of the graphs in it other names (new by old)."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for branch in _branches(node):
            _rename(branch, names)
    for named in (*graph.input, *graph.output, *graph.initializer):
        named.name = names.get(named.name, named.name)


def _name_nodes(graph: onnx.GraphProto, other: Subgraphs) -> None:
    """Give the nodes of ``graph`` the names of those that make the same tensors in ``other``, and others none."""
    for node in graph.node:
        makers = [other.made[name] for name in node.output if name in other.made]
        node.name = makers[0].name if makers else ""


def cuts(good: Subgraphs, bad: Subgraphs, images: NDArray[np.float32]) -> list[str]:
    """The float tensors that both files compute from images, one row an image, in the order of ``good``.

    ``images`` (n, C, H, W) tell which have a row for each. Raises ValueError where the files cannot be compared.
    """
    for file in (good, bad):
        if len(file.sources) != 1:
            named = ", ".join(file.sources) or "nothing"
            raise ValueError(f"{file.name} takes {named}; only files that take pixels alone can be compared")
        if file.sources[0] not in file.types:
            raise ValueError(f"{file.name} takes pixels of another type than float32, float16 and uint8")
        if file.shifted and not file.compiled:
            raise ValueError(
                f"{file.name} quantises with zero points that cut off what a ReLU would: "
                "its tensors are others under the same names; quantise symmetrically"
            )
    if good.sources != bad.sources:
        raise ValueError(f"{good.name} takes {good.sources[0]} and {bad.name} {bad.sources[0]}")

    comparable = good.types.keys() & bad.types.keys() & bad.made.keys() & good.moving
    shared = [name for node in good.graph.node for name in node.output if name in comparable]
    by_image = good.values(shared, images)
    shared = [name for name in shared if by_image[name].shape[:1] == (len(images),)]
    # Of a class by its number nobody can say how far it is from another.
    missing = [name for name in good.answers if name in good.types and name not in shared]
    if missing or not shared:
        raise ValueError(f"{good.name} answers {', '.join(missing or good.answers)}, which {bad.name} does not compute")
    return shared
