"""``python -m pipeline build``: from a network and images to a judged engine, and a report of all of it."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.ranges import METHODS
from pipeline import config, workspace
from pipeline import order as orders
from pipeline import recipe as recipes
from pipeline.data import conformance
from pipeline.engines import BACKENDS
from pipeline.errors import Exit, PipelineError, StageFailed
from pipeline.parity import answers
from pipeline.plan import FALLBACKS, PRECISIONS
from pipeline.run import Build

if TYPE_CHECKING:
    import argparse

    from pipeline.recipe import Recipe
    from pipeline.stage import Row, Stage

HELP = "train or load a network and take it to a judged engine"
EXAMPLES = """examples:
  python -m pipeline build --arch resnext50 --precision int8
  python -m pipeline build --arch resnet50 --weights resnet50.pth --data images/ --precision int8 --target cpu
  python -m pipeline build --arch resnet50 --precision int8 --target jetson-orin-nx@jp6.2 --dry-run
  python -m pipeline build --config pipeline.toml --max-drop 0.005
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    tables = {
        "precision": PRECISIONS,
        "engine": ("auto", *BACKENDS),
        "calib_method": ("auto", *METHODS),
        "allow_fallback": FALLBACKS,
    }
    recipes.add_flags(parser, tables)
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with these flags; others override it")
    parser.add_argument("--save-config", type=Path, metavar="FILE", help="write what was asked for, for --config")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of the table")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, after all that can be refused")


def run(arguments: argparse.Namespace) -> int:
    """Build, print, and answer with the exit code of the verdict."""
    from pipeline.report import terminal

    recipe = recipes.from_arguments(arguments)
    if arguments.save_config is not None:
        config.refuse_to_save(arguments.save_config)
        config.save(arguments.save_config, {name: getattr(arguments, name) for name in recipes.NAMES})
    if arguments.dry_run:
        sys.stdout.write("\n".join(orders.outline(orders.order(recipe))) + "\n")
        return Exit.PASS
    return terminal.deliver(build(recipe), as_json=arguments.json)


def build(asked: Recipe) -> dict[str, Any]:
    """The report of a whole build; everything it made is in the recipe's output directory."""
    from pipeline import plan
    from pipeline.models import weights
    from pipeline.report import record, terminal

    order = orders.order(asked)
    recipe, description, output = order.recipe, order.description, order.output
    with workspace.directory(output) as unfinished:
        network, origin = order.given or weights.trained(recipe, description, order.train, order.epochs)
        terminal.say(f"{origin}; --weights takes a file of your own")
        (output / "report.json").unlink(missing_ok=True)
        sources = {"data": order.source, "weights": origin}
        images = {"calibration": order.calibration.digest, "test": order.test.digest}
        report = record.header(recipe, output, description, sources, images)
        stages = plan.stages(recipe, network, description, order.calibration, order.train)
        reference = answers.of_network(network).answers(order.test, "answers of the network")
        return _judged(report, stages, Build(order.test, reference, output, unfinished))


def _judged(report: dict[str, Any], stages: list[Stage], build: Build) -> dict[str, Any]:
    """Run every stage; the report and the answers are written even where a stage failed."""
    import safetensors.numpy

    from pipeline.bench import beside_float
    from pipeline.report import record, terminal

    rows: list[Row] = []
    failure = None
    try:
        for row in build.run(stages):
            rows.append(row)
            terminal.say(record.line(row))
    except PipelineError as error:
        failure = error
    workspace.forget_others(build.output, {path.name for path in build.files.values()})
    kept = safetensors.numpy.save({"labels": build.images.labels, "reference": build.reference, **build.kept()})
    report["speed"] = beside_float(rows, build.files, build.images) if failure is None else None
    report |= record.ledger(rows, stages, failure) | {"answers": hashlib.sha256(kept).hexdigest()}
    try:
        report["conformance"] = conformance.write(build.images, build.output, build.unfinished)
        workspace.write_bytes(build.output / "answers.safetensors", kept, build.unfinished)
        workspace.write_json(build.output / "report.json", report, build.unfinished)
    except OSError as error:
        raise failure or StageFailed(
            f"-o {build.output}: no report could be written: {workspace.explain(error)}"
        ) from error
    if failure is not None:
        raise failure
    return report
