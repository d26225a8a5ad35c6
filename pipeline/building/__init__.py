"""A build under way. Read this page first.

A build has four parts, each a module beside this one:

1. ``request``: what was asked for, with all that its target decides. What can be refused is refused here, before any
   work. ``backends`` chooses what makes the engines.
2. ``plan``: the stages in order, with their bounds. Each is a plain function from a file to a file (``stages``).
3. ``run``: makes or reuses each file, loads what was written afresh, and judges it (``pipeline.parity``).
4. ``results``: the answers, report.json, and the page for people (``pipeline.report``).

INT8 has more to it: ``calibrate`` (ranges and Q/DQ pairs), ``calibration_statistics`` (one pass over the images, which
goes on after a kill), ``recover`` (layers back in float).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.building.request import Request


def build(request: Request) -> dict[str, Any]:
    """Build what ``request`` asks for; report.json as a dict.

    A verdict that is no pass is no error. Raises StageFailed where a stage cannot make its file; the report and the
    answers are written even then.
    """
    from pipeline import workspace
    from pipeline.building import plan, results
    from pipeline.building.run import Build
    from pipeline.console import news
    from pipeline.models import weights
    from pipeline.parity import answers

    recipe = request.recipe
    description = request.description
    with workspace.directory(request.output) as unfinished:
        network, origin = request.given or weights.trained(recipe, description, request.train, request.epochs)
        news.say(f"{origin}; --weights takes a file of your own")
        results.forget(request.output)
        stages = plan.planned(recipe, network, description, request.calibration, request.train)
        # The network in memory is what every file is held against.
        reference = answers.of_network(network).answers(request.test, "answers of the network")
        under_way = Build(request.test, request.test_set(reference), recipe.precision, request.output, unfinished)
        rows, failure = results.judged(under_way, stages)
        return results.write(request, origin, under_way, stages, rows, failure)
