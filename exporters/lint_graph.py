"""What the rules of lint ask of a graph: its constants, its shapes, and which pair an operand comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from exporters.constant import Memo, evaluate_constant
from exporters.pairs import MOVING, SCALE, constant_operand, makers, operand, zero_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Layers with weights.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
HALF = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
FLOATS = {*HALF, ir.DataType.FLOAT, ir.DataType.DOUBLE}
# The most that float16 changes a scale, as a share of it.
ROUNDED = 2**-10
# Nodes whose output has the shape of their first input.
SAME_SHAPE = ("QuantizeLinear", "DequantizeLinear", "Identity", "Cast")


class Operand(NamedTuple):
    """The pair that an operand comes from: its ``dequantise`` node, and the nodes that move its values since, in order.

    ``types``: the type that it is dequantised to, and those that it is cast to since.
    """

    dequantise: ir.Node
    moved_by: tuple[ir.Node, ...]
    types: tuple[ir.DataType, ...]

    @property
    def widened(self) -> bool:
        """Whether it is cast from a half to a wider type, behind which no kernel in 8 bits is found (TensorRT-RTX)."""
        return any(before in HALF and after not in HALF for before, after in pairwise(self.types))


@dataclass
class LintedGraph:
    """A ``model`` in ``opset``, and what was found out about it."""

    model: ir.Model
    opset: int
    memo: Memo = field(default_factory=Memo)
    constant_shapes: dict[ir.Value, tuple[int, ...] | None] = field(default_factory=dict)

    def constant(self, node: ir.Node, index: int) -> NDArray[Any] | None:
        """The constant numbers that ``node`` reads at ``index``; for scales and zero points, which are small."""
        return constant_operand(node, index, self.memo)

    def scale(self, node: ir.Node) -> NDArray[Any] | None:
        """The scale of a Quantize- or DequantizeLinear; None where it is computed."""
        return self.constant(node, SCALE)

    def zero_point(self, node: ir.Node) -> NDArray[Any] | None:
        """The zero point of a Quantize- or DequantizeLinear, also an implied one; None where it is computed."""
        return zero_of(node, self.memo)

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether ``value`` depends on no input of the graph."""
        return self.constant_shape(value) is not None

    def constant_shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The shape of a constant; None of what is computed. Weights are not dequantised for it."""
        source = _before_same_shape(value)
        if source is None:
            return None
        if source not in self.constant_shapes:
            self.constant_shapes[source] = self._evaluated_shape(source)
        return self.constant_shapes[source]

    def constant_type(self, value: ir.Value | None) -> np.dtype[Any] | None:
        """The type of a constant; None of what is computed."""
        if not self.is_constant(value):
            return None
        constant = evaluate_constant(value, self.memo)
        return None if constant is None else constant.dtype

    def axis_of_scales(self, node: ir.Node) -> int:
        """The axis of a Quantize- or DequantizeLinear, counted from the front where its rank is known."""
        axis = node.attributes.get_int("axis", 1)
        if axis >= 0:
            return axis
        value = operand(node, 0)
        shape = self.constant_shape(value) or self.shapes.get(str(value.name if value else ""))
        return axis if shape is None else axis + len(shape)

    def _evaluated_shape(self, value: ir.Value) -> tuple[int, ...] | None:
        constant = evaluate_constant(value, self.memo)
        return None if constant is None else constant.shape

    def reaches(self, value: ir.Value | None) -> Operand | None:
        """The pair that ``value`` comes from through nodes that only move its values; None without any."""
        along = self.along(value)
        if along is not None:
            return along
        return self._joined(value)

    def along(self, value: ir.Value | None) -> Operand | None:
        """The same, but not through a Concat of several."""
        passed: list[ir.Node] = []
        for node in makers(value):
            if is_a(node, "DequantizeLinear"):
                passed.reverse()
                return self._operand(node, passed)
            if not self._moves(node):
                return None
            passed.append(node)
        return None

    def _joined(self, value: ir.Value | None) -> Operand | None:
        """The first of the pairs that a Concat joins, where all have one scale."""
        for node in makers(value):
            if is_a(node, "Concat"):
                return self._first_of(node)
            if not self._moves(node):
                return None
        return None

    def _first_of(self, concat: ir.Node) -> Operand | None:
        joined = []
        for value in concat.inputs:
            along = self.along(value)
            if along is None:
                return None
            joined.append(along)
        if not joined:
            return None
        first, *others = joined
        scale = self.scale(first.dequantise)
        if any(differ(scale, self.scale(other.dequantise)) for other in others):
            return None
        return first

    def _operand(self, dequantise: ir.Node, passed: list[ir.Node]) -> Operand:
        casts = [node for node in passed if node.op_type == "Cast"]
        cast_to = [ir.DataType(cast.attributes.get_int("to", 0)) for cast in casts]
        return Operand(dequantise, tuple(passed), (self._dequantised_type(dequantise), *cast_to))

    def _dequantised_type(self, dequantise: ir.Node) -> ir.DataType:
        """The type that it answers in: what it says, or that of its scale."""
        said = dequantise.attributes.get_int("output_dtype", 0)
        if said:
            return ir.DataType(said)
        scale = self.scale(dequantise)
        return ir.DataType.FLOAT if scale is None else ir.DataType.from_numpy(scale.dtype)

    def _moves(self, node: ir.Node) -> bool:
        """Whether ``node`` only moves the values of its first input, or casts them from float to float."""
        if is_a(node, "Cast"):
            return node.attributes.get_int("to", 0) in FLOATS
        if is_a(node, "Pad"):
            return self._pads_with_zeros(node)
        return is_a(node, *MOVING)

    def _pads_with_zeros(self, node: ir.Node) -> bool:
        """Whether a Pad adds nothing but 0, or values that are there already."""
        if node.attributes.get_string("mode", "constant") != "constant":
            return True
        if operand(node, 2) is None:
            return node.attributes.get_float("value", 0.0) == 0
        padding = self.constant(node, 2)
        return padding is not None and not padding.any()

    @cached_property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shapes of the tensors that ONNX infers, by name; None for an open axis."""
        try:
            inferred = onnx.shape_inference.infer_shapes(ir.to_proto(self.model))
        except (ValueError, RuntimeError):  # a graph that is none, or one of more than 2 GB
            return {}
        shapes = {}
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
            tensor = value.type.tensor_type
            if tensor.HasField("shape"):
                shapes[value.name] = tuple(_size(dim) for dim in tensor.shape.dim)
        return shapes

    @cached_property
    def depths(self) -> dict[ir.Value, int]:
        """How many nodes stand one behind the other on the longest way to each value of the main graph."""
        depths: dict[ir.Value, int] = {}
        for node in self.model.graph:
            before = [depths.get(value, 0) for value in node.inputs if value is not None]
            depths.update(dict.fromkeys(node.outputs, 1 + max(before, default=0)))
        return depths


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    return dim.dim_value if dim.HasField("dim_value") else None


def _before_same_shape(value: ir.Value | None) -> ir.Value | None:
    """The first value in front of ``value`` that has its shape for sure."""
    for node in makers(value):
        if not is_a(node, *SAME_SHAPE):
            break
        value = operand(node, 0)
    return value


def is_stored(value: ir.Value | None) -> bool:
    """Whether ``value`` stands in the file as numbers: an initialiser or a Constant."""
    return value is not None and (value.const_value is not None or is_a(value.producer(), "Constant"))


def is_a(node: ir.Node | None, *operators: str) -> bool:
    """Whether ``node`` is one of these operators of ONNX itself."""
    return node is not None and node.domain == "" and node.op_type in operators


def differ(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    """Whether two scales or zero points differ by more than float16 rounds; what is not known does not."""
    if one is None or other is None:
        return False
    # In float64, since scales may have been stored in different types.
    numbers = one.ravel().astype(np.float64)
    others = other.ravel().astype(np.float64)
    if numbers.size != others.size:
        return True
    return not np.allclose(numbers, others, rtol=ROUNDED, atol=0, equal_nan=True)
