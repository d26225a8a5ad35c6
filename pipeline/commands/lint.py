"""``python -m pipeline lint FILE``: the rules of Q/DQ pairs that any ONNX file breaks, each with its module."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest, Exit
from pipeline.targets import table

if TYPE_CHECKING:
    import argparse

HELP = "hold the Q/DQ pairs of an ONNX file against the rules of TensorRT or ONNX Runtime"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("file", type=Path, help="an ONNX file, of whatever origin")
    parser.add_argument("--placement", choices=("tensorrt", "onnxruntime"), default="tensorrt", help="whose rules")
    # A version of TensorRT says the newest opset that it reads.
    reader = parser.add_mutually_exclusive_group()
    reader.add_argument("--opset", type=int, metavar="N", help="the newest opset that is read there")
    reader.add_argument("--tensorrt", metavar="V", help="the TensorRT that reads it, as in 8.6 or 10.3")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 where no rule is broken, 1 where one is."""
    from exporters import lint, onnx_file

    placement, newest_opset = _reader(arguments)
    try:
        findings = lint.lint(onnx_file.read(arguments.file), placement, newest_opset)
    except ValueError as error:
        raise BadRequest(f"lint: {error}") from error
    if arguments.json:
        json.dump([asdict(finding) for finding in findings], sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        for finding in findings:
            sys.stdout.write(f"{finding.rule} {finding.module or 'the graph'}: {finding.sentence}\n")
        sys.stdout.write(f"{arguments.file.name}: {len(findings)} findings by the rules of {placement}\n")
    return Exit.FAIL if findings else Exit.PASS


def _reader(arguments: argparse.Namespace) -> tuple[str, int | None]:
    """Whose rules, and the newest opset that it reads."""
    if arguments.tensorrt is None:
        return arguments.placement, arguments.opset
    if arguments.placement != "tensorrt":
        raise BadRequest(f"lint: --tensorrt does not go with the rules of {arguments.placement}; give one of them")
    row = table.tensorrt(table.version(arguments.tensorrt))
    if row is None:
        raise BadRequest(f"lint: nothing is known of TensorRT {arguments.tensorrt}; give the opset it reads by --opset")
    # With weak typing, that of TensorRT 8, pairs have rules of their own.
    placement = "tensorrt-8" if row["typing"] == "weak" else "tensorrt"
    return placement, row["opset"]
