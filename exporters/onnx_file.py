"""Reading and writing one ONNX file, safely: no external data, and nothing that is not a whole model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

# Tensors of more numbers are weights; smaller ones may tell shapes.
SMALL = 64


def read(path: Path, *, check: bool = True) -> ir.Model:
    """The model in ``path``; raises ValueError where it is broken or points to data outside itself.

    ``check=False`` is for files with operators that ONNX does not know, as ONNX Runtime compiles them.
    """
    proto = read_proto(path, check=check)
    try:
        return ir.from_proto(proto)
    except (ValueError, TypeError) as error:
        raise _invalid(path, error) from error


def read_proto(path: Path, *, check: bool = True) -> onnx.ModelProto:
    """The same as onnx has it."""
    try:
        # Without format="protobuf" onnx goes by the suffix, and reads .json and .txt as text.
        proto = onnx.load(path, format="protobuf", load_external_data=False)
        _refuse_bad_tensors(proto)
        if check:
            # Weights were looked at above; the checker would copy them twice.
            onnx.checker.check_model(without_weights(proto))
    except DecodeError as error:
        raise ValueError(f"{path.name} is truncated or no ONNX file at all") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    except (onnx.checker.ValidationError, ValueError, TypeError) as error:
        raise _invalid(path, error) from error
    return proto


def _invalid(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path.name} is not a valid ONNX file: {str(error).strip().splitlines()[0]}")


def _refuse_bad_tensors(proto: onnx.ModelProto) -> None:
    """Raise ValueError where a tensor lies in another file, or where its data and its shape do not fit."""
    for tensor in _tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError(f"it keeps {tensor.name} in another file, and only files that hold all are read")

        # onnx.checker accepts a tensor with more data than its shape has room for; reading the numbers does not.
        try:
            ir.serde.deserialize_tensor(tensor).numpy()
        except (ValueError, TypeError) as error:
            raise ValueError(f"{tensor.name} does not hold what its shape says") from error


def without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``proto`` with its large initialisers as inputs of their types and shapes."""
    light = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name == "graph":
            continue
        if field.message_type is not None:
            getattr(light, field.name).extend(value)
        else:
            setattr(light, field.name, value)

    graph = proto.graph
    light.graph.name = graph.name
    for name in ("node", "output", "value_info", "sparse_initializer", "quantization_annotation"):
        getattr(light.graph, name).extend(getattr(graph, name))
    large = {tensor.name for tensor in graph.initializer if _size(tensor) > SMALL}
    light.graph.input.extend(value for value in graph.input if value.name not in large)
    for tensor in graph.initializer:
        if tensor.name in large:
            declared = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            light.graph.input.append(declared)
        else:
            light.graph.initializer.append(tensor)
    return light


def _size(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims)


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor in ``message``, also those of attributes, subgraphs and functions."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        submessages = [value] if isinstance(value, Message) else value
        for submessage in submessages:
            yield from _tensors(submessage)


def write(model: ir.Model, path: Path) -> None:
    """Sort, check and write ``model`` into one file."""
    model.graph.sort()
    # Deterministic: the same model gives the same bytes, by which a later run knows what it can reuse.
    content = ir.to_proto(model).SerializeToString(deterministic=True)
    onnx.checker.check_model(content, full_check=True)
    path.write_bytes(content)


def initializer_array(value: ir.Value | None) -> NDArray[np.float32] | None:
    """The numbers of the initializer ``value``, as stored; None where the value is computed or missing."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def add_initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """A new initializer ``name`` in ``graph``."""
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value


def drop_unused_initializers(graph: ir.Graph) -> None:
    """Forget initializers that no node reads any more."""
    unused = [name for name, value in graph.initializers.items() if not value.uses()]
    for name in unused:
        del graph.initializers[name]


def drop_unread(graph: ir.Graph) -> None:
    """Forget nodes that nothing reads, and then the initializers that only they read; sorts ``graph``."""
    graph.sort()
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    drop_unused_initializers(graph)


def count(model: ir.Model, *operators: str) -> int:
    """How many nodes of these operators the graph has."""
    return sum(node.op_type in operators for node in model.graph)


def module_of(node: ir.Node | onnx.NodeProto) -> str:
    """The PyTorch module that a node came from: ``/layer1/layer1.0/conv1/Conv`` is ``layer1.0.conv1``."""
    scopes = (node.name or "").strip("/").split("/")[:-1]
    names: list[str] = []
    for scope in scopes:
        # The exporter writes a path of scopes; a scope that repeats its parent's name extends it.
        if names and scope.startswith(names[-1] + "."):
            names[-1] = scope
        else:
            names.append(scope)
    return ".".join(names)


def convolutions(model: ir.Model) -> Iterable[ir.Node]:
    """The Conv nodes, in the order of the graph."""
    return (node for node in model.graph if node.op_type == "Conv")
