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
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from exporters import onnx_file
from exporters.dependence import has_subgraph
from exporters.node_attributes import attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

Real = TypeVar("Real", bound=np.number)

# f(s x) = s f(x) for every s > 0, each channel alone.
HOMOGENEOUS = {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity"}
LAYERS = {"Conv", "Gemm"}
WINDOWED_POOLS = {"MaxPool", "AveragePool"}
GLOBAL_POOLS = {"GlobalAveragePool", "GlobalMaxPool"}
WEIGHT, BIAS = 1, 2  # where a layer reads them


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
    if any(has_subgraph(node) for node in graph):
        return []  # a subgraph reads values that no node shows

    classes = _Classes(graph)
    by_root: dict[ir.Value, Space] = defaultdict(Space)
    for node in graph:
        for value in node.outputs:
            by_root[classes.root(value)].values.append(value)
    for node in graph:
        if node.op_type in LAYERS and node not in classes.foreign:
            by_root[classes.root(node.inputs[0])].readers.append(node)
        if writes(node):
            by_root[classes.root(node.outputs[0])].writers.append(node)

    fixed_roots = {classes.root(value) for value in classes.fixed}
    return [space for root, space in by_root.items() if root not in fixed_roots and _count_channels(space)]


def _count_channels(space: Space) -> bool:
    """Set ``channels`` of ``space``; whether it has writers and readers, all of the same number of channels."""
    counts = {len(weight_by_output(node)) for node in space.writers}
    counts |= {weight_by_output(node).shape[1] * groups(node) for node in space.readers}
    space.channels = next(iter(counts), 0)
    return len(counts) == 1 and bool(space.writers) and bool(space.readers)


class _Form(NamedTuple):
    """The ``rank`` of a tensor, 0 where it is not known, and whether each channel is a ``single`` number.

    From the operators: the shapes that a file declares may be missing or wrong.
    """

    rank: int
    single: bool


UNKNOWN = _Form(0, single=False)


class _Classes:
    """Union-find over the tensors: those of one class are scaled together.

    ``fixed`` are tensors that must stay as they are; ``foreign`` nodes are those of which nothing is known.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.parent: dict[ir.Value, ir.Value] = {}
        self.fixed: list[ir.Value] = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
        self.foreign: set[ir.Node] = set()
        self.forms: dict[ir.Value, _Form] = {}
        for node in graph:
            form = self._tie(node)
            self.forms.update(dict.fromkeys(node.outputs[:1], form))

    def root(self, value: ir.Value | None) -> ir.Value:
        """The tensor that stands for the class of ``value``."""
        assert value is not None
        while True:
            above = self.parent.get(value, value)
            if above is value:
                return value
            value = above

    def _tie(self, node: ir.Node) -> _Form:
        """Tie the inputs of ``node`` to its output, or fix what must not be scaled; the form of its output."""
        values = [value for value in node.inputs if value is not None]
        forms = [self.forms.get(value, UNKNOWN) for value in values]
        if node.domain not in {"", "ai.onnx"}:
            return self._leave(node)

        if node.op_type == "BatchNormalization" and writes(node):
            # Its input and its statistics stay; its output is scaled by gamma and beta.
            self.fixed += [values[0], *values[3:]]
            return forms[0]

        if node.op_type in LAYERS and writes(node) and reads(node):
            # Its weight and bias are channels of no space.
            self.fixed += values[1:]
            return _Form(weight_of(node).ndim, single=False)

        form = _tied_form(node, forms)
        if form is None:
            return self._leave(node)
        for value in values:
            self.parent[self.root(value)] = self.root(node.outputs[0])
        return form

    def _leave(self, node: ir.Node) -> _Form:
        """Nothing that ``node`` reads or computes can be scaled."""
        self.foreign.add(node)
        self.fixed += [value for value in (*node.inputs, *node.outputs) if value is not None]
        return UNKNOWN


def _tied_form(node: ir.Node, forms: list[_Form]) -> _Form | None:
    """The form of the output of a node that ties its inputs to it; None where it does not."""
    all_single = all(form.single for form in forms)
    if node.op_type in HOMOGENEOUS and len(node.outputs) == 1:
        # A pool over windows may give several numbers a channel, even out of one; a global one gives one.
        stays_single = all_single and node.op_type not in WINDOWED_POOLS
        return _Form(forms[0].rank, single=stays_single or node.op_type in GLOBAL_POOLS)

    if node.op_type == "Add":
        # Only of the same rank, so that channels stand over channels.
        ranks = {form.rank for form in forms}
        if len(ranks) == 1 and 0 not in ranks:
            return _Form(forms[0].rank, single=all_single)

    if node.op_type == "Flatten" and all_single and attributes(node)["axis"] in {1, 1 - forms[0].rank}:
        return _Form(2, single=True)
    return None


def writes(node: ir.Node) -> bool:
    """Whether ``node`` scales its output channels by float32 constants."""
    if node.op_type not in {*LAYERS, "BatchNormalization"}:
        return False
    weight = onnx_file.initializer_array(node.inputs[WEIGHT])
    if weight is None or weight.dtype != np.float32:
        return False

    bias_value = node.inputs[BIAS] if len(node.inputs) > BIAS else None
    if bias_value is None:
        return True
    bias = onnx_file.initializer_array(bias_value)
    return bias is not None and bias.dtype == np.float32 and bias.shape == (len(weight_by_output(node)),)


def reads(node: ir.Node) -> bool:
    """Whether ``node`` scales its input channels by float32 constants."""
    if node.op_type == "Gemm":
        return bool(attributes(node)["transA"] == 0)
    return groups(node) > 0 and len(weight_by_output(node)) % groups(node) == 0


def weight_of(node: ir.Node) -> NDArray[np.float32]:
    """The constant weight of ``node``, as stored."""
    array = onnx_file.initializer_array(node.inputs[WEIGHT])
    assert array is not None
    return array


def weight_by_output(node: ir.Node) -> NDArray[np.float32]:
    """The constant weight of ``node`` as :func:`by_output` shapes it."""
    return by_output(node, weight_of(node))


def groups(node: ir.Node) -> int:
    """The groups of a convolution, 1 for all else."""
    return int(attributes(node)["group"]) if node.op_type == "Conv" else 1


def by_output(node: ir.Node, array: NDArray[Real]) -> NDArray[Real]:
    """A weight of ``node`` as (outputs, inputs / groups, positions); of a BatchNormalization as (outputs, 1, 1)."""
    if _outputs_last(node):
        array = array.T
    outputs, inputs = (*array.shape, 1)[:2]
    return array.reshape(outputs, inputs, -1)


def _outputs_last(node: ir.Node) -> bool:
    """Whether the weight of ``node`` is stored as (inputs, outputs): a Gemm's is where it does not transpose it."""
    return node.op_type == "Gemm" and attributes(node)["transB"] == 0


def to_outputs(node: ir.Node, values: NDArray[Real]) -> NDArray[Real]:
    """``values``, one an input channel of ``node``, as (outputs, inputs / groups): what each weight multiplies."""
    rows = values.reshape(groups(node), -1)
    outputs_per_group = len(weight_by_output(node)) // len(rows)
    return np.repeat(rows, outputs_per_group, axis=0)


def rescale(graph: ir.Graph, exponents: Mapping[Space, NDArray[np.int64]]) -> None:
    """Divide channel c of every space by 2^exponents[c] in its writers, and multiply by it in its readers.

    Exact but for weights that fall below 2^-126, which float32 rounds to multiples of 2^-149.
    """
    read_exponents: dict[ir.Node, NDArray[np.int64]] = {}
    written_exponents: dict[ir.Node, NDArray[np.int64]] = {}
    for space, space_exponents in exponents.items():
        read_exponents.update(dict.fromkeys(space.readers, space_exponents))
        written_exponents.update(dict.fromkeys(space.writers, space_exponents))

    for node in list(graph):
        if node not in read_exponents and node not in written_exponents:
            continue
        shape = weight_by_output(node).shape
        power = np.zeros(shape[:2], np.int64)
        if node in read_exponents:
            power += to_outputs(node, read_exponents[node])
        if node in written_exponents:
            power -= written_exponents[node][:, None]
        _multiply(graph, node, WEIGHT, np.broadcast_to(power[:, :, None], shape))

        if node in written_exponents and len(node.inputs) > BIAS:
            _multiply(graph, node, BIAS, -written_exponents[node])


def _multiply(graph: ir.Graph, node: ir.Node, index: int, power: NDArray[np.int64]) -> None:
    """Constant ``index`` of ``node`` times 2^power, as its own constant; under the old name if no other reads that.

    ``power`` is shaped as by :func:`by_output`, for the bias (outputs,).
    """
    old = node.inputs[index]
    array = onnx_file.initializer_array(old)
    if old is None or array is None:
        return
    if index == WEIGHT and _outputs_last(node):
        stored_power = power.reshape(array.T.shape).T
    else:
        stored_power = power.reshape(array.shape)

    name = str(old.name)
    if len(old.uses()) == 1:
        del graph.initializers[name]
        old.name = None
    else:
        name = f"{name}_{node.outputs[0].name}"
    node.replace_input_with(index, onnx_file.add_initializer(graph, name, np.ldexp(array, stored_power)))
