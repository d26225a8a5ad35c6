"""``python -m pipeline describe DIR``: what an engine is made of after fusion, and what of it runs in 8 bits."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.engines.description import joined
from pipeline.console import news
from pipeline.errors import BadRequest, Exit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from exporters.engines.description import EngineDescription

    Describe = Callable[[], EngineDescription]

HELP = "show an engine's layers after fusion, their types and modules, and what runs in 8 bits"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument(
        "path", type=Path, metavar="DIR | FILE", help="a finished build, or a file compiled to .ort.onnx"
    )
    parser.add_argument("--json", action="store_true", help="print the descriptions as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0: this command shows, it does not judge."""
    descriptions: dict[str, EngineDescription] = {}
    refusals: list[str] = []
    for path, describe in _engines(arguments.path):
        # Some backends do not tell what they made; the others are shown all the same.
        try:
            descriptions[path.name] = describe()
        except ValueError as error:
            refusals.append(str(error))
    if refusals and not descriptions:
        raise BadRequest(f"describe: {'; '.join(refusals)}")
    for refusal in refusals:
        news.say(f"not described: {refusal}")

    if arguments.json:
        rows = [_as_json(name, description) for name, description in descriptions.items()]
        json.dump(rows, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return Exit.PASS
    for name, description in descriptions.items():
        _show(name, description)
    return Exit.PASS


def _engines(path: Path) -> Iterator[tuple[Path, Describe]]:
    """Every engine of a build, or the one file, and what describes it."""
    if path.is_dir():
        yield from _of_build(path)
    else:
        yield path, partial(_of_file, path)


def _of_build(directory: Path) -> Iterator[tuple[Path, Describe]]:
    from exporters import engines
    from pipeline.finished.finished_build import FinishedBuild

    for path, details in FinishedBuild.open(directory).engine_files():
        backend_name = details.get("backend")
        # A recipe is no engine yet.
        if backend_name in engines.RECIPES:
            continue
        if backend_name not in engines.BACKENDS:
            raise BadRequest(f"{path} was built by a version that kept no description; build again")
        yield path, partial(engines.named(backend_name).describe, path, details)


def _of_file(path: Path) -> EngineDescription:
    from exporters import engines

    if path.is_file():
        for name in engines.BACKENDS:
            backend = engines.named(name)
            # A backend may refuse: to open a file of TensorRT is to run what it holds.
            if path.name.endswith(backend.suffix):
                return backend.describe(path)
    raise BadRequest(f"{path} is no directory of a build and no file that ONNX Runtime compiled (.ort.onnx)")


def _as_json(name: str, description: EngineDescription) -> dict[str, Any]:
    remarks = [{"module": module, "sentence": sentence} for module, sentence in description.remarks()]
    return {"file": name, **description.to_json(), "counts": description.counts(), "remarks": remarks}


def _show(name: str, description: EngineDescription) -> None:
    """The table of layers, and the counts and remarks in sentences."""
    from pipeline.console import tables

    console = tables.wide_console()
    rows = []
    for layer in description.layers:
        modules = ", ".join(layer.modules) or layer.name
        rows.append((modules, layer.kind, joined(layer.inputs), joined(layer.outputs)))
    # Every column is of words, and so stands on the left.
    columns = dict.fromkeys(("module", "layer", "reads", "hands on"), False)

    console.print(f"{name}: {description.backend}, from {description.source}")
    console.print(tables.table(columns, rows))
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
    yield f"memory: {_memory(description) or 'not known'}"
    # Where there is no DLA nothing is said of it.
    if description.dla is None:
        yield "layers on a DLA: not known"
    elif description.dla > 0:
        yield f"layers on a DLA: {description.dla}"

    # Each sentence once, with all the modules that it holds for.
    modules_by_sentence: dict[str, list[str]] = {}
    for module, sentence in description.remarks():
        modules_by_sentence.setdefault(sentence, []).append(module)
    for sentence, modules in modules_by_sentence.items():
        yield f"{sentence}: {', '.join(modules)}"


def _memory(description: EngineDescription) -> str:
    """What is known of the memory, in megabytes."""
    known = []
    for name, size in (("weights", description.weights), ("activations", description.activations)):
        if size is not None:
            known.append(f"{name} {size / 1e6:.1f} MB")
    return ", ".join(known)
