"""Two pieces of two files with the rounding of both taken out, so that nothing is left but what they compute.

A QuantizeLinear becomes a division by its scale and a DequantizeLinear a multiplication, a float16 tensor becomes
float32, and a rounded constant of the later file becomes the one of the earlier file that it was rounded from. What
then still differs is no rounding, whatever nodes stand in either piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporters.portable.sqnr import sqnr_db

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporters.subgraphs import Subgraph, Subgraphs

HALVES = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
# The types of levels that are as fine as float16: onnxruntime's quantiser writes biases in INT32.
FINE = {"int16", "uint16", "int32"}
# The SQNR in dB from which on a constant counts as rounded from another: of a few bits, and of float16 or finer.
NEAR_DB = {"coarse": 10.0, "fine": 40.0}


class _Piece:
    """One piece without its rounding: its ``model``, and the constants in it that were ``rounded``, coarse or fine."""

    def __init__(self, file: Subgraphs, piece: Subgraph) -> None:
        self.file = file
        self.piece = piece
        self.rounded: dict[str, str] = {}
        self.rounds = False
        self.model = file.model(piece)
        self.constants: dict[str, NDArray[np.generic]] = {}
        for tensor in self.model.graph.initializer:
            self.constants[tensor.name] = self._widened(tensor)
        self._widen_inputs()
        nodes: list[onnx.NodeProto] = []
        for node in self.model.graph.node:
            nodes += self._without_rounding(node)
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)

    def _widened(self, tensor: onnx.TensorProto) -> NDArray[np.generic]:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type not in HALVES:
            return array
        self.rounds = True
        self.rounded[tensor.name] = "fine"
        return array.astype(np.float32)

    def _widen_inputs(self) -> None:
        for value in self.model.graph.input:
            if value.type.tensor_type.elem_type in HALVES:
                self.rounds = True
                value.type.tensor_type.elem_type = TensorProto.FLOAT

    def _without_rounding(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes that compute the same without rounding."""
        if node.op_type == "Cast" and helper.get_node_attr_value(node, "to") in HALVES:
            self.rounds = True
            return [helper.make_node("Cast", node.input, node.output, node.name, to=TensorProto.FLOAT)]
        if node.op_type == "QuantizeLinear":
            self.rounds = True
            return self._chain(node, ("Div", "Add"))
        if node.op_type == "DequantizeLinear":
            self.rounds = True
            return self._dequantised(node)
        return [node]

    def _dequantised(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """None where it reads levels that are constant: its output is a constant as well."""
        levels = self.constants.get(node.input[0])
        if levels is None:
            # From the last step of quantising to the first.
            return self._chain(node, ("Mul", "Sub"))
        values = self.file.constant_array(self.piece, node.output[0])
        if values is None:
            raise ValueError(f"{node.name} has levels that are constant and a scale that is not")
        self.constants[node.output[0]] = values
        self.rounded[node.output[0]] = "fine" if str(levels.dtype) in FINE else "coarse"
        return []

    def _chain(self, node: onnx.NodeProto, operators: tuple[str, str]) -> list[onnx.NodeProto]:
        """``node`` by its scale and its zero point alone, as Div and Add or as Sub and Mul."""
        by_scale, by_zero = operators
        scale = self.constants.get(node.input[1])
        if scale is None or scale.size != 1:
            raise ValueError(f"{node.name} quantises an activation by more than one scale, or by one that is computed")
        zero_point = self.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(1)
        operands = {
            by_scale: scale.astype(np.float32).reshape(()),
            by_zero: zero_point.astype(np.float32).ravel()[0].reshape(()),
        }
        order = operators if node.op_type == "QuantizeLinear" else tuple(reversed(operators))

        between = f"{node.output[0]}, {order[0]}"
        names = [node.input[0], between, node.output[0]]
        nodes = []
        for place, operator in enumerate(order):
            constant = f"{node.output[0]}, {operator} by"
            self.constants[constant] = np.asarray(operands[operator])
            nodes.append(helper.make_node(operator, [names[place], constant], [names[place + 1]]))
        return nodes

    def write(self, replaced: dict[str, NDArray[np.generic]]) -> onnx.ModelProto:
        """The model, with ``replaced`` in place of its own constants."""
        del self.model.graph.initializer[:]
        read = {name for node in self.model.graph.node for name in node.input}
        for name, array in {**self.constants, **replaced}.items():
            if name in read:
                self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return self.model


def unrounded(
    files: tuple[Subgraphs, Subgraphs], pieces: tuple[Subgraph, Subgraph]
) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """The earlier and the later of ``pieces`` without the rounding of either.

    None where the later one rounds nothing, or where it holds coarse levels of which nothing in the earlier one was
    the origin. Raises ValueError where it quantises in a way that has no counterpart without rounding.
    """
    good, bad = (_Piece(file, piece) for file, piece in zip(files, pieces, strict=True))
    if not bad.rounds:
        return None

    origins: dict[str, NDArray[np.generic]] = {}
    for name, kind in bad.rounded.items():
        origin = _origin(bad.constants[name], kind, good)
        if origin is not None:
            origins[name] = origin
        elif kind == "coarse":
            return None
        # A fine constant that was rounded from nothing is wrong, and stays.
    return good.write({}), bad.write(origins)


def _origin(rounded: NDArray[np.generic], kind: str, good: _Piece) -> NDArray[np.generic] | None:
    """The constant of the earlier piece that ``rounded`` lies next to; None where none is near enough."""
    nearest, nearest_db = None, -np.inf
    for name, array in good.constants.items():
        if array.shape != rounded.shape or array.dtype.kind != "f":
            continue
        # Levels of levels are the same ones, whatever their scale was rounded to.
        least_db = NEAR_DB["fine" if good.rounded.get(name) == kind else kind]
        distance_db = float(sqnr_db(array[None], rounded[None])[0])
        if distance_db >= max(least_db, nearest_db):
            nearest, nearest_db = array, distance_db
    return nearest
