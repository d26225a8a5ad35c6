"""Two ONNX files cut at the tensors that both of them compute, so that they can be run and compared piece by piece.

One tensor name means the same values in every file that the stages write, which is what makes a cut possible: behind
a folded BatchNormalization stands a convolution whose output has the name that the BatchNormalization's had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from exporters import number_formats, onnx_file, reference
from exporters.constant import evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Run = Callable[[Mapping[str, NDArray[np.float32]]], list[NDArray[np.float32]]]

# ONNX Runtime's names of types. An input in bytes can be fed, but bytes are never compared.
ELEMENT_TYPES = {"tensor(float)": onnx.TensorProto.FLOAT, "tensor(float16)": onnx.TensorProto.FLOAT16}
BYTES = "tensor(uint8)"
# What float32 values are turned into before they are fed.
FED_AS = {"tensor(float16)": "float16", BYTES: "uint8"}
PAIR = {"QuantizeLinear", "DequantizeLinear"}
# Files that ONNX Runtime compiled: with operators of its own, and unsigned activations under the same names.
COMPILED = ".ort.onnx"


@dataclass(frozen=True)
class Subgraph:
    """What computes the tensor ``output`` from the tensors ``inputs``: some nodes of one file and their weights.

    ``has_float16``: one of these tensors is float16.
    """

    output: str
    inputs: tuple[str, ...]
    nodes: tuple[onnx.NodeProto, ...]
    has_float16: bool

    @property
    def module(self) -> str:
        """The PyTorch module of its last node that computes something; without one, the name of its tensor."""
        return onnx_file.module_of(self.worker) or self.output

    @property
    def worker(self) -> onnx.NodeProto:
        """Its last node that is more than a change of type."""
        for node in reversed(self.nodes):
            if node.op_type not in PAIR and node.op_type != "Cast":
                return node
        return self.nodes[-1]

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

    ``weights`` are its initializers by name, ``sources`` its inputs, ``made`` the node that computes each tensor, and
    ``types`` the element types of its inputs and float tensors.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.compiled = path.name.endswith(COMPILED)
        # The checker does not know ONNX Runtime's own operators.
        self.proto = ir.to_proto(onnx_file.read(path, check=not self.compiled))
        self.graph = self.proto.graph
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.sources = [value.name for value in self.graph.input]
        self.made = {name: node for node in self.graph.node for name in node.output}
        self.types = self._infer_types()

    def _infer_types(self) -> dict[str, int]:
        """The element type of every float tensor that a node computes, as the runtime infers it, and of inputs."""
        present = {value.name for value in self.graph.output}
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

    @property
    def shifted(self) -> bool:
        """Whether any of its QuantizeLinear has a zero point that makes it cut off other values than its range does."""
        for node in self.graph.node:
            if node.op_type != "QuantizeLinear" or len(node.input) <= 2 or node.input[2] not in self.weights:
                continue
            zero_points = self.array(node.input[2])
            if any(number_formats.stored_as(zero_points.dtype, zero) is None for zero in zero_points.ravel()):
                return True
        return False

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
            if node.output[0] in found:
                continue
            found.add(node.output[0])
            for name in node.input:
                if name in ends:
                    inputs[name] = None
                elif name in self.made:
                    wanted.append(name)

        nodes = tuple(node for node in self.graph.node if node.output[0] in found)
        has_float16 = any(self.types.get(name) == onnx.TensorProto.FLOAT16 for name in (output, *inputs))
        return Subgraph(output, tuple(inputs), nodes, has_float16)

    def model(
        self, subgraph: Subgraph, also: Sequence[str] = (), weights: dict[str, NDArray[np.float32]] | None = None
    ) -> onnx.ModelProto:
        """``subgraph`` as a model of its own, with ``also`` as further outputs and ``weights`` in place of its own.

        Metadata stays behind: a piece of a file says nothing of whose it was.
        """
        replaced = weights or {}
        initializers: dict[str, onnx.TensorProto] = {}
        for node in subgraph.nodes:
            for name in node.input:
                if name in initializers or name not in self.weights:
                    continue
                if name in replaced:
                    initializers[name] = onnx.numpy_helper.from_array(replaced[name], name)
                else:
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

        def run(tensors: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
            fed = {name: tensors[name].astype(dtypes[name]) for name in inputs}
            return [output.astype("float32") for output in session.run(None, fed)]

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


def cuts(good: Subgraphs, bad: Subgraphs) -> list[str]:
    """The float tensors that both files compute, in the order of ``good``; raises ValueError where none are shared."""
    if good.sources != bad.sources:
        raise ValueError(
            f"{good.name} takes {', '.join(good.sources)} and {bad.name} {', '.join(bad.sources)}; "
            "only files with the same inputs can be compared piece by piece"
        )
    for file in (good, bad):
        if file.shifted and not file.compiled:
            raise ValueError(
                f"{file.name} quantises with zero points that cut off what a ReLU would: "
                "its tensors are others under the same names; quantise symmetrically"
            )

    comparable = good.types.keys() & bad.types.keys() & bad.made.keys()
    shared = [name for node in good.graph.node for name in node.output if name in comparable]
    answers = {value.name for value in good.graph.output}
    if not answers <= set(shared):
        raise ValueError(f"{good.name} answers {', '.join(sorted(answers))}, which {bad.name} does not compute")
    return shared
