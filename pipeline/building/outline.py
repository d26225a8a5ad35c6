"""What a build would do, for --dry-run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.building.request import Request


def outline(request: Request) -> Iterator[str]:
    """What the build would do, line by line; nothing is trained or written."""
    from pipeline.building import look, plan
    from pipeline.rows import file_name

    if request.given is not None:
        network, origin = request.given
    else:
        network = request.description.network()
        origin = f"weights trained here, {request.epochs} epochs, or kept of an earlier run"
    yield f"{request.description.arch} in {request.recipe.precision}; {origin}"
    yield f"{len(request.calibration)} images calibrate, {len(request.test)} judge: {request.source}"
    foreseen = look.foreseen(request)
    if foreseen is not None:
        yield foreseen

    stages = plan.planned(request.recipe, network, request.description, request.calibration, request.train)
    for number, stage in enumerate(stages, start=1):
        line = file_name(number, stage.name, stage.suffix)
        if "backend" in stage.parameters:
            line += f" by {stage.parameters['backend']}"
        if not stage.runs_here:
            line += ", not run here"
        yield line
    yield f"all in {request.output}; nothing was done"
