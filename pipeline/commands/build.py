"""``python -m pipeline build``: from a network and images to a judged engine, and a report of all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.ranges import METHODS
from pipeline import recipe as recipes
from pipeline import workspace
from pipeline.data import choice, conformance
from pipeline.engines import BACKENDS
from pipeline.errors import PipelineError, StageFailed
from pipeline.parity import answers
from pipeline.plan import FALLBACKS, PRECISIONS
from pipeline.run import Build

if TYPE_CHECKING:
    import argparse

    from pipeline.recipe import Recipe
    from pipeline.stage import Row, Stage

HELP = "train or load a network and take it to a judged engine"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    tables = {
        "precision": PRECISIONS,
        "engine": ("auto", *BACKENDS),
        "calib_method": ("auto", *METHODS),
        "allow_fallback": FALLBACKS,
    }
    recipes.add_flags(parser, tables)
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of the table")


def run(arguments: argparse.Namespace) -> int:
    """Build, print, and answer with the exit code of the verdict."""
    from pipeline.report import terminal

    return terminal.deliver(build(recipes.from_arguments(arguments)), as_json=arguments.json)


def build(recipe: Recipe) -> dict[str, Any]:
    """The report of a whole build; everything it made is in the recipe's output directory."""
    from pipeline import engines, plan
    from pipeline.data import sets
    from pipeline.data.images import Images
    from pipeline.models import frozen, specs, weights
    from pipeline.report import record, terminal

    arch = specs.find(recipe.arch)
    engines.refuse(recipe)
    data = sets.load(recipe)
    preprocessing = data.preprocessing.adjusted(recipe)
    description = frozen.describe(arch, specs.ARCHITECTURES[arch], data.classes, preprocessing)
    given = weights.given(recipe, description)
    calibration, test = choice.calibration(recipe, data, preprocessing), choice.test(recipe, data, preprocessing)
    terminal.say(f"data: {data.source}; --data takes a folder of your own")
    output = recipe.output or Path("build", f"{recipe.arch}-{recipe.precision}")
    with workspace.directory(output) as unfinished:
        train = Images(data.train, preprocessing)
        network, origin = given or weights.trained(recipe, description, train, recipe.epochs or data.epochs)
        terminal.say(f"{origin}; --weights takes a file of your own")
        (output / "report.json").unlink(missing_ok=True)
        sources = {"data": data.source, "weights": origin}
        images = {"calibration": calibration.digest, "test": test.digest}
        report = record.header(recipe, output, description, sources, images)
        stages = plan.stages(recipe, network, description, calibration, train)
        reference = answers.of_network(network).answers(test, "answers of the network")
        return _judged(report, stages, Build(test, reference, output, unfinished))


def _judged(report: dict[str, Any], stages: list[Stage], build: Build) -> dict[str, Any]:
    """Run every stage; the report and the answers are written even where a stage failed."""
    import safetensors.numpy

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
    top1 = {f"top1.{name}": answered for name, answered in build.top1.items()}
    kept = safetensors.numpy.save({"labels": build.images.labels, "reference": build.reference, **top1})
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
