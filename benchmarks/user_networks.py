"""Networks as people build them, from training on the digits to the verdict, in two precisions.

    python -m benchmarks.user_networks [NAME …] [--precision int8 int8-fp16] [--engine onnxruntime] [--epochs 16]

The networks are those of tests/pipeline/models/user_networks.py. Prints a Markdown table, one row a network: whether
every file was proven and the verdict on its answers, what was refuted, or the sentence with which it was refused
before any work; and how many there are of each.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import Recipe, build
from pipeline.errors import BadRequest, PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORKS = Path(__file__).parent.parent / "tests" / "pipeline" / "models"


def main() -> None:
    sys.path.insert(0, str(NETWORKS))
    listed: list[str] = list(importlib.import_module("user_networks").NETWORKS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=listed, metavar="NAME")
    parser.add_argument("--precision", nargs="+", default=["int8", "int8-fp16"])
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--epochs", type=int, default=16)
    arguments = parser.parse_args()

    # What is imported by now is no garbage, which reading a model collects each time.
    gc.freeze()
    print("| network | " + " | ".join(arguments.precision) + " | seconds |")
    print("|---|" + "---|" * (len(arguments.precision) + 1), flush=True)
    counts: Counter[str] = Counter()
    for name in arguments.names:
        started = time.perf_counter()
        outcomes = [outcome(name, precision, arguments.engine, arguments.epochs) for precision in arguments.precision]
        counts.update(text.partition(":")[0] for text in outcomes)
        seconds = time.perf_counter() - started
        print(f"| {name} | " + " | ".join(outcomes) + f" | {seconds:.0f} |", flush=True)
    print("\n" + ", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items())))


def outcome(name: str, precision: str, engine: str, epochs: int) -> str:
    """How the build of one network ended, in one line."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        recipe = Recipe(
            arch=f"user_networks:{name}",
            precision=precision,
            engine=engine,
            epochs=epochs,
            beside="none",
            output=Path(folder),
        )
        try:
            result = build(recipe)
        except BadRequest as error:
            return f"refused: {line(error)}"
        except (PipelineError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            return f"ERROR: {type(error).__name__}: {line(error)}"
    rows = result.report["stages"]
    refuted = [f"{row['name']}: {'; '.join(row['refuted'])}" for row in rows if row["refuted"]]
    if refuted:
        return f"REFUTED: {line(' / '.join(refuted))}"
    reasons = [f"{row['name']}: {'; '.join(row['reasons'])}" for row in rows if row["reasons"]]
    return ": ".join(filter(None, [f"proven, {result.verdict}", line(" / ".join(reasons))]))


def line(text: object) -> str:
    """``text`` as a cell of a table."""
    return " ".join(str(text).split()).replace("|", "/")[:400]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing from the build or from what it runs, in this process or another."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


if __name__ == "__main__":
    main()
