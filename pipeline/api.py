"""The pipeline from Python: ``build(Recipe(arch="resnet18", precision="int8"))``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import PipelineError, StageFailed
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.building.run import Build
    from pipeline.stage import Stage, StageRow

__all__ = ["Recipe", "Result", "build"]


@dataclass(frozen=True)
class Result:
    """A finished build; ``report`` is report.json as docs/report.md has it."""

    verdict: Literal["pass", "fail", "undecided"]
    output: Path
    report: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether every stage passed."""
        return self.verdict == "pass"

    @property
    def engine(self) -> Path | None:
        """The engine that was judged; None where none was, or the build ended before."""
        rows = (row for row in self.report["stages"] if row["name"].startswith("engine") and row["accuracy"])
        return next((self.output / Path(row["file"]).name for row in rows), None)

    def _repr_html_(self) -> str:
        """The report in a notebook, in a frame of its own that may run and load nothing."""
        import html

        from pipeline.report import page

        inside = html.escape(page.html(self.output))
        return (
            f'<iframe title="report" sandbox="" srcdoc="{inside}" width="100%" height="720" frameborder="0"></iframe>'
        )

    def stage(self, name: str) -> dict[str, Any]:
        """The row of one stage; raises KeyError where there is none of that name."""
        return dict({row["name"]: row for row in self.report["stages"]}[name])


def build(recipe: Recipe) -> Result:
    """Do what ``python -m pipeline build`` does; a verdict that is no pass is a result and no error.

    Raises BadRequest where the recipe cannot be had here, StageFailed where a stage cannot make its file: both are
    PipelineError of pipeline.errors.
    """
    from pipeline import workspace
    from pipeline.building import plan
    from pipeline.building.request import accept
    from pipeline.building.run import Build
    from pipeline.console import news
    from pipeline.models import weights
    from pipeline.parity import answers
    from pipeline.report import ledger, page

    request = accept(recipe)
    recipe, description, output = request.recipe, request.description, request.output
    with workspace.directory(output) as unfinished:
        network, origin = request.given or weights.trained(recipe, description, request.train, request.epochs)
        news.say(f"{origin}; --weights takes a file of your own")
        for name in ("report.json", page.FILE):  # evidence.json says itself of which report it is
            (output / name).unlink(missing_ok=True)
        sources = {"data": request.source, "weights": origin}
        images = {"calibration": request.calibration.digest, "test": request.test.digest}
        report = ledger.header(recipe, output, description, sources, images)
        stages = plan.planned(recipe, network, description, request.calibration, request.train)
        reference = answers.of_network(network).answers(request.test, "answers of the network")
        report = _judged(report, stages, Build(request.test, reference, output, unfinished))
    return Result(report["verdict"], Path(report["recipe"]["output"]), report)


def _judged(report: dict[str, Any], stages: list[Stage], build: Build) -> dict[str, Any]:
    """Run every stage; the report and the answers are written even where a stage failed."""
    import safetensors.numpy

    from pipeline import workspace
    from pipeline.console import news
    from pipeline.data import conformance
    from pipeline.finished.benchmark import beside_float
    from pipeline.report import evidence, ledger, page

    rows: list[StageRow] = []
    failure = None
    try:
        for row in build.run(stages):
            rows.append(row)
            news.say(ledger.line(row))
    except PipelineError as error:
        failure = error
    workspace.forget_others(build.output, {path.name for path in build.files.values()})
    kept = safetensors.numpy.save({"labels": build.images.labels, "reference": build.reference, **build.kept()})
    report["speed"] = beside_float(rows, build.files, build.images) if failure is None else None
    report |= ledger.ledger(rows, stages, failure) | {"answers": hashlib.sha256(kept).hexdigest()}
    try:
        report["conformance"] = conformance.write(build.images, build.output, build.unfinished)
        workspace.write_bytes(build.output / "answers.safetensors", kept, build.unfinished)
        workspace.write_json(build.output / "report.json", report, build.unfinished)
        evidence.write(build, report)
        workspace.write_bytes(build.output / page.FILE, page.html(build.output).encode(), build.unfinished)
        news.say(f"the same as a page: {build.output / page.FILE}")
    except (OSError, PipelineError) as error:
        raise failure or StageFailed(
            f"-o {build.output}: no report could be written: {workspace.explain(error)}"
        ) from error
    if failure is not None:
        raise failure
    return report
