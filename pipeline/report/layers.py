"""An engine's own description as a map: one row a block of the network, one cell a layer after fusion."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from exporters.engines.description import from_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporters.engines.description import EngineDescription, Layer

# layer1.0.conv2 is conv2 in the block layer1.0.
BLOCK = re.compile(r"(.+?\.\d+)(?:\.(.+))?")
# What the map calls the types; any other has its own name and the colour of "other".
SHORT = {"int8": "int8", "uint8": "int8", "float8": "fp8", "float16": "fp16", "float32": "fp32"}


def drawn(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The map of the engine whose description ``to_json`` gave; raises ValueError where that is not whole."""
    if "missing" in kept:
        return {"file": kept["file"], "missing": kept["missing"], "memory": {"weights": None, "activations": None}}

    description = from_json({key: value for key, value in kept.items() if key != "file"})
    rows = _rows(description)
    fused_layers = 0
    layers_of_precision: dict[str, int] = {}
    for _, cells in rows:
        for cell in cells:
            fused_layers += cell["fused"]
            # A reformat moves values from one type to another and computes nothing.
            if not cell["reformat"]:
                precision_name = cell["precision"]
                layers_of_precision[precision_name] = layers_of_precision.get(precision_name, 0) + 1
    return {
        "file": kept["file"],
        "missing": None,
        "source": description.source,
        "counts": description.counts(),
        "left_out": description.left_out,
        "memory": {"weights": description.weights, "activations": description.activations},
        "rows": rows,
        "fused": fused_layers,
        "kinds": layers_of_precision,
    }


def _rows(description: EngineDescription) -> list[tuple[str, list[dict[str, Any]]]]:
    """The cells of each block, in the order in which the engine comes to the blocks.

    An engine does not run a block in one piece: a layer of a block that has a row goes there. What belongs to no block
    (the stem, a reformat) has no name to find it by, and goes to the row before where that is of no block either.
    """
    rows: list[tuple[str, list[dict[str, Any]]]] = []
    cells_of_block: dict[str, list[dict[str, Any]]] = {}
    block_of_last_row = None
    for block, cell in _cells(description):
        if block and block in cells_of_block:
            cells_of_block[block].append(cell)
            continue
        if block == block_of_last_row:
            rows[-1][1].append(cell)
            continue
        cells = [cell]
        rows.append((block, cells))
        cells_of_block[block] = cells
        block_of_last_row = block
    return rows


def _cells(description: EngineDescription) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each layer of the engine and the name of its block; the name is empty where it is of none."""
    adds_in_convolutions = {operation.module for operation in description.adds if operation.fused}
    for layer in description.layers:
        # A layer of several modules stands where its first one does.
        module = layer.modules[0] if layer.modules else layer.name
        match = BLOCK.fullmatch(module)
        if match is None:
            block = ""
            leaf = module
        else:
            block = match[1]
            leaf = match[2] or ""
        has_company = len(layer.modules) > 1 or layer.kind.startswith("Fused") or module in adds_in_convolutions
        cell = {
            "name": leaf or layer.kind,
            "module": ", ".join(layer.modules) or layer.name,
            "kind": layer.kind,
            "fused": has_company and not layer.reformat,
            "reformat": layer.reformat,
            **precision(layer),
        }
        yield block, cell


def precision(layer: Layer) -> dict[str, str]:
    """``precision`` of a layer in a word, ``mixed`` where it reads or hands on several; which, in ``types``."""
    names = {_short_name(type_name) for type_name in (*layer.inputs, *layer.outputs)}
    word = "other"
    if len(names) > 1:
        word = "mixed"
    elif names <= set(SHORT.values()):
        word = next(iter(names), "other")

    inputs = _short_names(layer.inputs)
    outputs = _short_names(layer.outputs)
    types = inputs if inputs == outputs else f"{inputs} → {outputs}"
    return {"precision": word, "types": types}


def _short_name(type_name: str) -> str:
    return SHORT.get(type_name, type_name)


def _short_names(type_names: tuple[str, ...]) -> str:
    """Each type once, in its order; a dash where none is known."""
    names = dict.fromkeys(_short_name(type_name) for type_name in type_names)
    return " + ".join(names) or "–"
