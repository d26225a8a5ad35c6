"""``python -m pipeline describe DIR``: what an engine is made of after fusion, and what of it runs in 8 bits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.engines.description import joined
from pipeline.errors import BadRequest, Exit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from exporters.engines.description import EngineDescription

HELP = "show an engine's layers after fusion, their types and modules, and what runs in 8 bits"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument(
        "path", type=Path, metavar="DIR | FILE", help="a finished build, or a file compiled to .ort.onnx"
    )
    parser.add_argument("--json", action="store_true", help="print the descriptions as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0: this command shows, it does not judge."""
    try:
        found = dict(_described(arguments.path))
    except ValueError as error:
        raise BadRequest(f"describe: {error}") from error
    if arguments.json:
        json.dump([_as_json(name, each) for name, each in found.items()], sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        for name, description in found.items():
            _show(name, description)
    return Exit.PASS


def _described(path: Path) -> Iterator[tuple[str, EngineDescription]]:
    from pipeline.building import engines
    from pipeline.finished.finished_build import FinishedBuild

    if path.is_dir():
        for file, details in FinishedBuild.open(path).engine_files():
            if details.get("backend") == "device":
                continue
            if details.get("backend") not in engines.BACKENDS:
                raise BadRequest(f"{file} was built by a version that kept no description; build again")
            yield file.name, engines.module(details["backend"]).describe(file, details)
        return
    found = [name for name in engines.BACKENDS if path.name.endswith(engines.module(name).SUFFIX)]
    if not path.is_file() or not found:
        raise BadRequest(f"{path} is no directory of a build and no file that ONNX Runtime compiled (.ort.onnx)")
    yield path.name, engines.module(found[0]).describe(path)


def _as_json(name: str, description: EngineDescription) -> dict[str, Any]:
    remarks = [{"module": module, "sentence": sentence} for module, sentence in description.remarks()]
    return {"file": name, **description.to_json(), "counts": description.counts(), "remarks": remarks}


def _show(name: str, description: EngineDescription) -> None:
    """The table of layers, and the counts and remarks in sentences."""
    from pipeline.console import tables

    console = tables.wide_console()
    rows = (
        (", ".join(layer.modules) or layer.name, layer.kind, joined(layer.inputs), joined(layer.outputs))
        for layer in description.layers
    )
    console.print(f"{name}: {description.backend}, from {description.source}")
    console.print(tables.table(dict.fromkeys(("module", "layer", "reads", "hands on"), False), rows))
    for line in lines(description):
        console.print(line)


def lines(description: EngineDescription) -> Iterator[str]:
    """The counts, and what is not in 8 bits by module."""
    counts = description.counts()
    if description.left_out:
        yield f"and {description.left_out} more layers"
    yield f"layers after fusion: {counts['layers']}, of them reformats: {counts['reformats']}"
    yield (
        f"convolutions: {counts['convolutions']}, reading 8 bits: {counts['convolutions_that_read_8_bits']}, "
        f"in 8 bits throughout: {counts['convolutions_in_8_bits']}"
    )
    yield (
        f"residual Adds: {counts['adds']}, in the layer of a convolution: {counts['adds_fused']}, "
        f"in 8 bits throughout: {counts['adds_in_8_bits']}"
    )
    sizes = {"weights": description.weights, "activations": description.activations}
    memory = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items() if size is not None)
    yield f"memory: {memory or 'not known'}"
    if description.dla != 0:
        yield f"layers on a DLA: {'not known' if description.dla is None else description.dla}"
    modules: dict[str, list[str]] = {}
    for module, sentence in description.remarks():
        modules.setdefault(sentence, []).append(module)
    for sentence, named in modules.items():
        yield f"{sentence}: {', '.join(named)}"
