"""Channel spaces: tensors whose channels can be scaled together without changing what the network computes.

Positively homogeneous operators that treat every channel alone tie their input to their output; a space is a class of
tensors so tied. Where all that writes into it and all that reads from it is a layer with constant weights, channel c
may be divided by any s > 0 in the writers if the readers multiply their weights for c by it: the rescaling of Nagel et
al. 2019 (arXiv 1906.04721, section 4.1), carried over residual sums and grouped convolutions. With powers of two the
network is not nearly but exactly the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx_ir as ir

from exporters import onnx_file
from exporters.constant import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

Real = TypeVar("Real", bound=np.number)

# f(s x) = s f(x) for every s > 0, each channel alone.
HOMOGENEOUS = {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity"}
LAYERS = {"Conv", "Gemm"}


@dataclass(eq=False)
class Space:
    """``channels`` channels of the tensors ``values``, which ``writers`` compute and ``readers`` consume.

    BatchNormalization may write, but not read.
    """

    channels: int = 0
    values: list[ir.Value] = field(default_factory=list)
    writers: list[ir.Node] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)


def spaces(graph: ir.Graph) -> list[Space]:
    """The spaces of ``graph`` that can be rescaled, in its order."""
    graph.sort()
    if any(attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for attribute in _told(graph)):
        return []  # a subgraph reads values that no node shows
    classes = _Classes(graph)
    found: dict[ir.Value, Space] = defaultdict(Space)
    for value in [value for node in graph for value in node.outputs]:
        found[classes.root(value)].values.append(value)
    for node in graph:
        if node.op_type in LAYERS and node not in classes.foreign:
            found[classes.root(node.inputs[0])].readers.append(node)
        if writes(node):
            found[classes.root(node.outputs[0])].writers.append(node)
    fixed = {classes.root(value) for value in classes.fixed}
    return [space for root, space in found.items() if root not in fixed and _counted(space)]


def _told(graph: ir.Graph) -> Iterator[ir.Attr]:
    return (attribute for node in graph for attribute in node.attributes.values())


def _counted(space: Space) -> bool:
    counts = {len(weight_by_output(node)) for node in space.writers}
    counts |= {weight_by_output(node).shape[1] * groups(node) for node in space.readers}
    space.channels = next(iter(counts), 0)
    return len(counts) == 1 and bool(space.writers) and bool(space.readers)


class _Classes:
    """Union-find over the tensors, and those that must stay as they are (``fixed``)."""

    def __init__(self, graph: ir.Graph) -> None:
        self.parent: dict[ir.Value, ir.Value] = {}
        self.fixed: list[ir.Value] = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
        self.foreign: set[ir.Node] = set()
        # The rank of a tensor, 0 where it is not known, and whether each channel is a single number. From the
        # operators: the shapes that a file declares may be missing or wrong.
        self.forms: dict[ir.Value, tuple[int, bool]] = {}
        for node in graph:
            self._tie(node)

    def root(self, value: ir.Value | None) -> ir.Value:
        assert value is not None
        while (above := self.parent.get(value, value)) is not value:
            value = above
        return value

    def _tie(self, node: ir.Node) -> None:
        values = [value for value in node.inputs if value is not None]
        forms = [self.forms.get(value, (0, False)) for value in values]
        form: tuple[int, bool] | None = None
        if node.domain not in {"", "ai.onnx"}:
            self._leave(node)
        elif node.op_type == "BatchNormalization" and writes(node):
            self.fixed += [values[0], *values[3:]]
            form = forms[0]
        elif node.op_type in LAYERS and writes(node) and reads(node):
            self.fixed += values[1:]
            form = (np.ndim(onnx_file.initializer_array(values[1])), False)  # type: ignore[arg-type]
        elif (form := _tied(node, forms)) is not None:
            for value in values:
                self.parent[self.root(value)] = self.root(node.outputs[0])
        else:
            self._leave(node)
        self.forms |= dict.fromkeys(node.outputs[:1], form or (0, False))

    def _leave(self, node: ir.Node) -> None:
        self.foreign.add(node)
        self.fixed += [value for value in (*node.inputs, *node.outputs) if value is not None]


def _tied(node: ir.Node, forms: list[tuple[int, bool]]) -> tuple[int, bool] | None:
    """The form of the output of a node that ties its inputs to it; None where it does not."""
    ranks = {rank for rank, _ in forms}
    single = all(alone for _, alone in forms)
    if node.op_type in HOMOGENEOUS and len(node.outputs) == 1:
        kept = single and node.op_type not in {"MaxPool", "AveragePool"}
        return forms[0][0], kept or node.op_type.startswith("Global")
    if node.op_type == "Add" and len(ranks) == 1 and 0 not in ranks:  # so that channels stand over channels
        return forms[0][0], single
    if node.op_type == "Flatten" and single and attributes(node)["axis"] == 1:
        return 2, True
    return None


def writes(node: ir.Node) -> bool:
    """Whether ``node`` scales its output channels by float32 constants."""
    scale = onnx_file.initializer_array(node.inputs[1]) if node.op_type in {*LAYERS, "BatchNormalization"} else None
    if scale is None or scale.dtype != np.float32:
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    held = onnx_file.initializer_array(bias)
    return bias is None or (
        held is not None and held.dtype == np.float32 and held.shape == (len(weight_by_output(node)),)
    )


def reads(node: ir.Node) -> bool:
    """Whether ``node`` scales its input channels by float32 constants."""
    if node.op_type == "Gemm":
        return bool(attributes(node)["transA"] == 0)
    return groups(node) > 0 and len(weight_by_output(node)) % groups(node) == 0


def weight_by_output(node: ir.Node) -> NDArray[np.float32]:
    """The constant weight of ``node`` as :func:`by_output` shapes it."""
    array = onnx_file.initializer_array(node.inputs[1])
    assert array is not None
    return by_output(node, array)


def groups(node: ir.Node) -> int:
    """The groups of a convolution, 1 for all else."""
    return int(attributes(node)["group"]) if node.op_type == "Conv" else 1


def by_output(node: ir.Node, array: NDArray[Real]) -> NDArray[Real]:
    """A weight of ``node`` as (outputs, inputs / groups, positions); of a BatchNormalization as (outputs, 1, 1)."""
    array = array.T if _turned(node) else array
    return array.reshape(*(*array.shape, 1)[:2], -1)


def _turned(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and attributes(node)["transB"] == 0


def to_outputs(node: ir.Node, values: NDArray[Real]) -> NDArray[Real]:
    """``values``, one an input channel of ``node``, as (outputs, inputs / groups): what each weight multiplies."""
    rows = values.reshape(groups(node), -1)
    return np.repeat(rows, len(weight_by_output(node)) // len(rows), axis=0)


def rescale(graph: ir.Graph, exponents: Mapping[Space, NDArray[np.int64]]) -> None:
    """Divide channel c of every space by 2^exponents[c] in its writers, and multiply by it in its readers.

    Exact but for weights that fall below 2^-126, which float32 rounds to multiples of 2^-149.
    """
    into: dict[ir.Node, NDArray[np.int64]] = {}
    out: dict[ir.Node, NDArray[np.int64]] = {}
    for space, exponent in exponents.items():
        into |= dict.fromkeys(space.readers, exponent)
        out |= dict.fromkeys(space.writers, exponent)
    for node in [node for node in graph if node in into or node in out]:
        shape = weight_by_output(node).shape
        power = np.zeros(shape[:2], np.int64)
        power += to_outputs(node, into[node]) if node in into else 0
        power -= out[node][:, None] if node in out else 0
        _multiply(graph, node, 1, np.broadcast_to(power[:, :, None], shape))
        if node in out and len(node.inputs) > 2:
            _multiply(graph, node, 2, -out[node])


def _multiply(graph: ir.Graph, node: ir.Node, index: int, power: NDArray[np.int64]) -> None:
    """Constant ``index`` of ``node`` times 2^power, as its own constant; under the old name if no other reads that."""
    old = node.inputs[index]
    array = onnx_file.initializer_array(old)
    if old is None or array is None:
        return
    aligned = power.reshape(array.T.shape).T if index == 1 and _turned(node) else power.reshape(array.shape)
    name = str(old.name)
    if len(old.uses()) == 1:
        del graph.initializers[name]
        old.name = None
    else:
        name = f"{name}_{node.outputs[0].name}"
    node.replace_input_with(index, onnx_file.add_initializer(graph, name, np.ldexp(array, aligned)))
