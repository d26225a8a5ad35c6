"""The pipeline from Python: ``build(Recipe(arch="resnet18", precision="int8"))``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.recipe import Recipe

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
        from pipeline.finished.finished_build import FinishedBuild

        build = FinishedBuild.of(self.output, self.report)
        return None if build.judged_engine is None else build.path(build.judged_engine)

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
    from pipeline import building
    from pipeline.building import request

    report = building.build(request.order(recipe))
    return Result(report["verdict"], Path(report["recipe"]["output"]), report)
