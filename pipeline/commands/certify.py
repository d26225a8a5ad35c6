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
# Differences that a person is shown; --json has them all.
SHOWN = 10


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("before", type=Path, help="the ONNX or frozen .safetensors file that is trusted")
    parser.add_argument("after", type=Path, help="the ONNX file that a stage made of it")
    parser.add_argument(
        "--as",
        dest="stage",
        metavar="STAGE",
        help="what made it: simplify, fold_batchnorm, int8, …; several with commas; default: what the two files show",
    )
    parser.add_argument("--retrained", action="store_true", help="layers may have other weights, as after QAT")
    parser.add_argument("--json", action="store_true", help="print the certificate as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 where everything is proven, 1 where anything is refuted."""
    from pipeline.parity.proof import certify

    try:
        certificate = certify(arguments.before, arguments.after, stage=arguments.stage, retrained=arguments.retrained)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if arguments.json:
        content = {"proven": certificate.proven, **asdict(certificate)}
        json.dump(content, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(_lines(certificate)) + "\n")
        if not certificate.proven and arguments.before.suffix == ".safetensors":
            sys.stdout.write("weights are proven in the graph exported from them, other files from the one before\n")
    return Exit.PASS if certificate.proven else Exit.FAIL


def _lines(certificate: Certificate) -> list[str]:
    """What was compared, what changed, and what is proven of it."""
    compared = [
        f"{certificate.constants} constants and {certificate.nodes} nodes compared",
        f"BatchNormalization: {certificate.folded} folded, {len(certificate.left)} left",
    ]
    if certificate.rescaled > 0:
        compared.append(f"{certificate.rescaled} channel spaces rescaled by powers of two")
    if certificate.retrained > 0:
        compared.append(f"{certificate.retrained} weights are others, and not proven")
    lines = ["; ".join(compared)]

    changed_operators = []
    for kind, (before, after) in certificate.operators.items():
        if before != after:
            changed_operators.append(f"{kind} {before} → {after}")
    if changed_operators:
        lines.append(f"operators: {', '.join(changed_operators)}")
    for module, reason in certificate.left.items():
        lines.append(f"left: {module}: {reason}")

    lines += [f"noted: {difference}" for difference in certificate.metadata]

    as_stage = f" as {certificate.stage}" if certificate.stage else ""
    if certificate.proven:
        lines.append(f"proven{as_stage}: the largest error is {certificate.largest:.4f} of its bound")
        return lines
    lines += [f"{difference.module or 'the graph'}: {difference.found}" for difference in certificate.refuted[:SHOWN]]
    not_shown = len(certificate.refuted) - SHOWN
    if not_shown > 0:
        lines.append(f"and {not_shown} more")
    lines.append(f"refuted{as_stage}: {len(certificate.refuted)} differences")
    return lines
