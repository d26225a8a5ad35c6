"""The shapes of an engine against those of its graph, at the smallest and at the largest batch.

What a graph makes of its images is seen by running it in ONNX Runtime as it is written: what a file declares may be
missing, and what is inferred from an operator's words is not what a runtime does.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from exporters import onnx_file, reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from onnxruntime import InferenceSession

Shapes = dict[str, list[int]]

# The numbers of images that a graph for any batch is run with; what grows with them goes on in a straight line.
RUN_WITH = (1, 2)
# Operators that hand on the shape of what they read: nothing can part there.
SAME_SHAPE = {
    "BatchNormalization",
    "Cast",
    "Clip",
    "Constant",
    "DequantizeLinear",
    "Dropout",
    "Identity",
    "QuantizeLinear",
    "Relu",
    "Sigmoid",
    "Shape",
}
# The name of a tensor's shape among the outputs of the graph that is run.
MARK = "shape of "
# What a library says of its own tensors in a list of layers.
LISTED = re.compile(r"Name: (?P<name>[^,]+), (?:Location: \w+, )?Dimensions: \[(?P<sizes>[-\d,]*)\]")


@dataclass(frozen=True)
class GraphShapes:
    """The shapes of the tensors of a graph, in its order, by the number of images.

    ``ends`` are the names of its inputs and outputs, ``modules`` tells of each tensor who makes it.
    """

    batches: dict[str, Shapes]
    ends: list[str]
    modules: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON keeps it."""
        return asdict(self)


def batches_of(profiles: Iterable[Sequence[int]]) -> tuple[int, int]:
    """The smallest and the largest number of images in ``profiles``."""
    numbers = [number for profile in profiles for number in profile]
    return min(numbers), max(numbers)


def of_graph(src: Path, batches: Sequence[int], *, inner: bool = True) -> GraphShapes:
    """What the graph in ``src`` makes of so many images; of its outputs alone unless ``inner``.

    A graph for one batch only is run with that. Raises ValueError where it cannot be run.
    """
    model = onnx_file.read(src)
    graph = model.graph
    fixed = _fixed_batch(graph)
    ends = [str(value.name) for value in (*graph.inputs, *graph.outputs) if value.const_value is None]
    modules = {}
    for node in graph:
        for value in node.outputs:
            modules[str(value.name)] = f"{onnx_file.module_of(node) or node.name or value.name} ({node.op_type})"

    proto = ir.to_proto(model)
    inside = _inner_tensors(graph) if inner else []
    del model, graph
    for name in inside:
        proto.graph.node.add(op_type="Shape", input=[name], output=[MARK + name])
        proto.graph.output.append(onnx.helper.make_tensor_value_info(MARK + name, onnx.TensorProto.INT64, ["rank"]))
    content = proto.SerializeToString()
    del proto
    try:
        session = reference.session(content)
        ran = {number: of_session(session, number) for number in ((fixed,) if fixed else RUN_WITH)}
    except reference.refusals() as error:
        raise ValueError(f"ONNX Runtime cannot run {src.name} ({str(error).splitlines()[0]})") from error

    wanted = [fixed] if fixed else batches
    return GraphShapes({str(number): _at(ran, number) for number in wanted}, ends, modules)


def refuse(library: str, src: Path, session: InferenceSession, batches: Sequence[int]) -> tuple[str, ...]:
    """Raise RuntimeError where ``session``, the engine of ``library``, makes other shapes than the graph in ``src``.

    Only inputs and outputs have the same names in both. The answer is a sentence where they cannot be compared.
    """
    try:
        graph = of_graph(src, batches, inner=False)
        found = {batch: of_session(session, int(batch)) for batch in graph.batches}
    except ValueError as error:
        return (not_compared(error),)
    parted = difference(library, graph.to_json(), found)
    if parted:
        raise RuntimeError(parted)
    return ()


def not_compared(reason: Exception) -> str:
    """What is said where nobody can tell the graph's shapes."""
    return f"its shapes are not compared with the graph's: {reason}"


def of_session(session: InferenceSession, batch: int) -> Shapes:
    """The shapes that ``session`` makes of ``batch`` images, inputs included."""
    feed = {}
    for taken in session.get_inputs():
        feed[taken.name] = np.zeros(_input_shape(taken, batch), _dtype(taken.type))
    found: Shapes = {name: list(array.shape) for name, array in feed.items()}
    answers = session.run(None, feed)
    for answered, array in zip(session.get_outputs(), answers, strict=True):
        if answered.name.startswith(MARK):
            found[answered.name.removeprefix(MARK)] = [int(size) for size in array]
        elif isinstance(array, np.ndarray):
            found[answered.name] = list(array.shape)
    return found


def of_network(network: Any, batch: int) -> Shapes:
    """The shapes in a network definition of TensorRT that is given ``batch`` images; -1 for what is unknown until then.

    The library infers them anew when an input gets another shape; no GPU is asked.
    """
    images = network.get_input(0)
    as_parsed = tuple(images.shape)
    if as_parsed[0] == -1:
        images.shape = (batch, *as_parsed[1:])
    found: Shapes = {}
    for tensor in _tensors(network):
        try:
            found[str(tensor.name)] = [int(size) for size in tensor.shape]
        except (ValueError, RuntimeError):  # its rank is not known before it runs, or its layer was not understood
            continue
    images.shape = as_parsed
    return found


def difference(library: str, graph: Mapping[str, Any], found: Mapping[str, Shapes]) -> str:
    """Where ``library`` makes other shapes than the ``graph`` (GraphShapes as JSON); empty where it makes the same.

    Inputs and outputs have to be the same; tensors between them may have more or fewer dimensions of size 1.
    """
    for batch, expected in graph["batches"].items():
        for name, shape in expected.items():
            made = found.get(batch, {}).get(name)
            if made is None or _same(made, shape, exactly=name in graph["ends"]):
                continue
            maker = graph["modules"].get(name, "its input")
            return (
                f"{library} makes {name} of shape {_shown(made)} from {batch} image(s), the graph {_shown(shape)}: "
                f"they part at {maker}; give that module a form that both read alike (a pool without ceil_mode, say) "
                "or take another engine"
            )
    return ""


def of_list(texts: Iterable[str], names: Iterable[str], batch: int) -> Shapes:
    """The shapes of the tensors ``names`` in a builder's list of layers, with ``batch`` images.

    There is one list a profile, each with its own number of images. A tensor may be listed as it is before or after a
    Flatten, whichever the builder leaves out. One that is listed in several shapes, as the parts of a Concat that are
    written in place, is left out: the network's own shapes tell of it.
    """
    wanted = {*names}
    found: Shapes = {}
    in_parts = set()
    for text in texts:
        if not text.lstrip().startswith("Layers:"):
            continue
        for match in LISTED.finditer(text):
            if match["name"] in wanted and match["sizes"]:
                _, *sizes = match["sizes"].split(",")
                shape = [batch, *map(int, sizes)]
                if found.setdefault(match["name"], shape) != shape:
                    in_parts.add(match["name"])
    return {name: shape for name, shape in found.items() if name not in in_parts}


def _same(made: Sequence[int], expected: Sequence[int], *, exactly: bool) -> bool:
    """Whether the shapes agree where ``made`` is known; unless ``exactly``, whatever dimensions of 1 they have."""
    if len(made) == len(expected) and all(size in (-1, right) for size, right in zip(made, expected, strict=True)):
        return True
    if exactly:
        return False
    # Which of its dimensions an unknown one stands for nobody can tell once the ranks differ.
    return -1 in made or _without_ones(made) == _without_ones(expected)


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _shown(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _fixed_batch(graph: ir.Graph) -> int | None:
    """The number of images that the graph is made for; None where it takes any."""
    images = next((value for value in graph.inputs if value.const_value is None), None)
    if images is None or not images.shape:
        return None
    size = images.shape[0]
    return size if isinstance(size, int) else None


def _inner_tensors(graph: ir.Graph) -> list[str]:
    names = []
    outputs = {value.name for value in graph.outputs}
    for node in graph:
        if node.op_type in SAME_SHAPE and not node.domain:
            continue
        for value in node.outputs:
            is_tensor = value.type is None or isinstance(value.type, ir.TensorType)
            if value.name and is_tensor and value.name not in outputs:
                names.append(value.name)
    return names


def _input_shape(taken: Any, batch: int) -> list[int]:
    """The shape of an input; its first dimension is the batch where it has a name or none."""
    shape = []
    for axis, size in enumerate(taken.shape):
        if isinstance(size, int):
            shape.append(size)
        elif axis == 0:
            shape.append(batch)
        else:
            raise ValueError(f"{taken.name} takes any size in dimension {axis}")
    return shape


def _dtype(kind: str) -> np.dtype[Any]:
    """The type of numpy for one of ONNX Runtime, as in tensor(float16)."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))


def _at(ran: Mapping[int, Shapes], batch: int) -> Shapes:
    """The shapes for ``batch`` images: as run, or on the straight line through the two runs."""
    if batch in ran:
        return ran[batch]
    (first, one), (second, other) = sorted(ran.items())
    shapes: Shapes = {}
    for name, shape in one.items():
        grown = other[name]
        if len(grown) == len(shape):
            shapes[name] = [
                size + (later - size) * (batch - first) // (second - first)
                for size, later in zip(shape, grown, strict=True)
            ]
    return shapes


def _tensors(network: Any) -> Iterable[Any]:
    for index in range(network.num_inputs):
        yield network.get_input(index)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_outputs):
            tensor = layer.get_output(place)
            if tensor is not None:
                yield tensor
    for index in range(network.num_outputs):
        yield network.get_output(index)
