"""Is one ONNX file the honest successor of another? Every weight, attribute and edge, with a bound that proves it.

The two graphs are walked together from their outputs. What a stage may add is stepped over (Identity, Cast between
float types, activation Q/DQ pairs, a BatchNormalization folded away) and what it must keep is compared:

* float32 next to float32: the same bits;
* float16: the nearest float16 of the float32;
* INT8 behind DequantizeLinear: at most half a scale away, channel by channel; next to INT8, the same levels under the
  same scales or their nearest float16 (see rounding);
* a folded pair: recomputed in float64 from the unfolded one, at most a float32 rounding away;
* channels that are a power of two apart: in all that writes and reads them (see channel_space), then as above.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from exporters import onnx_file, pairs
from exporters.certify_rescale import follow
from exporters.constant import Constant, attributes, evaluate_constant, operator_version
from exporters.fold_batchnorm import FOLDABLE, along_outputs, obstacle
from exporters.rounding import SMALLEST32, U32, U64, scale_as, storage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.rounding import Bound

# gamma / sqrt(var + eps), times W: four float64 operations; the bias has three more. Sixteen covers both generously.
FOLD = 16 * U64
# What has weights that training changes.
LAYERS = {"Conv", "Gemm"}
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}


@dataclass(frozen=True)
class Refutation:
    """What is not proven: the PyTorch ``module`` and what was ``found`` there."""

    module: str
    found: str


@dataclass
class Certificate:
    """What was compared, and everything that was refuted.

    ``largest`` is the greatest share of its bound that any constant used up (1 is the bound itself); ``left`` are the
    BatchNormalizations that were not folded, each with what stands in its way. The channels of ``rescaled`` channel
    spaces are powers of two apart: proven exactly, for writers and readers together. ``retrained`` weights and biases
    are others, which was allowed, and of which nothing is proven. ``operators`` counts the nodes of each kind, before
    and after.
    """

    constants: int = 0
    nodes: int = 0
    folded: int = 0
    rescaled: int = 0
    retrained: int = 0
    largest: float = 0.0
    left: dict[str, str] = field(default_factory=dict)
    refuted: list[Refutation] = field(default_factory=list)
    operators: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """Whether every comparison held."""
        return not self.refuted


def certify(before: Path, after: Path, *, retrained: bool = False) -> Certificate:
    """Walk both files; raises ValueError where one cannot be read, or where they are the same file.

    ``retrained`` layers may have other weights and biases, of the same shapes; everything else is proven as ever.
    """
    if before.exists() and after.exists() and before.samefile(after):
        raise ValueError(f"{before.name} would be compared with itself; give the file before and the file after")
    old, new = onnx_file.read(before).graph, onnx_file.read(after).graph
    rescaled = 0 if retrained else follow(old, new)
    walk = _Walk(old, new, retrained=retrained)
    walk.certificate.rescaled = rescaled
    walk.run()
    return walk.certificate


class _Walk:
    """One walk: the pairs of values still to compare, and which node stands for which."""

    def __init__(self, before: ir.Graph, after: ir.Graph, *, retrained: bool) -> None:
        self.certificate, self.retrained = Certificate(), retrained
        self.inputs = [[value.name for value in graph.inputs] for graph in (before, after)]
        self.opsets = [graph.opset_imports for graph in (before, after)]
        # With each pair the node that reads it: where the edge goes wrong, that is the place to name.
        self.todo: list[tuple[ir.Value, ir.Value, ir.Node | None]] = [
            (old, new, None) for old, new in zip(before.outputs, after.outputs, strict=False)
        ]
        self.partner: dict[int, ir.Node] = {}
        ends = [[_end(value) for value in (*graph.inputs, *graph.outputs)] for graph in (before, after)]
        for was, now in zip_longest(*ends):
            if was != now:
                self.refute(None, f"{now or 'nothing'} stands where the graph had {was or 'nothing'}")
        for value in (*before.initializers.values(), *after.initializers.values()):
            array = onnx_file.initializer_array(value)
            if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
                self.refute(next(iter(value.consumers()), None), f"{value.name} holds NaN or infinity")
        counts = [Counter(node.op_type for node in graph) for graph in (before, after)]
        kinds = sorted({*counts[0], *counts[1]})
        self.certificate.operators = {kind: (counts[0][kind], counts[1][kind]) for kind in kinds}
        norms = [node for node in after if node.op_type == "BatchNormalization"]
        self.certificate.left = {
            onnx_file.module_of(node) or str(node.name): obstacle(node) or "it could be folded" for node in norms
        }

    def refute(self, node: ir.Node | None, found: str) -> None:
        module = "" if node is None else onnx_file.module_of(node)
        self.certificate.refuted.append(Refutation(module, found))

    def run(self) -> None:
        while self.todo:
            *values, reader = self.todo.pop()
            (old, was), (new, now) = (self._source(value) for value in values)
            self._compare_pairs(reader, was, now)
            one, other = old.producer(), new.producer()
            if one is None or other is None:
                self._compare_inputs(old, new, reader)
            elif old.index() != new.index():
                self.refute(reader, f"output {new.index()} of {other.name} stands where output {old.index()} stood")
            elif self.partner.setdefault(id(other), one) is not one or self.partner.get(id(one), other) is not other:
                self.refute(reader, f"{other.name} stands where {one.name} stood")
            elif id(one) not in self.partner:
                self.partner[id(one)] = other
                self._compare(one, other)

    def _source(self, value: ir.Value) -> tuple[ir.Value, list[Constant]]:
        """The value behind everything that a stage may put in between, and the scales of the pairs there."""
        scales = []
        while (node := value.producer()) is not None and (behind := self._behind(node)) is not None:
            scale = evaluate_constant(node.inputs[1]) if node.op_type == "DequantizeLinear" else None
            scales += [] if scale is None else [scale]
            value = behind
        return value, scales

    def _compare_pairs(self, reader: ir.Node | None, was: list[Constant], now: list[Constant]) -> None:
        """Pairs may be new, but those that stood there stay."""
        if was and len(was) != len(now):
            self.refute(reader, f"{len(now)} Q/DQ pairs stand where {len(was)} stood")
        for one, other in zip(was, now, strict=False):
            self._within(reader, "the scale of its input", other, scale_as(one, other.array.dtype), 0.0)

    def _behind(self, node: ir.Node) -> ir.Value | None:
        value = node.inputs[0] if node.inputs else None
        if value is None or onnx_file.initializer_array(value) is not None:
            return None
        if node.op_type == "DequantizeLinear":
            return self._quantised(node, value)
        plain = node.op_type == "Cast" and ir.DataType(node.attributes["to"].as_int()) in FLOATS
        return value if plain or node.op_type == "Identity" else None

    def _quantised(self, dequantise: ir.Node, value: ir.Value) -> ir.Value | None:
        quantise = value.producer()
        if quantise is None or quantise.op_type != "QuantizeLinear" or evaluate_constant(value) is not None:
            return None
        for mine, yours in zip_longest(quantise.inputs[1:], dequantise.inputs[1:]):
            one, other = onnx_file.initializer_array(mine), onnx_file.initializer_array(yours)
            if one is None or other is None or not np.array_equal(one, other):
                self.refute(_reader(dequantise), f"{quantise.name} and {dequantise.name} differ in scale or zero point")
        if pairs.number_format_of(quantise) is None:
            self.refute(_reader(dequantise), f"{quantise.name} cuts values off: its zero point is not an INT8 0")
        scale = onnx_file.initializer_array(quantise.inputs[1])
        if scale is None or not (np.isfinite(scale) & (scale > 0)).all():
            self.refute(_reader(dequantise), f"{quantise.name} has a scale that is no positive number")
        return quantise.inputs[0]

    def _compare_inputs(self, old: ir.Value, new: ir.Value, reader: ir.Node | None) -> None:
        places = [
            names.index(value.name) if value.name in names else None
            for names, value in zip(self.inputs, (old, new), strict=True)
        ]
        if places[0] is None or places[0] != places[1]:
            self.refute(reader, f"{new.name} stands where {old.name} stood")

    def _compare(self, old: ir.Node, new: ir.Node) -> None:
        self.certificate.nodes += 1
        conv = self._source(old.inputs[0])[0].producer() if old.inputs[0] is not None else None
        folds = conv is not None and conv.op_type == new.op_type and new.op_type in FOLDABLE
        if old.op_type == "BatchNormalization" and folds:
            assert conv is not None
            self._compare_fold(conv, old, new)
        elif old.op_type != new.op_type:
            self.refute(old, f"{new.op_type} {new.name} stands where {old.op_type} {old.name} stood")
        else:
            self._compare_attributes(old, new)
            for one, other in zip_longest(old.inputs, new.inputs):
                if one is not None and other is not None:
                    self._compare_operands(new, one, other)
                elif one is not other:
                    lost = f"lost its input {one.name}" if one is not None else f"has a new input {other.name}"  # type: ignore[union-attr]
                    self.refute(new, f"{new.name} {lost}")

    def _compare_operands(self, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
        was, now = evaluate_constant(old), evaluate_constant(new)
        if was is None and now is None:
            self.todo.append((old, new, node))
        elif was is None or now is None:
            self.refute(node, f"{new.name} of {node.name} is a constant in one file only")
        elif self.retrained and node.op_type in LAYERS and was.array.dtype == now.array.dtype:
            self._compare_retrained(node, was, now)
        elif was.quantised is not None and now.quantised is not None:
            (levels, scale), (stored, scaled) = was.quantised, now.quantised
            self._within(node, f"levels of {new.name}", stored, levels.values, 0.0)
            self._within(node, f"scale of {new.name}", scaled, scale_as(scale, scaled.array.dtype), 0.0)
        elif now.array.dtype == np.float16:
            # Rounding to the nearest is a function: what it gives is compared exactly.
            self._within(node, str(new.name), now, was.array.astype(np.float16).astype(np.float64), 0.0)
        else:
            self._within(node, str(new.name), now, was.values, storage(now, was.values))

    def _compare_retrained(self, node: ir.Node, was: Constant, now: Constant) -> None:
        self.certificate.retrained += not np.array_equal(was.array, now.array)
        if was.array.shape != now.array.shape:
            self.refute(node, f"a weight of {node.name} has shape {now.array.shape}, it had {was.array.shape}")

    def _compare_fold(self, conv: ir.Node, norm: ir.Node, folded: ir.Node) -> None:
        if why := obstacle(norm):
            self.refute(folded, f"{norm.name} must not be folded: {why}")
        self._compare_attributes(conv, folded)
        operands = [evaluate_constant(value) for value in (*conv.inputs[1:3], *norm.inputs[1:5])]
        results = [evaluate_constant(value) for value in folded.inputs[1:3]]
        if any(found is None for found in (*operands, *results)) or len(results) != 2:
            self.refute(folded, f"{folded.name} lacks a constant weight or bias")
            return
        self.certificate.folded += 1
        numbers = [found.values for found in operands if found is not None]
        gamma, beta, mean, var = numbers[-4:]
        bias = numbers[1] if len(numbers) == 6 else np.zeros_like(mean)
        gain = gamma / np.sqrt(var + attributes(norm)["epsilon"])
        weight = numbers[0] * along_outputs(conv, gain, numbers[0].ndim)
        # The sum of the bias may cancel, so its float64 error is relative to its terms.
        terms = np.abs(gain) * (np.abs(bias) + np.abs(mean)) + np.abs(beta)
        exacts, sizes = (weight, gain * (bias - mean) + beta), (np.abs(weight), terms)
        for name, stored, exact, size in zip(("weight", "bias"), results, exacts, sizes, strict=True):
            assert stored is not None
            rounding = U32 * np.abs(exact) + FOLD * size + SMALLEST32
            self._within(folded, name, stored, exact, rounding + storage(stored, exact))
        if conv.inputs[0] is not None and folded.inputs[0] is not None:
            self.todo.append((conv.inputs[0], folded.inputs[0], folded))

    def _within(
        self, node: ir.Node | None, name: str, stored: Constant, exact: NDArray[np.float64], bound: Bound
    ) -> None:
        self.certificate.constants += 1
        if stored.values.shape != exact.shape:
            self.refute(node, f"{name} has shape {stored.values.shape}, it had {exact.shape}")
            return
        error = np.abs(stored.values - exact)
        allowed = np.broadcast_to(bound, error.shape)
        share = np.divide(error, allowed, out=np.where(error == 0, 0.0, np.inf), where=allowed > 0)
        worst = float(share.max(initial=0.0))
        if worst <= 1:
            self.certificate.largest = max(self.certificate.largest, worst)
            return
        place = tuple(int(index) for index in np.unravel_index(int(np.argmax(share)), share.shape))
        found = f"{name}{list(place) or ''} is {stored.values[place]:.9g}, expected {exact[place]:.9g}"
        self.refute(node, f"{found} within {allowed[place]:.3g}")

    def _compare_attributes(self, old: ir.Node, new: ir.Node) -> None:
        was, now = attributes(old), attributes(new)
        meanings = [operator_version(node, opsets) for node, opsets in zip((old, new), self.opsets, strict=True)]
        if meanings[0] != meanings[1]:
            self.refute(new, f"{new.op_type} of {new.name} means something else in another opset")
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                self.refute(new, f"{name} of {new.name} is {now.get(name)}, it was {was.get(name)}")


def _end(value: ir.Value) -> str:
    """An input or output of a graph as a caller sees it; bytes that are only cast are the same numbers."""
    cast = value.dtype == ir.DataType.UINT8 and all(node.op_type == "Cast" for node in value.consumers())
    return f"{value.name} {ir.DataType.FLOAT if cast else value.dtype} {value.shape}"


def _reader(node: ir.Node) -> ir.Node:
    """The node that reads this one, which has the name that a person knows."""
    return next(iter(node.outputs[0].consumers()), node)
