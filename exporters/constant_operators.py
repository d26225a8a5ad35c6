"""How each operator is evaluated on constants: a row an operator.

Three kinds of rows. What only moves numbers, and what is exact on exact numbers, is given to ONNX's own reference
evaluator (onnx.reference, which defines what an operator means). What rounds is computed here in float64, together with
a bound on how far the float32 of any runtime may lie from it, in whatever order it adds (Higham 2002, Accuracy and
Stability of Numerical Algorithms, sections 3.1 and 3.3: the running error of an operation, and n u / (1 - n u) for a
sum of n terms). Quantize- and DequantizeLinear have their own, since the scale and the levels are wanted as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from exporters.known_numbers import OPSET, Constant, stored
from exporters.number_formats import symmetric_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Operands = Sequence[Constant | None]
    Evaluate = Callable[[ir.Node, Operands, int], Constant | None]
    Size = Callable[[ir.Node, Operands], int]
    Error = NDArray[np.float64] | float

# Unit roundoff by type, and half of the smallest number, which is the rounding error next to 0.
ROUNDOFF = {"float16": (2.0**-11, 2.0**-25), "float32": (2.0**-24, 2.0**-150), "float64": (2.0**-53, 2.0**-1075)}
# Square roots of a variance, powers, exponentials: the libraries of the runtimes are off by a few units in the last
# place, and none that is in use by more than eight.
LIBRARY = 8


# --- numbers as ONNX means them ---------------------------------------------------------------------------------------


def opset_of(node: ir.Node) -> int:
    """The opset that ``node`` is written in; that of export where the node does not tell."""
    if node.version is not None:
        return node.version
    imports = node.graph.opset_imports if isinstance(node.graph, ir.Graph) else {}
    return imports.get("", OPSET)


def _reference(node: ir.Node, arrays: Sequence[NDArray[Any] | None], place: int) -> NDArray[Any] | None:
    """Output ``place`` of ``node`` on ``arrays``, by onnx.reference; None where it refuses them."""
    from onnx.reference import ReferenceEvaluator

    names = ["" if array is None else f"input_{index}" for index, array in enumerate(arrays)]
    outputs = [f"output_{index}" for index in range(len(node.outputs))]
    attributes = [ir.to_proto(attribute) for attribute in node.attributes.values()]
    proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain, input=names, output=outputs, attribute=attributes)
    graph = onnx.GraphProto(name="constant", node=[proto])
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in names if name)
    graph.output.append(onnx.ValueInfoProto(name=outputs[place]))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset_of(node))])
    fed = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
    try:
        with np.errstate(all="ignore"):
            (answered,) = ReferenceEvaluator(model).run(None, fed)
    except Exception:  # noqa: BLE001  an odd node of a foreign file: then it is no constant that we know
        return None
    array = np.asarray(answered)
    return None if array.dtype.kind in "OSU" else array


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.name in ROUNDOFF


def _constant_node(node: ir.Node, _: Operands, place: int) -> Constant | None:
    """What a Constant holds, in whichever of its attributes; None where that is text."""
    (attribute,) = node.attributes.values()
    if attribute.name == "value":
        tensor = attribute.as_tensor().numpy()
        return None if tensor.dtype.kind in "OSU" else stored(tensor)
    array = _reference(node, (), place)
    return None if array is None else stored(array)


def _identity(_: ir.Node, operands: Operands, __: int) -> Constant | None:
    return operands[0]


def _moved(node: ir.Node, operands: Operands, place: int) -> Constant | None:
    """The numbers of the first operand in other places; what tells the places has to be exact."""
    source = operands[0]
    if source is None:
        return None
    rest = [None if operand is None else operand.array for operand in operands[1:]]
    if any(operand is not None and not operand.exact for operand in operands[1:]):
        return None
    numbers = _reference(node, [source.numbers, *rest], place)
    if numbers is None:
        return None
    if source.exact:
        return Constant(numbers, source.dtype, quantised=_moved_levels(node, source))
    error = _reference(node, [np.broadcast_to(source.error, source.shape), *rest], place)
    return None if error is None else Constant(numbers, source.dtype, error)


def _moved_levels(node: ir.Node, source: Constant) -> tuple[Constant, Constant] | None:
    """Levels and scale behind a Transpose, which moves the axis of the scale along; None behind any other move."""
    if source.quantised is None or node.op_type != "Transpose":
        return None
    levels, scale = source.quantised
    moved_levels = _reference(node, [levels.numbers], 0)
    moved_scale = scale.array if scale.numbers.ndim == 0 else _reference(node, [scale.array], 0)
    if moved_levels is None or moved_scale is None:
        return None
    return Constant(moved_levels, levels.dtype), stored(moved_scale)


def _joined(node: ir.Node, operands: Operands, place: int) -> Constant | None:
    """Concat: numbers of all operands in other places."""
    known = [operand for operand in operands if operand is not None]
    dtype = known[0].dtype
    if all(operand.numbers.dtype == dtype for operand in known):
        numbers = _reference(node, [operand.numbers for operand in known], place)
    else:
        numbers = _reference(node, [operand.values for operand in known], place)
    if numbers is None:
        return None
    if all(operand.exact for operand in known):
        return Constant(numbers, dtype)
    error = _reference(node, [np.broadcast_to(operand.error, operand.shape) for operand in known], place)
    return None if error is None else Constant(numbers, dtype, error)


def _exact(node: ir.Node, operands: Operands, place: int) -> Constant | None:
    """What rounds nothing, or by a rule that leaves one answer, on operands that every runtime has the same of."""
    if any(operand is not None and not operand.exact for operand in operands):
        return None
    if node.op_type in {"Div", "Mod"} and _divides_whole_numbers_by_zero(operands):
        return None
    array = _reference(node, [None if operand is None else operand.array for operand in operands], place)
    return None if array is None else stored(array)


def _divides_whole_numbers_by_zero(operands: Operands) -> bool:
    """For which ONNX has no answer."""
    divisor = operands[1]
    return divisor is not None and divisor.dtype.kind in "iu" and not divisor.array.all()


def _cast(node: ir.Node, operands: Operands, place: int) -> Constant | None:
    operand = operands[0]
    if operand is None:
        return None
    dtype = ir.DataType(node.attributes["to"].as_int()).numpy()
    if dtype == operand.dtype:
        return operand
    if operand.exact:
        return _exact(node, [operand], place)
    if not _is_float(dtype):
        return None  # next to half a number, another rounding is another number
    return _rounded(operand.values, operand.error, dtype)


def known_sizes(node: ir.Node) -> Constant | None:
    """What a Shape answers by the shape that was inferred; a size that is open has an error without a bound."""
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    sizes = list(value.shape)[start:end]
    numbers = [size if isinstance(size, int) else 0 for size in sizes]
    error = [0.0 if isinstance(size, int) else np.inf for size in sizes]
    return Constant(np.array(numbers, np.int64), np.dtype(np.int64), np.array(error))


# --- float arithmetic, with a bound -----------------------------------------------------------------------------------


def _rounded(exact: NDArray[np.float64], inherited: Error, dtype: np.dtype[Any], units: float = 1) -> Constant:
    """``exact`` as computed in ``dtype`` from operands off by ``inherited``, and off by ``units`` roundoffs itself."""
    roundoff, smallest = ROUNDOFF[dtype.name]
    error = inherited * (1 + units * roundoff) + units * roundoff * np.abs(exact) + smallest
    return Constant(np.asarray(exact, np.float64), dtype, np.broadcast_to(error, np.shape(exact)))


def _summed(terms: int, dtype: np.dtype[Any]) -> float:
    """How many of its magnitudes a sum of ``terms`` may be off by, added in whatever order."""
    roundoff, _ = ROUNDOFF[dtype.name]
    return terms * roundoff / (1 - terms * roundoff)


def _arithmetic(rule: Callable[[Constant, Constant], tuple[NDArray[np.float64], Error]]) -> Evaluate:
    """An operator on two operands that broadcast: by ``rule`` on floats, exactly on whole numbers."""

    def evaluate(node: ir.Node, operands: Operands, place: int) -> Constant | None:
        one, other = operands
        if one is None or other is None:
            return None
        if one.exact and other.exact:
            return _exact(node, operands, place)  # IEEE 754 rounds one operation in one way
        if not _is_float(one.dtype):
            return None
        with np.errstate(all="ignore"):
            exact, inherited = rule(one, other)
            return _rounded(exact, inherited, one.dtype)

    return evaluate


def _add(one: Constant, other: Constant) -> tuple[NDArray[np.float64], Error]:
    return one.values + other.values, np.add(one.error, other.error)


def _subtract(one: Constant, other: Constant) -> tuple[NDArray[np.float64], Error]:
    return one.values - other.values, np.add(one.error, other.error)


def _multiply(one: Constant, other: Constant) -> tuple[NDArray[np.float64], Error]:
    inherited = (
        np.abs(one.values) * other.error + np.abs(other.values) * one.error + np.multiply(one.error, other.error)
    )
    return one.values * other.values, inherited


def _divide(one: Constant, other: Constant) -> tuple[NDArray[np.float64], Error]:
    exact = one.values / other.values
    # The divisor may be as small as this; where it may be 0, nothing is known.
    least = np.maximum(np.abs(other.values) - other.error, 0)
    return exact, (one.error + np.abs(exact) * other.error) / least


def _function(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    slope: Callable[[NDArray[np.float64], Error], NDArray[np.float64]],
    units: float,
) -> Evaluate:
    """A function of one operand; ``slope(values, error)`` is its steepest within ``error`` of ``values``."""

    def evaluate(node: ir.Node, operands: Operands, place: int) -> Constant | None:
        operand = operands[0]
        if operand is not None and operand.exact and units == 0:
            return _exact(node, operands, place)
        if operand is None or not _is_float(operand.dtype):
            return None
        with np.errstate(all="ignore"):
            exact = function(operand.values)
            inherited: Error = 0.0
            if not operand.exact:
                inherited = np.where(np.asarray(operand.error) > 0, slope(operand.values, operand.error), 0.0)
                inherited = inherited * operand.error
            return _rounded(exact, inherited, operand.dtype, units)

    return evaluate


def _root_slope(values: NDArray[np.float64], error: Error) -> NDArray[np.float64]:
    return np.asarray(0.5 / np.sqrt(np.maximum(values - error, 0)))


def _reciprocal_slope(values: NDArray[np.float64], error: Error) -> NDArray[np.float64]:
    return np.asarray(1 / np.maximum(np.abs(values) - error, 0) ** 2)


def _exponential_slope(values: NDArray[np.float64], error: Error) -> NDArray[np.float64]:
    return np.asarray(np.exp(values + error))


def _at_most_one(values: NDArray[np.float64], _: Error) -> NDArray[np.float64]:
    """The slope of tanh, of the logistic function, and of what keeps or turns a sign."""
    return np.ones_like(values)


def _power(node: ir.Node, operands: Operands, place: int) -> Constant | None:
    """Powers of 2 and of a half, as norms and variances are written; no other."""
    base, exponent = operands
    if base is None or exponent is None or not exponent.exact or exponent.values.size != 1:
        return None
    power = float(exponent.values.ravel()[0])
    if power == 2 and _is_float(base.dtype):
        return _rounded(*_multiply(base, base), base.dtype)
    return ROOT(node, [base], place) if power == 0.5 else None


def _reduction(
    node: ir.Node, operands: Operands, *, mean: bool = False, power: int = 1, root: bool = False
) -> Constant | None:
    """A sum over axes, of magnitudes or squares where ``power`` says so, divided or rooted."""
    operand = operands[0]
    if operand is None or not _is_float(operand.dtype):
        return None
    axes = _axes(node, operands, operand.values.ndim)
    if axes is None:
        return None
    keep = bool(node.attributes["keepdims"].as_int()) if "keepdims" in node.attributes else True

    terms = operand.values if power == 1 else np.abs(operand.values) ** abs(power)
    slopes = 1.0 if power in {1, -1} else 2 * np.abs(operand.values) + operand.error
    of_terms = np.broadcast_to(slopes * operand.error, terms.shape)
    magnitudes = np.sum(np.abs(terms) + of_terms, axis=axes, keepdims=keep)
    exact = np.sum(terms, axis=axes, keepdims=keep)
    count = terms.size // max(1, exact.size)
    # A square and a division round once each beside the additions.
    inherited = np.sum(of_terms, axis=axes, keepdims=keep) + _summed(count + 2, operand.dtype) * magnitudes
    if mean:
        exact = exact / count
        inherited = inherited / count
    total = _rounded(np.asarray(exact), np.asarray(inherited), operand.dtype)
    return ROOT(node, [total], 0) if root else total


def _axes(node: ir.Node, operands: Operands, rank: int) -> tuple[int, ...] | None:
    """The axes that a reduction goes over, an attribute or an input; all of them where none are told."""
    told: Sequence[int] = ()
    if len(operands) > 1 and operands[1] is not None:
        if not operands[1].exact:
            return None
        told = [int(axis) for axis in operands[1].array.ravel()]
    elif "axes" in node.attributes:
        told = node.attributes["axes"].as_ints()
    if told:
        return tuple(axis % rank for axis in told)
    keeps_all = "noop_with_empty_axes" in node.attributes and node.attributes["noop_with_empty_axes"].as_int()
    return () if keeps_all else tuple(range(rank))


def _mean(node: ir.Node, operands: Operands, _: int) -> Constant | None:
    return _reduction(node, operands, mean=True)


def _sum(node: ir.Node, operands: Operands, place: int) -> Constant | None:
    operand = operands[0]
    if operand is not None and not _is_float(operand.dtype):
        return _exact(node, operands, place)
    return _reduction(node, operands)


def _sum_of_squares(node: ir.Node, operands: Operands, _: int) -> Constant | None:
    return _reduction(node, operands, power=2)


def _norm_1(node: ir.Node, operands: Operands, _: int) -> Constant | None:
    return _reduction(node, operands, power=-1)


def _norm_2(node: ir.Node, operands: Operands, _: int) -> Constant | None:
    return _reduction(node, operands, power=2, root=True)


def _product(_: ir.Node, operands: Operands, __: int) -> Constant | None:
    """A product of matrices."""
    one, other = operands
    if one is None or other is None or not _is_float(one.dtype) or min(one.values.ndim, other.values.ndim) < 1:
        return None
    terms = one.values.shape[-1]
    one_most = np.abs(one.values) + one.error
    other_most = np.abs(other.values) + other.error
    exact = np.matmul(one.values, other.values)
    inherited = np.matmul(one_most, other_most) - np.matmul(np.abs(one.values), np.abs(other.values))
    inherited += _summed(terms + 1, one.dtype) * np.matmul(one_most, other_most)
    return _rounded(np.asarray(exact), np.asarray(inherited), one.dtype)


def _normalised(node: ir.Node, operands: Operands, place: int) -> Constant | None:
    """BatchNormalization by its own batch, with which some networks standardise their weights."""
    is_training = "training_mode" in node.attributes and node.attributes["training_mode"].as_int() == 1
    known = [operand for operand in operands[:3] if operand is not None]
    if not is_training or place != 0 or len(known) < 3 or not all(_is_float(operand.dtype) for operand in known):
        return None
    data, gamma, beta = known
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    axes = tuple(axis for axis in range(data.values.ndim) if axis != 1)
    shape = [-1 if axis == 1 else 1 for axis in range(data.values.ndim)]

    count = data.values.size // max(1, data.values.shape[1])
    mean = data.values.mean(axes, keepdims=True)
    off_centre = data.values - mean
    variance = np.mean(off_centre**2, axes, keepdims=True)
    most = np.abs(data.values) + data.error
    of_mean = np.mean(np.broadcast_to(data.error, most.shape), axes, keepdims=True)
    of_mean = of_mean + _summed(count + 2, data.dtype) * np.mean(most, axes, keepdims=True)
    of_centred = data.error + of_mean + ROUNDOFF[data.dtype.name][0] * (most + np.abs(mean))
    of_variance = np.mean(2 * np.abs(off_centre) * of_centred + of_centred**2, axes, keepdims=True)
    # As E[x²] - E[x]² it loses more than in two passes.
    of_variance = of_variance + _summed(2 * count + 4, data.dtype) * np.mean(most**2, axes, keepdims=True)

    with np.errstate(all="ignore"):
        spread = np.sqrt(variance + epsilon)
        of_spread = of_variance / np.sqrt(np.maximum(variance + epsilon - of_variance, 0))
        gain = gamma.values.reshape(shape) / spread
        exact = off_centre * gain + beta.values.reshape(shape)
        inherited = np.abs(gain) * of_centred + np.abs(off_centre * gain) * of_spread / np.maximum(
            spread - of_spread, 0
        )
        largest = np.abs(off_centre * gain) + np.abs(beta.values.reshape(shape))
        inherited = inherited + 4 * LIBRARY * ROUNDOFF[data.dtype.name][0] * largest
    return _rounded(exact, inherited, data.dtype)


def _chosen(node: ir.Node, operands: Operands, place: int) -> Constant | None:
    """Max, Min and Clip, which answer one of their operands: off by no more than the most that one of those is."""
    known = [operand for operand in operands if operand is not None]
    array = _reference(node, [None if operand is None else operand.array for operand in operands], place)
    if array is None:
        return None
    if all(operand.exact for operand in known):
        return stored(array)
    if not _is_float(array.dtype):
        return None
    errors = [np.broadcast_to(operand.error, array.shape) for operand in known]
    return _rounded(array.astype(np.float64), np.max(errors, axis=0), array.dtype)


def _selected(node: ir.Node, operands: Operands, place: int) -> Constant | None:
    """Where, by an exact condition."""
    condition, one, other = operands
    if condition is None or one is None or other is None or not condition.exact:
        return None
    if one.exact and other.exact:
        return _exact(node, operands, place)
    numbers = np.where(condition.array, one.values, other.values)
    error = np.where(condition.array, one.error, other.error)
    return Constant(numbers, one.dtype, np.broadcast_to(error, numbers.shape))


# --- levels -----------------------------------------------------------------------------------------------------------


def _quantise(node: ir.Node, operands: Operands, _: int) -> Constant | None:
    """The levels of a constant, as ONNX rounds them: to even, and to the ends of the type."""
    number, scale = operands[0], operands[1]
    if number is None or scale is None or not number.exact or "block_size" in node.attributes:
        return None
    along = scale_along_axis(node, scale.array, number.numbers.ndim)
    if along is None:
        return None
    zero_point = operands[2] if len(operands) > 2 else None
    if zero_point is not None:
        levels_type = zero_point.dtype
    else:
        output_type = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else 0
        levels_type = ir.DataType(output_type or ir.DataType.UINT8).numpy()

    # In float32, as a runtime computes it.
    with np.errstate(all="ignore"):
        quotients = np.divide(number.array.astype(np.float32), along.astype(np.float32), dtype=np.float32)
    small_float = symmetric_in(levels_type)
    if small_float is not None and not small_float.uniform:
        saturates = "saturate" not in node.attributes or node.attributes["saturate"].as_int() == 1
        levels = small_float.to_levels(quotients) if saturates else quotients.astype(levels_type)
        return stored(levels)

    ends = _ends(levels_type)
    if ends is None:
        return None
    offset = _zero_along_axis(zero_point, along)
    with np.errstate(all="ignore"):
        levels = np.clip(np.rint(quotients) + offset, *ends)
    return stored(np.nan_to_num(levels).astype(levels_type))


def _ends(dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """The smallest and the largest whole number of ``dtype``; None where it holds others."""
    if dtype.kind not in "iu":
        return None
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _dequantise(node: ir.Node, operands: Operands, _: int) -> Constant | None:
    levels, scale = operands[0], operands[1]
    if levels is None or scale is None or not levels.exact or not scale.exact or "block_size" in node.attributes:
        return None
    along = scale_along_axis(node, scale.array, levels.numbers.ndim)
    if along is None:
        return None
    zero_point = operands[2] if len(operands) > 2 else None
    offset = _zero_along_axis(zero_point, along)
    from_zero = levels.values - offset if offset.any() else levels.values
    with np.errstate(invalid="ignore"):  # 0 under an infinite scale is NaN, which no bound lets pass
        values = from_zero * along.astype(np.float64)
    # Every product of a level and a scale is rounded once, and by IEEE 754 in one way.
    return Constant(values, along.dtype, quantised=(Constant(from_zero, levels.dtype), stored(along)))


def scale_along_axis(node: ir.Node, scale: NDArray[Any], rank: int) -> NDArray[Any] | None:
    """``scale`` of a Quantize- or DequantizeLinear, one a channel shaped to multiply ``rank`` dimensions.

    None where it has no such axis.
    """
    if scale.ndim == 0:
        return scale
    if scale.size == 1:
        return scale.reshape([1] * rank)
    channel_axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    if scale.ndim != 1 or not -rank <= channel_axis < rank:
        return None
    shape = [-1 if axis == channel_axis % rank else 1 for axis in range(rank)]
    return scale.reshape(shape)


def _zero_along_axis(zero_point: Constant | None, scale: NDArray[Any]) -> NDArray[np.float64]:
    """The zero point in the shape of ``scale``; 0 where none is written."""
    if zero_point is None:
        return np.zeros((), np.float64)
    if zero_point.numbers.size == 1:
        return zero_point.values.reshape(())
    return zero_point.values.reshape(scale.shape)


# --- how large an answer is -------------------------------------------------------------------------------------------


def size_of(node: ir.Node, operands: Operands) -> int:
    """The bytes that evaluating ``node`` takes, told before it is done."""
    known = [operand for operand in operands if operand is not None]
    rule = SIZES.get(node.op_type)
    try:
        count = max((operand.numbers.size for operand in known), default=1) if rule is None else rule(node, operands)
    except (ValueError, IndexError, AttributeError):
        return 0  # shapes that do not fit: evaluating it says so
    # Float64 is the widest that a number is computed in.
    return 8 * count


def _told_shape(place: int) -> Size:
    """An operator that is told the shape of its answer by operand ``place``."""

    def size(_: ir.Node, operands: Operands) -> int:
        shape = operands[place]
        return 0 if shape is None else math.prod(max(0, int(number)) for number in shape.array.ravel())

    return size


def _broadcast_size(_: ir.Node, operands: Operands) -> int:
    shapes = [operand.shape for operand in operands if operand is not None]
    return math.prod(_broadcast(*shapes))


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(np.broadcast_shapes(*shapes))


def _expanded_size(_: ir.Node, operands: Operands) -> int:
    data, shape = operands[0], operands[1]
    if data is None or shape is None:
        return 0
    return math.prod(_broadcast(data.shape, tuple(int(number) for number in shape.array.ravel())))


def _tiled_size(_: ir.Node, operands: Operands) -> int:
    data, repeats = operands[0], operands[1]
    if data is None or repeats is None:
        return 0
    return data.numbers.size * math.prod(int(number) for number in repeats.array.ravel())


def _range_size(_: ir.Node, operands: Operands) -> int:
    known = [float(operand.values.ravel()[0]) for operand in operands if operand is not None]
    start, limit, step = known
    return 0 if step == 0 else max(0, math.ceil((limit - start) / step))


def _padded_size(_: ir.Node, operands: Operands) -> int:
    data, pads = operands[0], operands[1] if len(operands) > 1 else None
    if data is None or pads is None:
        return 0
    widest = int(pads.values.clip(0).max(initial=0)) * 2
    return math.prod(length + widest for length in data.shape)


def _gathered_size(_: ir.Node, operands: Operands) -> int:
    data, indices = operands[0], operands[1]
    if data is None or indices is None:
        return 0
    return max(1, data.numbers.size) * max(1, indices.numbers.size)


def _product_size(_: ir.Node, operands: Operands) -> int:
    one, other = operands
    if one is None or other is None:
        return 0
    return math.prod(one.shape[:-1]) * math.prod(other.shape) // max(1, one.shape[-1])


BROADCAST = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Equal", "Less", "Greater")
# Operators whose answer may be larger than what they read.
SIZES: dict[str, Size] = {
    "ConstantOfShape": _told_shape(0),
    "Expand": _expanded_size,
    "Tile": _tiled_size,
    "Range": _range_size,
    "Pad": _padded_size,
    "Gather": _gathered_size,
    "GatherND": _gathered_size,
    "MatMul": _product_size,
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Equal", "Less", "Greater"), _broadcast_size
    ),
}


# --- the rows ---------------------------------------------------------------------------------------------------------

MULTIPLY = _arithmetic(_multiply)
ROOT = _function(np.sqrt, _root_slope, units=LIBRARY)

# Numbers of the first operand in other places.
MOVES = (
    "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Slice", "Gather", "GatherElements", "GatherND",
    "Expand", "Tile", "Split", "Pad", "DepthToSpace", "SpaceToDepth", "Trilu",
)  # fmt: skip
# One answer by definition, whoever computes it.
EXACT = (
    "Shape", "Size", "Range", "ConstantOfShape", "EyeLike", "OneHot", "NonZero", "ArgMax", "ArgMin", "Equal", "Less",
    "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Not", "Xor", "Sign", "Floor", "Ceil", "Round", "IsNaN",
    "IsInf", "Mod", "ReduceMax", "ReduceMin", "ReduceProd", "CastLike",
)  # fmt: skip

EVALUATED: dict[str, Evaluate] = {
    "Constant": _constant_node,
    "Identity": _identity,
    "Cast": _cast,
    "Concat": _joined,
    "Where": _selected,
    "Add": _arithmetic(_add),
    "Sub": _arithmetic(_subtract),
    "Mul": MULTIPLY,
    "Div": _arithmetic(_divide),
    "Pow": _power,
    "Sqrt": ROOT,
    "Reciprocal": _function(np.reciprocal, _reciprocal_slope, units=1),
    "Exp": _function(np.exp, _exponential_slope, units=LIBRARY),
    "Tanh": _function(np.tanh, _at_most_one, units=LIBRARY),
    "Neg": _function(np.negative, _at_most_one, units=0),
    "Abs": _function(np.abs, _at_most_one, units=0),
    "Max": _chosen,
    "Min": _chosen,
    "Clip": _chosen,
    "Relu": _chosen,
    "ReduceMean": _mean,
    "ReduceSum": _sum,
    "ReduceSumSquare": _sum_of_squares,
    "ReduceL1": _norm_1,
    "ReduceL2": _norm_2,
    "MatMul": _product,
    "BatchNormalization": _normalised,
    "QuantizeLinear": _quantise,
    "DequantizeLinear": _dequantise,
    **dict.fromkeys(MOVES, _moved),
    **dict.fromkeys(EXACT, _exact),
}
