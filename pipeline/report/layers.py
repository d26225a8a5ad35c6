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
SHORT = {"int8": "int8", "uint8": "int8", "float8": "fp8", "float16": "fp16", "float32": "fp32"}


def drawn(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The map of the engine whose description ``to_json`` gave; raises ValueError where that is not whole."""
    if "missing" in kept:
        return {"file": kept["file"], "missing": kept["missing"], "memory": {"weights": None, "activations": None}}
    file, found = kept["file"], from_json({key: value for key, value in kept.items() if key != "file"})
    rows: list[tuple[str, list[dict[str, Any]]]] = []
    known: dict[str, list[dict[str, Any]]] = {}
    for block, cell in _cells(found):
        if block and block in known:
            known[block].append(cell)
        elif rows and rows[-1][0] == block:
            rows[-1][1].append(cell)
        else:
            rows.append((block, [cell]))
            known[block] = rows[-1][1]
    kinds = [cell["precision"] for _, cells in rows for cell in cells if not cell["reformat"]]
    return {
        "file": file,
        "missing": None,
        "source": found.source,
        "counts": found.counts(),
        "left_out": found.left_out,
        "memory": {"weights": found.weights, "activations": found.activations},
        "rows": rows,
        "fused": sum(cell["fused"] for _, cells in rows for cell in cells),
        "kinds": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
    }


def _cells(found: EngineDescription) -> Iterator[tuple[str, dict[str, Any]]]:
    merged = {each.module for each in found.adds if each.fused}
    for layer in found.layers:
        module = layer.modules[0] if layer.modules else layer.name
        match = BLOCK.fullmatch(module)
        block, leaf = (match[1], match[2] or "") if match else ("", module)
        others = len(layer.modules) > 1 or layer.kind.startswith("Fused") or module in merged
        yield (
            block,
            {
                "name": leaf or layer.kind,
                "module": ", ".join(layer.modules) or layer.name,
                "kind": layer.kind,
                "fused": others and not layer.reformat,
                "reformat": layer.reformat,
                **precision(layer),
            },
        )


def precision(layer: Layer) -> dict[str, str]:
    """``precision`` of a layer in a word, ``mixed`` where it reads or hands on several; which, in ``types``."""
    read, made = (_short(types) for types in (layer.inputs, layer.outputs))
    kinds = {SHORT.get(each, each) for each in (*layer.inputs, *layer.outputs)}
    word = "mixed" if len(kinds) > 1 else next(iter(kinds & {*SHORT.values()}), "other")
    return {"precision": word, "types": read if read == made else f"{read} → {made}"}


def _short(types: tuple[str, ...]) -> str:
    return " + ".join(dict.fromkeys(SHORT.get(each, each) for each in types)) or "–"
