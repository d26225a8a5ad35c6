"""One row an operator: what each version of it says that the version before did not, and where a node notices it.

Read from the schemas of onnx 1.23.2, opsets 7 to 28. A version without an entry only takes more types.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporters.known_numbers import Constant

    Constants = Callable[[ir.Value | None], Constant | None]

Attributes = dict[str, Any]


@dataclass(frozen=True)
class Use:
    """A node with what its attributes mean, the shape of its first input (None for what is unknown), and constants."""

    node: ir.Node
    attributes: Attributes
    shape: list[int | None] | None
    constants: Constants

    @property
    def rank(self) -> int | None:
        """The number of dimensions of the first input; None where no file tells."""
        return None if self.shape is None else len(self.shape)

    def sizes(self, spatial: int) -> list[int | None]:
        """The size of the first input along each of its ``spatial`` axes."""
        if self.shape is None or len(self.shape) != spatial + 2:
            return [None] * spatial
        return self.shape[2:]

    def input(self, place: int) -> ir.Value | None:
        """The input at ``place``; None where it is not given."""
        return self.node.inputs[place] if place < len(self.node.inputs) else None

    def dtype(self, place: int) -> ir.DataType | None:
        """The type of the input at ``place``; None where it is not given or no file tells."""
        return dtype_of(self.input(place))

    def target(self) -> ir.DataType | None:
        """What a Cast or CastLike casts to."""
        return data_type(self.attributes.get("to")) if self.node.op_type == "Cast" else self.dtype(1)


def dtype_of(value: ir.Value | None) -> ir.DataType | None:
    """The type of ``value``; None where no file tells."""
    dtype = value.dtype if value is not None else None
    return None if dtype == ir.DataType.UNDEFINED else dtype


def data_type(number: int | None) -> ir.DataType | None:
    """The type that an attribute names; its 0 is none."""
    return ir.DataType(number) if number else None


@dataclass(frozen=True)
class Version:
    """What a version of an operator ``says`` that the version before did not.

    ``added`` are attributes that came, with what the operator did before; ``moved`` are attributes that became inputs,
    with their places. ``matters`` tells whether a node means something else; without it none does.
    """

    number: int
    says: str
    added: Mapping[str, Any] = field(default_factory=dict)
    moved: Mapping[str, int] = field(default_factory=dict)
    matters: Callable[[Use], bool] | None = None


# Where a change matters.


def _always(_: Use) -> bool:
    return True


def _is_not_the_last_axis(use: Use) -> bool:
    """Until opset 12 over all axes from this one on, then over this one: the same where those behind it have size 1."""
    axis = use.attributes.get("axis")
    if axis == -1:
        return False
    if use.shape is None or axis is None:
        return True
    return any(size != 1 for size in use.shape[axis + 1 :])


def _may_start_in_the_padding(use: Use) -> bool:
    """Whether the last window of a pool with ceil_mode may start behind its input: in the padding or beyond."""
    attributes = use.attributes
    if not attributes.get("ceil_mode") or attributes.get("auto_pad", "NOTSET") != "NOTSET":
        return False
    if not windows_are_whole(attributes):
        return True
    spatial = len(attributes["kernel_shape"])
    sizes = use.sizes(spatial)
    return any(_starts_in_the_padding(attributes, axis, size) for axis, size in enumerate(sizes))


def windows_are_whole(attributes: Attributes) -> bool:
    """Whether a window says of every spatial axis what it has to."""
    spatial = len(attributes.get("kernel_shape") or [])
    strides = attributes.get("strides") or []
    dilations = attributes.get("dilations") or []
    is_listed = len(strides) == len(dilations) == spatial and len(attributes.get("pads") or []) == 2 * spatial
    return is_listed and min(strides, default=0) > 0


def _starts_in_the_padding(attributes: Attributes, axis: int, size: int | None) -> bool:
    stride = attributes["strides"][axis]
    reach = (attributes["kernel_shape"][axis] - 1) * attributes["dilations"][axis] + 1
    begin, end = attributes["pads"][axis], attributes["pads"][axis + len(attributes["kernel_shape"])]
    if end + stride <= reach:
        return False
    if size is None:
        return True
    windows = math.ceil((size + begin + end - reach) / stride)
    return bool(windows * stride >= size + begin)


def _trains(use: Use) -> bool:
    return bool(use.attributes.get("training_mode"))


def _is_not_spatial(use: Use) -> bool:
    return not use.attributes.get("spatial", 1)


def _has_a_mask(use: Use) -> bool:
    return len(use.node.outputs) > 1


def _bounds_cross(use: Use) -> bool:
    low = use.attributes.get("min")
    high = use.attributes.get("max")
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return False
    return bool(low > high)


def _pads_itself(use: Use) -> bool:
    is_automatic = str(use.attributes.get("auto_pad", "NOTSET")).startswith("SAME")
    return is_automatic or bool(use.attributes.get("output_shape"))


def _is_text(use: Use) -> bool:
    return ir.DataType.STRING in (use.target(), use.dtype(0))


def _may_be_float8_without_negative_zero(use: Use) -> bool:
    target = use.target()
    return target is None or target.name.endswith("FNUZ")


def _may_be_short(use: Use) -> bool:
    """In sixteen bits, or of a type that no file tells."""
    dtype = use.dtype(0)
    return dtype is None or dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _crops_for_nearest(use: Use) -> bool:
    return use.attributes.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn"


def _may_be_negative(use: Use) -> bool:
    indices = use.constants(use.input(0))
    return indices is None or bool((indices.array < 0).any())


def _words(number: int) -> Version:
    return Version(number, "says the same in other words")


def _reduction(number: int) -> Version:
    return Version(number, "takes its axes from input 1", {"noop_with_empty_axes": 0}, {"axes": 1})


def _one_axis(operator: str) -> Version:
    says = f"works along one axis, {operator} of opset 12 over all axes from it on"
    return Version(13, says, matters=_is_not_the_last_axis)


SLIDING = "leaves out a window that starts in the padding"

VERSIONS: dict[str, tuple[Version, ...]] = {
    "Abs": (_words(13),),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), (Version(14, "takes more types"),)),
    **dict.fromkeys(
        ("ArgMax", "ArgMin"),
        (
            Version(11, "counts negative axes from the back"),
            Version(12, "may select the last of equals", {"select_last_index": 0}),
            _words(13),
        ),
    ),
    "Attention": (
        Version(24, "takes the number of valid keys as an input"),
        Version(25, "has windows", {"left_window_size": -1, "right_window_size": -1}),
    ),
    "AveragePool": (
        Version(10, "has ceil_mode", {"ceil_mode": 0}),
        _words(11),
        Version(19, "has dilations", {"dilations": None}),
        Version(22, SLIDING, matters=_may_start_in_the_padding),
    ),
    "BatchNormalization": (
        Version(9, "has lost its numbers for every pixel", matters=_is_not_spatial),
        Version(14, "trains by an attribute, with other outputs", {"training_mode": None}, matters=_trains),
        Version(15, "sums in float32 while it trains", matters=_trains),
    ),
    "BitShift": (Version(28, "takes signed types"),),
    "Cast": (
        Version(9, "reads and writes text", matters=_is_text),
        _words(13),
        Version(19, "casts to float8", {"saturate": 1}),
        Version(
            24,
            "turns an infinity into the largest float8, before into NaN",
            {"round_mode": "up"},
            matters=_may_be_float8_without_negative_zero,
        ),
    ),
    "CastLike": (
        Version(19, "casts to float8", {"saturate": 1}),
        Version(
            24,
            "turns an infinity into the largest float8, before into NaN",
            {"round_mode": "up"},
            matters=_may_be_float8_without_negative_zero,
        ),
    ),
    **dict.fromkeys(("Ceil", "Floor"), (_words(13),)),
    "Clip": (
        Version(11, "takes its bounds from inputs", moved={"min": 1, "max": 2}),
        Version(13, "answers max where min is above it, which was undefined", matters=_bounds_cross),
    ),
    "Concat": (Version(11, "counts negative axes from the back"),),
    "Constant": (
        Version(11, "may be sparse"),
        Version(12, "holds numbers in attributes of their own"),
    ),
    "ConvTranspose": (Version(11, "gives the odd pixel of automatic padding to the other side", matters=_pads_itself),),
    "DepthToSpace": (
        Version(11, "has mode", {"mode": "DCR"}),
        _words(13),
    ),
    "DequantizeLinear": (
        Version(13, "takes one scale a channel", {"axis": 1}),
        Version(19, "takes float8"),
        Version(21, "takes scales of blocks", {"block_size": 0}),
        Version(23, "may answer in another type than the scale's", {"output_dtype": 0}),
    ),
    "Dropout": (
        Version(10, "has a mask of booleans", matters=_has_a_mask),
        Version(
            12,
            "takes its ratio and whether it trains from inputs",
            {"training_mode": None},
            {"ratio": 1, "training_mode": 2},
            matters=_trains,
        ),
    ),
    "Gather": (
        Version(11, "counts negative indices from the back"),
        _words(13),
    ),
    "GatherElements": (_words(13),),
    "GatherND": (
        Version(12, "has batch_dims", {"batch_dims": 0}),
        _words(13),
    ),
    "Gemm": (
        Version(11, "can do without its bias"),
        _words(13),
    ),
    "GroupNormalization": (
        Version(
            21,
            "takes scale and bias of every channel, that of opset 18 takes them of every group",
            {"stash_type": 1},
            matters=_always,
        ),
    ),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (Version(14, "has layout", {"layout": 0}),)),
    **{
        operator: (Version(11, "counts negative axes from the back"), _one_axis(operator))
        for operator in ("Hardmax", "LogSoftmax", "Softmax")
    },
    "LRN": (_words(13),),
    "Loop": (_words(11), _words(13), _words(16)),
    "LpPool": (Version(18, "has ceil_mode and dilations", {"ceil_mode": 0, "dilations": None}),),
    **dict.fromkeys(("Max", "Mean", "Min", "Sum"), (Version(8, "takes operands of other shapes"),)),
    "MaxPool": (
        Version(8, "has indices", {"storage_order": 0}),
        Version(10, "has ceil_mode and dilations", {"ceil_mode": 0, "dilations": None}),
        _words(12),
        Version(22, SLIDING, matters=_may_start_in_the_padding),
    ),
    "MeanVarianceNormalization": (_words(13),),
    "Mod": (
        _words(13),
        Version(28, "takes the remainder of a floor of floats too"),
    ),
    "NegativeLogLikelihoodLoss": (_words(13),),
    "OneHot": (Version(11, "counts negative indices from the back, before they were none", matters=_may_be_negative),),
    "PRelu": (_words(16),),
    "Pad": (
        Version(11, "takes its pads from inputs", moved={"pads": 1, "value": 2}),
        _words(13),
        Version(18, "may list axes", {"axes": None}, {"axes": 3}),
        Version(19, "has the mode wrap"),
    ),
    "QuantizeLinear": (
        Version(13, "takes one scale a channel", {"axis": 1}),
        Version(19, "writes float8", {"saturate": 1}),
        Version(21, "takes scales of blocks", {"block_size": 0, "output_dtype": 0}),
        Version(23, "may divide in another type than the scale's", {"precision": 0}),
        Version(25, "writes two bits"),
    ),
    "Range": (Version(27, "sums in float32", {"stash_type": 1}, matters=_may_be_short),),
    **{f"Reduce{name}": (_words(11), _words(13), _reduction(18)) for name in ("L1", "L2", "LogSum", "LogSumExp")},
    **{f"Reduce{name}": (_words(11), _words(13), _reduction(18)) for name in ("Mean", "Prod", "SumSquare")},
    **{
        f"Reduce{name}": (_words(12), _words(13), _reduction(18), Version(20, "takes booleans"))
        for name in ("Max", "Min")
    },
    "ReduceSum": (_words(11), _reduction(13)),
    "Reshape": (
        Version(5, "takes the shape from an input", moved={"shape": 1}),
        Version(14, "has allowzero", {"allowzero": 0}),
    ),
    "Resize": (
        Version(10, "exists", moved={"scales": 1}),
        Version(
            11,
            "says which pixel of the input one of the output is, that of opset 10 does not",
            moved={"roi": 1, "scales": 2, "sizes": 3},
            matters=_always,
        ),
        Version(13, "has lost tf_half_pixel_for_nn", matters=_crops_for_nearest),
        Version(
            18,
            "has antialias, axes and a policy for the aspect ratio",
            {"antialias": 0, "axes": None, "keep_aspect_ratio_policy": "stretch"},
        ),
        Version(19, "has half_pixel_symmetric"),
    ),
    "RoiAlign": (Version(16, "has a coordinate mode", {"coordinate_transformation_mode": "output_half_pixel"}),),
    "Scan": (Version(9, "has lost its batch axis and the lengths of its sequences", matters=_always),),
    **dict.fromkeys(
        ("ScatterElements", "ScatterND"),
        (
            Version(16, "may reduce", {"reduction": "none"}),
            Version(18, "may reduce by max and min too"),
        ),
    ),
    "Shape": (Version(15, "may answer with a part", {"start": 0, "end": None}),),
    "Slice": (
        Version(
            10,
            "takes what it cuts from inputs",
            {"axes": None, "steps": None},
            {"starts": 1, "ends": 2, "axes": 3, "steps": 4},
        ),
        Version(11, "counts negative axes from the back"),
        _words(13),
    ),
    "SoftmaxCrossEntropyLoss": (_words(13),),
    "SpaceToDepth": (Version(28, "has mode", {"mode": "DCR"}),),
    "Split": (
        Version(13, "takes the sizes from an input", moved={"split": 1}),
        Version(18, "says how many outputs it has", {"num_outputs": None}),
    ),
    "Squeeze": (Version(13, "takes its axes from an input", moved={"axes": 1}),),
    "TopK": (
        Version(10, "takes k from an input", moved={"k": 1}),
        Version(11, "may take the smallest, and may leave them unsorted", {"largest": 1, "sorted": 1}),
    ),
    "Unsqueeze": (
        Version(11, "counts negative axes from the back"),
        Version(13, "takes its axes from an input", moved={"axes": 1}),
    ),
    "Upsample": (Version(9, "takes its scales from an input", moved={"scales": 1}),),
}
