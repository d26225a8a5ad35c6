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

FLOATS = {"tensor(float)": onnx.TensorProto.FLOAT, "tensor(float16)": onnx.TensorProto.FLOAT16}
BYTES = "tensor(uint8)"
NARROW = {"tensor(float16)": "float16", BYTES: "uint8"}


@dataclass(frozen=True)
class Subgraph:
    """What computes the tensor ``output`` from the tensors ``inputs``: some nodes of one file and their weights."""

    output: str
    inputs: tuple[str, ...]
    nodes: tuple[onnx.NodeProto, ...]
    half: bool

    @property
    def module(self) -> str:
        """The PyTorch module of its last node that computes something; without one, the name of its tensor."""
        return onnx_file.module_of(self.worker) or self.output

    @property
    def worker(self) -> onnx.NodeProto:
        """Its last node that is more than a change of type."""
        working = [node for node in self.nodes if node.op_type not in {"QuantizeLinear", "DequantizeLinear", "Cast"}]
        return (working or list(self.nodes))[-1]

    @property
    def narrowest(self) -> str:
        """The narrowest kind of number that passes it: int8, float16 or float32."""
        if any(node.op_type in {"QuantizeLinear", "DequantizeLinear"} for node in self.nodes):
            return "int8"
        return "float16" if self.half else "float32"

    @property
    def dequantised(self) -> dict[str, str]:
        """For each of its inputs that passes a Q/DQ pair, the tensor behind that pair."""
        made = {node.output[0]: node for node in self.nodes}
        found = {}
        for node in self.nodes:
            quantise = made.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
            if quantise is not None and quantise.input[0] in self.inputs:
                found[quantise.input[0]] = node.output[0]
        return found


class Subgraphs:
    """One ONNX file in pieces, between ``cuts``; ``types`` are the element types of the cuts."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        proto = ir.to_proto(onnx_file.read(path, check=not path.name.endswith(".ort.onnx")))
        self.proto, self.graph = proto, proto.graph
        self.opsets, self.ir_version = proto.opset_import, proto.ir_version
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.sources = [value.name for value in self.graph.input]
        self.types = self._types(proto)
        self.made = {name: node for node in self.graph.node for name in node.output}

    def _types(self, proto: onnx.ModelProto) -> dict[str, int]:
        """The element type of every float tensor that a node computes, as the runtime infers it, and of inputs."""
        whole = onnx.ModelProto()
        whole.CopyFrom(proto)
        present = {value.name for value in whole.graph.output}
        computed = [name for node in whole.graph.node for name in node.output if name]
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed if name not in present)
        session = reference.session(whole.SerializeToString())
        known = [*session.get_inputs(), *session.get_outputs()]
        bytes_in: dict[str, int] = {
            value.name: onnx.TensorProto.UINT8 for value in session.get_inputs() if value.type == BYTES
        }
        return {**{value.name: FLOATS[value.type] for value in known if value.type in FLOATS}, **bytes_in}

    @property
    def shifted(self) -> bool:
        """Whether any of its QuantizeLinear has a zero point that makes it cut off other values than its range does."""
        zeros = {node.input[2] for node in self.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2}
        arrays = [self.array(name) for name in zeros if name in self.weights]
        return any(number_formats.stored_as(array.dtype, zero) is None for array in arrays for zero in array.ravel())

    def at(self, cuts: Sequence[str]) -> list[Subgraph]:
        """The piece of each of ``cuts``, in the order given; the graph's inputs are cuts as well."""
        ends = {*cuts, *self.sources}
        return [self._piece(name, ends) for name in cuts]

    def _piece(self, output: str, ends: set[str]) -> Subgraph:
        wanted, found = [output], set()
        inputs: dict[str, None] = {}
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
        half = any(self.types.get(name) == onnx.TensorProto.FLOAT16 for name in (output, *inputs))
        return Subgraph(output, tuple(inputs), nodes, half)

    def model(
        self, piece: Subgraph, also: Sequence[str] = (), weights: dict[str, NDArray[np.float32]] | None = None
    ) -> onnx.ModelProto:
        """``piece`` as a model of its own, with ``also`` as further outputs and these ``weights`` in place of its own.

        Metadata stays behind: a piece of a file says nothing of whose it was.
        """
        read = {name: None for node in piece.nodes for name in node.input if name in self.weights}
        constants = [
            onnx.numpy_helper.from_array(weights[name], name) if weights and name in weights else self.weights[name]
            for name in read
        ]
        inputs = [onnx.helper.make_tensor_value_info(name, self.types[name], None) for name in piece.inputs]
        outputs = [onnx.ValueInfoProto(name=name) for name in (piece.output, *also)]
        graph = onnx.helper.make_graph(list(piece.nodes), "piece", inputs, outputs, constants)
        return onnx.helper.make_model(graph, opset_imports=self.opsets, ir_version=self.ir_version)

    def array(self, name: str) -> NDArray[np.float32]:
        """The initializer ``name``."""
        return onnx.numpy_helper.to_array(self.weights[name])

    def values(self, names: Sequence[str], images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The tensors ``names`` that the whole file computes from ``images`` (n, C, H, W)."""
        whole = onnx.ModelProto()
        whole.CopyFrom(self.proto)
        computed = [name for name in names if name not in self.sources]
        del whole.graph.output[:]
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
        found = self.runner(whole, self.sources)({self.sources[0]: images}) if computed else []
        return {self.sources[0]: images, **dict(zip(computed, found, strict=True))}

    def runner(self, model: onnx.ModelProto, inputs: Sequence[str]) -> Run:
        """What turns tensors by name, of which it takes ``inputs``, into the outputs of ``model``, all float32."""
        session = reference.session(model.SerializeToString())
        narrow = {value.name: NARROW[value.type] for value in session.get_inputs() if value.type in NARROW}

        def run(tensors: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
            fed = {name: tensors[name].astype(narrow.get(name, "float32")) for name in inputs}
            return [value.astype("float32") for value in session.run(None, fed)]

        return run

    def constant_array(self, piece: Subgraph, name: str) -> NDArray[np.float32] | None:
        """The constant ``name`` that ``piece`` reads, dequantised, float32; None where it is computed."""
        if name in self.weights:
            return self.array(name)
        graph = ir.from_proto(self.model(piece)).graph
        found = evaluate_constant(next((value for node in graph for value in node.outputs if value.name == name), None))
        return None if found is None else found.values.astype("float32")


def cuts(good: Subgraphs, bad: Subgraphs) -> list[str]:
    """The float tensors that both files compute, in the order of ``good``; raises ValueError where none are shared."""
    if good.sources != bad.sources:
        raise ValueError(
            f"{good.name} takes {', '.join(good.sources)} and {bad.name} {', '.join(bad.sources)}; "
            "only files with the same inputs can be compared piece by piece"
        )
    for file in (good, bad):
        if file.shifted and not file.name.endswith(".ort.onnx"):
            raise ValueError(
                f"{file.name} quantises with zero points that cut off what a ReLU would: "
                "its tensors are others under the same names; quantise symmetrically"
            )
    computed = [name for node in good.graph.node for name in node.output]
    shared = [
        name for name in computed if name in good.types and name in bad.types and name in bad.made and name in good.made
    ]
    ends = {value.name for value in good.graph.output}
    if not ends <= set(shared):
        raise ValueError(f"{good.name} answers {', '.join(sorted(ends))}, which {bad.name} does not compute")
    return shared
