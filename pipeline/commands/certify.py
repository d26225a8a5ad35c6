"""``python -m pipeline certify BEFORE AFTER``: proof that one ONNX file is the honest successor of another."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest, Exit

if TYPE_CHECKING:
    import argparse

    from exporters.certify import Certificate

HELP = "prove every weight, attribute and edge of one ONNX file from the file before"
SHOWN = 10


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("before", type=Path, help="the ONNX or frozen .safetensors file that is trusted")
    parser.add_argument("after", type=Path, help="the ONNX file that a stage made of it")
    parser.add_argument("--retrained", action="store_true", help="layers may have other weights, as after QAT")
    parser.add_argument("--json", action="store_true", help="print the certificate as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 where everything is proven, 1 where anything is refuted."""
    from pipeline.parity.proof import certify

    try:
        certificate = certify(arguments.before, arguments.after, retrained=arguments.retrained)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if arguments.json:
        json.dump({"proven": certificate.proven, **asdict(certificate)}, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(_lines(certificate)) + "\n")
        if not certificate.proven and arguments.before.suffix == ".safetensors":
            sys.stdout.write("weights are proven in the graph exported from them, other files from the one before\n")
    return Exit.PASS if certificate.proven else Exit.FAIL


def _lines(certificate: Certificate) -> list[str]:
    compared = f"{certificate.constants} constants and {certificate.nodes} nodes compared"
    folds = f"BatchNormalization: {certificate.folded} folded, {len(certificate.left)} left"
    changed = [f"{kind} {a} → {b}" for kind, (a, b) in certificate.operators.items() if a != b]
    operators = [f"operators: {', '.join(changed)}"] * bool(changed)
    moved = [f"{certificate.rescaled} channel spaces rescaled by powers of two"] * (certificate.rescaled > 0)
    others = [f"{certificate.retrained} weights are others, and not proven"] * (certificate.retrained > 0)
    lines = [
        "; ".join([compared, folds, *moved, *others]),
        *operators,
        *(f"left: {module}: {reason}" for module, reason in certificate.left.items()),
    ]
    if certificate.proven:
        return [*lines, f"proven: the largest error is {certificate.largest:.4f} of its bound"]
    lines += [f"{item.module or 'the graph'}: {item.found}" for item in certificate.refuted[:SHOWN]]
    more = len(certificate.refuted) - SHOWN
    return [*lines, *[f"and {more} more"] * (more > 0), f"refuted: {len(certificate.refuted)} differences"]
