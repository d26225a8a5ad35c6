"""Frozen weights and the graph exported from them: the same bits, each read by the module of its name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from exporters import onnx_file
from exporters.certify import Certificate, Refutation
from exporters.constant import evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.constant import Constant

# What each operator reads behind its first input, in PyTorch's words.
READ = {
    "Conv": ("weight", "bias"),
    "Gemm": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
}
# What normalises the pixels, in no module of its own.
PIXELS = {"Sub": ("pixel_mean",), "Div": ("pixel_std",)}


def certify_weights(before: Path, after: Path) -> Certificate:
    """Compare every tensor of ``before`` (.safetensors) bit by bit with what the node of its module reads in ``after``.

    What the graph does with them no weight can tell: that is judged by its answers. Raises ValueError where a file
    cannot be read.
    """
    weights = _read(before)
    graph = onnx_file.read(after).graph
    certificate = Certificate(constants=len(weights), nodes=sum(1 for _ in graph))
    # Not by the names of initializers: the exporter writes tensors with the same values once.
    found = dict(_told(graph))
    # What other operators read is known by its name alone.
    found.update({name: held.array for name, held in _named(graph, weights.keys() - found.keys())})
    for name in sorted(weights.keys() | found.keys()):
        if name not in found:
            said = f"no node reads {name}"
        elif name not in weights:
            said = f"the graph holds {name}, which is not among the weights"
        else:
            said = _different(name, weights[name], found[name])
        if said:
            certificate.refuted.append(Refutation(name.rpartition(".")[0], said))
    return certificate


def _told(graph: ir.Graph) -> Iterator[tuple[str, NDArray[np.float32] | None]]:
    """What each layer of ``graph`` reads, under the name that PyTorch gives it; None where it is computed."""
    for node in graph:
        module = onnx_file.module_of(node)
        for name, value in zip((READ if module else PIXELS).get(node.op_type, ()), node.inputs[1:], strict=False):
            held = evaluate_constant(value)
            yield f"{module}.{name}".lstrip("."), None if held is None else held.array


def _named(graph: ir.Graph, names: Collection[str]) -> Iterator[tuple[str, Constant]]:
    """The constants of ``graph`` that have these names and are read."""
    for value in (*graph.initializers.values(), *(node.outputs[0] for node in graph if node.op_type == "Identity")):
        if value.name in names and value.uses() and (held := evaluate_constant(value)) is not None:
            yield str(value.name), held


def _read(path: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors, and the pixel statistics that the record beside them gives."""
    import safetensors
    import safetensors.numpy

    try:
        weights: dict[str, NDArray[np.float32]] = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "np") as file:
            said = (file.metadata() or {}).get("network")
        record = json.loads(said)["preprocessing"] if said else {}
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path.name} cannot be read as safetensors of this project ({error})") from error
    weights = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    for name in ("mean", "std"):
        if name in record:
            values = np.float32(255) * np.array(record[name], np.float32)
            weights[f"pixel_{name}"] = values.reshape(1, -1, 1, 1)
    return weights


def _different(name: str, expected: NDArray[np.float32], found: NDArray[np.float32] | None) -> str:
    """The first difference, in words; empty where every bit is the same."""
    if found is None or found.dtype != expected.dtype or found.shape != expected.shape:
        shape = "computed" if found is None else f"{found.dtype} {found.shape}"
        return f"{name} is {shape}, it was {expected.dtype} {expected.shape}"
    wrong = np.flatnonzero(found.ravel().view(np.uint32) != expected.ravel().view(np.uint32))
    if not wrong.size:
        return ""
    place = [int(index) for index in np.unravel_index(int(wrong[0]), expected.shape)]
    return f"{name}{place} is {found[tuple(place)]:.9g}, it was {expected[tuple(place)]:.9g}"
