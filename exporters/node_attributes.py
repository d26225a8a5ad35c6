"""What the attributes of a node mean, however its opset spells them."""

from __future__ import annotations

import math
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from exporters.constant import evaluate_constant
from exporters.known_numbers import OPSET
from exporters.opset_versions import VERSIONS, Attributes, Use, data_type, dtype_of, windows_are_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporters.opset_versions import Constants

# What stands in place of an attribute that is an input and is computed while the network runs.
COMPUTED = "computed"

# Attributes that are numbers of the tensor: with a tensor in float16 they are rounded to float16.
OF_THE_TENSORS_TYPE = {"Clip": {"min", "max"}, "Pad": {"value"}}


def canonical_attributes(
    node: ir.Node,
    opset: int,
    constants: Constants = evaluate_constant,
    like: ir.Node | None = None,
) -> Attributes:
    """What the attributes of ``node`` mean, however ``opset`` spells them.

    Defaults are filled in, an attribute that became an input is read from either place, axes are counted from the
    front where the rank is known, and what has no effect is left out. An input that is computed is COMPUTED.
    """
    return use_of(node, opset, constants, like).attributes


def attributes(node: ir.Node) -> Attributes:
    """The attributes of ``node`` as they are written, with the defaults of OPSET, the one that export writes."""
    filled = {**defaults_of(node.op_type, node.domain, OPSET)}
    for name, attribute in node.attributes.items():
        filled[name] = _plain(attribute.value)

    if node.op_type in {"Conv", "MaxPool"}:
        # Their defaults depend on the number of spatial axes, so no schema can hold them.
        weight = evaluate_constant(node.inputs[1]) if node.op_type == "Conv" else None
        if weight is not None:
            filled["kernel_shape"] = list(weight.shape[2:])
        # An image has two, where nothing tells it.
        rank = len(filled.get("kernel_shape") or (0, 0))
        filled = {"strides": [1] * rank, "dilations": [1] * rank, "pads": [0] * 2 * rank, **filled}
    return filled


def spelt_as_inputs(operator: str, opset: int, domain: str = "") -> dict[int, str]:
    """The inputs of ``operator`` that ``canonical_attributes`` reads, by their places, with the attributes' names."""
    if domain:
        return {}
    places: dict[int, str] = {}
    for version in VERSIONS.get(operator, ()):
        if version.number <= opset:
            # Resize gained an input in front of its scales.
            names = set(version.moved)
            places = {place: name for place, name in places.items() if name not in names}
            places.update({place: name for name, place in version.moved.items()})
    return dict(sorted(places.items()))


@cache
def defaults_of(operator: str, domain: str, opset: int) -> Attributes:
    """The default of every attribute that has one; empty for an operator that ONNX does not know."""
    if not onnx.defs.has(operator, opset, domain):
        return {}
    defaults = {}
    for name, attribute in onnx.defs.get_schema(operator, opset, domain).attributes.items():
        default = attribute.default_value
        if default.type:  # an attribute without a default has an empty value of no type
            defaults[name] = _plain(onnx.helper.get_attribute_value(default))
    return defaults


@cache
def added_later(operator: str, opset: int) -> Attributes:
    """What the operator does in ``opset``, in terms of the attributes that later opsets added."""
    added: Attributes = {}
    for version in reversed(VERSIONS.get(operator, ())):
        if version.number > opset:
            added.update(version.added)
    return added


@cache
def _added_without_default(operator: str, opset: int) -> Attributes:
    """None for every attribute that a version up to ``opset`` added: what holds where no default is written."""
    versions = [version for version in VERSIONS.get(operator, ()) if version.number <= opset]
    return {name: None for version in versions for name in version.added}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if isinstance(value, (list, tuple)) else value


def use_of(node: ir.Node, opset: int, constants: Constants, like: ir.Node | None) -> Use:
    """``node`` as ``opset`` reads it."""
    attributes = dict(defaults_of(node.op_type, node.domain, opset))
    for name, attribute in node.attributes.items():
        attributes[name] = _plain(attribute.value)
    use = Use(node, attributes, _shape(node, like, constants), constants)
    if node.domain:
        return use

    for name, value in (added_later(node.op_type, opset) | _added_without_default(node.op_type, opset)).items():
        attributes.setdefault(name, value)
    for place, name in spelt_as_inputs(node.op_type, opset).items():
        attributes[name] = _input(node, place, constants)
    normalise = MEANS.get(node.op_type)
    if normalise is not None:
        normalise(use)
    return use


def _shape(node: ir.Node, like: ir.Node | None, constants: Constants) -> list[int | None] | None:
    """The shape of the first input, from either node; None in it for a dimension that no file tells."""
    one = _written_shape(node, constants)
    other = _written_shape(like, constants)
    if one is None or other is None or len(one) != len(other):
        return one if one is not None else other
    return [size if size is not None else hint for size, hint in zip(one, other, strict=True)]


def _written_shape(node: ir.Node | None, constants: Constants) -> list[int | None] | None:
    if node is None or not node.inputs or node.inputs[0] is None:
        return None
    shape = node.inputs[0].shape
    if shape is not None:
        return [size if isinstance(size, int) else None for size in shape]
    constant = constants(node.inputs[0])
    return None if constant is None else list(constant.array.shape)


def _input(node: ir.Node, place: int, constants: Constants) -> Any:
    """The numbers of an input: None where it is not given, COMPUTED where they depend on the network's inputs."""
    value = node.inputs[place] if place < len(node.inputs) else None
    if value is None:
        return None
    constant = constants(value)
    return COMPUTED if constant is None else constant.array.tolist()


def _axis(use: Use, extra: int = 0) -> None:
    """One axis, counted from the front of ``rank + extra`` dimensions."""
    axis = use.attributes.get("axis")
    if use.rank is not None and isinstance(axis, int) and axis < 0:
        use.attributes["axis"] = axis + use.rank + extra


def _new_axis(use: Use) -> None:
    _axis(use, extra=1)


def _axes(use: Use, rank: int | None = None) -> None:
    """Axes counted from the front, in order: their order means nothing."""
    axes = use.attributes.get("axes")
    rank = use.rank if rank is None else rank
    if isinstance(axes, list):
        counted = [axis + rank if rank is not None and axis < 0 else axis for axis in axes]
        use.attributes["axes"] = sorted(counted)


def _reduce(use: Use) -> None:
    """No axes are all axes, unless noop_with_empty_axes makes them none at all."""
    _axes(use)
    attributes = use.attributes
    if attributes.get("axes") == COMPUTED:
        return
    axes = attributes.get("axes") or None
    is_all = use.rank is not None and axes == list(range(use.rank))
    if axes is not None:
        attributes["noop_with_empty_axes"] = 0
    attributes["axes"] = None if is_all else axes


def _squeeze(use: Use) -> None:
    _axes(use)
    use.attributes.setdefault("axes", None)


def _unsqueeze(use: Use) -> None:
    """Its axes are those of the output, whose rank is larger by their number."""
    axes = use.attributes.get("axes")
    if use.rank is not None and isinstance(axes, list):
        _axes(use, use.rank + len(axes))


def _windows(use: Use) -> None:
    """Strides, dilations and pads for every spatial axis; an auto_pad in pads, where the sizes tell them."""
    attributes = use.attributes
    kernel = _kernel(use)
    if kernel is None:
        return
    spatial = len(kernel)
    attributes["kernel_shape"] = kernel
    for name in ("strides", "dilations"):
        attributes[name] = attributes.get(name) or [1] * spatial
    if attributes.get("auto_pad", "NOTSET") == "NOTSET":
        attributes["pads"] = attributes.get("pads") or [0] * 2 * spatial
        return

    attributes["pads"] = [0] * 2 * spatial  # a runtime does not read them beside auto_pad
    pads = _automatic_pads(use, kernel) if windows_are_whole(attributes) else None
    if pads is not None:
        attributes.update(auto_pad="NOTSET", pads=pads)


def _kernel(use: Use) -> list[int] | None:
    """The size of the window; a convolution may leave it to its weights."""
    if use.attributes.get("kernel_shape"):
        return list(use.attributes["kernel_shape"])
    if use.node.op_type not in ("Conv", "ConvTranspose") or len(use.node.inputs) < 2:
        return None
    shape = use.node.inputs[1].shape if use.node.inputs[1] is not None else None
    sizes = [] if shape is None else [size for size in shape[2:] if isinstance(size, int)]
    if shape is not None and len(sizes) == len(shape) - 2:
        return sizes
    weight = use.constants(use.node.inputs[1])
    return None if weight is None else [int(size) for size in weight.shape[2:]]


def _max_pool(use: Use) -> None:
    """In which order it counts the places of its maxima, where nobody reads them, means nothing."""
    _windows(use)
    outputs = use.node.outputs
    if len(outputs) < 2 or not (outputs[1].uses() or outputs[1].is_graph_output()):
        use.attributes.pop("storage_order", None)


def _automatic_pads(use: Use, kernel: list[int]) -> list[int] | None:
    """The pads that auto_pad stands for; None where sizes are unknown, or where a pool's ceil_mode has a say."""
    if use.attributes["auto_pad"] == "VALID":
        return [0] * 2 * len(kernel)
    if use.attributes.get("ceil_mode"):
        return None
    before = []
    after = []
    for axis, size in enumerate(use.sizes(len(kernel))):
        if size is None:
            return None
        stride = use.attributes["strides"][axis]
        reach = (kernel[axis] - 1) * use.attributes["dilations"][axis] + 1
        total = max(0, (math.ceil(size / stride) - 1) * stride + reach - size)
        smaller, larger = total // 2, total - total // 2
        is_upper = use.attributes["auto_pad"] == "SAME_UPPER"
        before.append(smaller if is_upper else larger)
        after.append(larger if is_upper else smaller)
    return before + after


def _transposed(use: Use) -> None:
    """As a convolution's; its auto_pad and output_shape are left as they stand, for they make pads in another way."""
    attributes = use.attributes
    kernel = _kernel(use)
    if kernel is None:
        return
    spatial = len(kernel)
    attributes["kernel_shape"] = kernel
    for name, default in (("strides", [1]), ("dilations", [1]), ("output_padding", [0])):
        attributes[name] = attributes.get(name) or default * spatial
    is_automatic = attributes.get("auto_pad", "NOTSET") != "NOTSET" or attributes.get("output_shape")
    if not is_automatic:
        attributes["pads"] = attributes.get("pads") or [0] * 2 * spatial


def _batch_normalization(use: Use) -> None:
    """Whether it trains, which opsets 7 to 13 tell by the number of outputs; its momentum only where it does.

    Numbers of channels, not of pixels, are what it has since opset 9.
    """
    attributes = use.attributes
    if attributes.get("training_mode") is None:
        attributes["training_mode"] = int(len(use.node.outputs) > 1)
    if not attributes["training_mode"]:
        attributes.pop("momentum", None)
    if attributes.get("spatial"):
        del attributes["spatial"]


def _dropout(use: Use) -> None:
    """Out of training it copies: its ratio and seed say nothing. Before opset 12 no runtime trains."""
    attributes = use.attributes
    training = attributes.get("training_mode")
    if training != COMPUTED:
        attributes["training_mode"] = int(bool(training))
    if attributes["training_mode"] == 0:
        attributes.pop("ratio", None)
        attributes.pop("seed", None)


LARGEST = {
    ir.DataType.FLOAT16: 65504.0,
    ir.DataType.BFLOAT16: float.fromhex("0x1.fep127"),
    ir.DataType.FLOAT: float.fromhex("0x1.fffffep127"),
    ir.DataType.DOUBLE: sys.float_info.max,
}


def _clip(use: Use) -> None:
    """A bound that no number of the type goes beyond is none."""
    limit = LARGEST.get(use.dtype(0) or ir.DataType.FLOAT, math.inf)
    for name, sign in (("min", -1), ("max", 1)):
        bound = use.attributes.get(name)
        if isinstance(bound, list):  # a bound of one number in a shape of its own
            bound = bound[0] if len(bound) == 1 else bound
        beyond = isinstance(bound, (int, float)) and sign * bound >= limit
        use.attributes[name] = None if beyond else bound


def _pad(use: Use) -> None:
    """Pads of all axes, though only some were listed; the constant only where it is used."""
    attributes = use.attributes
    _count_axes_in_place(use)
    axes = attributes.get("axes")
    pads = attributes.get("pads")
    if isinstance(axes, list) and isinstance(pads, list) and use.rank is not None:
        attributes.update(pads=_pads_of_all_axes(axes, pads, use.rank), axes=None)
    if attributes.get("mode", "constant") != "constant":
        attributes.pop("value", None)
    elif attributes.get("value") is None:
        attributes["value"] = 0.0


def _pads_of_all_axes(axes: list[int], pads: list[int], rank: int) -> list[int]:
    begins = dict(zip(axes, pads[: len(axes)], strict=False))
    ends = dict(zip(axes, pads[len(axes) :], strict=False))
    return [begins.get(axis, 0) for axis in range(rank)] + [ends.get(axis, 0) for axis in range(rank)]


def _count_axes_in_place(use: Use) -> None:
    """Axes counted from the front, in the order of the numbers beside them."""
    axes = use.attributes.get("axes")
    if isinstance(axes, list) and use.rank is not None:
        use.attributes["axes"] = [axis + use.rank if axis < 0 else axis for axis in axes]


# What a slice may say for "to the end": the exporters write INT32_MAX or INT64_MAX.
FURTHEST = 2**31 - 1


def _slice(use: Use) -> None:
    """All that it says of each axis, in the order of the axes."""
    attributes = use.attributes
    _count_axes_in_place(use)
    starts, ends = attributes.get("starts"), attributes.get("ends")
    if not isinstance(starts, list) or not isinstance(ends, list):
        return
    axes = attributes.get("axes")
    steps = attributes.get("steps")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if COMPUTED in (axes, steps) or len({len(part) for part in (starts, ends, axes, steps)}) > 1:
        return
    parts = sorted(zip(axes, starts, ends, steps, strict=True))
    attributes["axes"] = [axis for axis, _, _, _ in parts]
    attributes["starts"] = [max(-FURTHEST, min(start, FURTHEST)) for _, start, _, _ in parts]
    attributes["ends"] = [max(-FURTHEST, min(end, FURTHEST)) for _, _, end, _ in parts]
    attributes["steps"] = [step for _, _, _, step in parts]


def _split(use: Use) -> None:
    """The sizes of the parts; where none are written, equal ones, the last of which may be smaller."""
    _axis(use)
    attributes = use.attributes
    count = len(use.node.outputs)
    attributes["num_outputs"] = count
    sizes = dict(enumerate(use.shape or []))
    size = sizes.get(attributes["axis"])
    if attributes.get("split") is None and size is not None:
        part = math.ceil(size / count)
        attributes["split"] = [part] * (count - 1) + [size - part * (count - 1)]
    attributes.setdefault("split", None)


def _top_k(use: Use) -> None:
    _axis(use)
    k = use.attributes.get("k")
    if isinstance(k, list) and len(k) == 1:
        use.attributes["k"] = k[0]


def _resize(use: Use) -> None:
    """An empty tensor is as one that is not given; roi, extrapolation and cubic numbers only where they are used."""
    attributes = use.attributes
    for name in ("roi", "scales", "sizes"):
        if not attributes.get(name):
            attributes[name] = None
    crops = attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    used_by = {
        "roi": crops,
        "extrapolation_value": crops,
        "cubic_coeff_a": attributes.get("mode") == "cubic",
        "nearest_mode": attributes.get("mode") == "nearest",
    }
    for name, is_used in used_by.items():
        if not is_used:
            attributes.pop(name, None)
    _axes_of_resize(use)


def _axes_of_resize(use: Use) -> None:
    """No axes are all axes."""
    _count_axes_in_place(use)
    is_all = use.rank is not None and use.attributes.get("axes") == list(range(use.rank))
    if is_all:
        use.attributes["axes"] = None


def _reshape(use: Use) -> None:
    """Whether a 0 copies a dimension matters only where there is one."""
    shape = use.attributes.get("shape")
    if isinstance(shape, list) and 0 not in shape:
        use.attributes.pop("allowzero", None)


def _quantise(use: Use) -> None:
    """The axis only under many scales, saturation only of float8, and the type of the levels by its name."""
    attributes = use.attributes
    if _is_one_number(use, 1):
        attributes.pop("axis", None)
    _axis(use)
    levels = use.dtype(2) or data_type(attributes.get("output_dtype")) or dtype_of(use.node.outputs[0])
    without_zero_point = ir.DataType.UINT8 if use.input(2) is None else None
    levels = levels or without_zero_point
    if levels is not None:
        attributes["output_dtype"] = levels.name
    if levels is not None and not levels.name.startswith("FLOAT8"):
        attributes.pop("saturate", None)


def _dequantise(use: Use) -> None:
    """The axis only under many scales; the type of its output only where it is not the scale's."""
    if _is_one_number(use, 1):
        use.attributes.pop("axis", None)
    _axis(use)
    wanted = data_type(use.attributes.get("output_dtype"))
    if wanted is None or wanted == use.dtype(1):
        use.attributes.pop("output_dtype", None)


def _is_one_number(use: Use, place: int) -> bool:
    value = use.input(place)
    constant = use.constants(value)
    if constant is not None:
        return bool(constant.array.size == 1)
    shape = value.shape if value is not None else None
    return shape is not None and len(shape) == 0


def _cast(use: Use) -> None:
    """Saturation only to float8, rounding only to float8e8m0; what CastLike casts to may be unknown."""
    target = use.target()
    if target is None:
        return
    if not target.name.startswith("FLOAT8"):
        use.attributes.pop("saturate", None)
    if target.name != "FLOAT8E8M0":
        use.attributes.pop("round_mode", None)


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

MEANS: dict[str, Callable[[Use], None]] = {
    **{f"Reduce{name}": _reduce for name in REDUCTIONS},
    **dict.fromkeys(("ArgMax", "ArgMin", "Concat", "Flatten", "Gather", "GatherElements", "Hardmax"), _axis),
    **dict.fromkeys(("LayerNormalization", "LogSoftmax", "RMSNormalization", "Scatter", "ScatterElements"), _axis),
    **dict.fromkeys(("Softmax", "LpNormalization"), _axis),
    **dict.fromkeys(("AveragePool", "Conv", "LpPool"), _windows),
    "MaxPool": _max_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "ConvTranspose": _transposed,
    "DequantizeLinear": _dequantise,
    "Dropout": _dropout,
    "OneHot": _new_axis,
    "Pad": _pad,
    "QuantizeLinear": _quantise,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "TopK": _top_k,
    "Unsqueeze": _unsqueeze,
}
