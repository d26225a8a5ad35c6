"""A finished build in pytest: ``pytest --pipeline-build DIR`` adds one test a stage and check, and three fixtures.

Nothing of the pipeline is imported unless it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.api import Result
    from pipeline.data.images import Images
    from pipeline.finished.check import Checked
    from pipeline.finished.findings import Finding
    from pipeline.parity.answers import Runner

CHECKED: pytest.StashKey[Checked] = pytest.StashKey()


@dataclass(frozen=True)
class Engine:
    """The engine that was judged, at ``path``: called with images (n, C, H, W) float32 0..255 it gives logits."""

    path: Path
    runner: Runner

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, classes) float32."""
        return self.runner.run(images)

    @cached_property
    def images(self) -> Images:
        """Those that judged the build; ``images.labels`` (N,) are what is right."""
        from pipeline.finished.finished_build import FinishedBuild

        return FinishedBuild.open(self.path.parent).test_images()

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """What it answers to all of ``images``, (N, classes) float32."""
        return self.runner.answers(self.images, self.path.name)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The flags."""
    group = parser.getgroup("edge-resnet")
    group.addoption(
        "--pipeline-build",
        type=Path,
        metavar="DIR",
        help="test the build in DIR: one test a stage and check; fixtures build, engine, reference_logits",
    )
    group.addoption(
        "--pipeline-baseline",
        type=Path,
        metavar="DIR",
        help="an earlier build, or its report.json: one test a stage and check that may have got worse",
    )
    group.addoption("--pipeline-max-drift", type=float, metavar="DB", help="as --max-drift of check (default: 3)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Append the checks of the build; before -k and -m choose."""
    directory = config.getoption("pipeline_build")
    baseline = config.getoption("pipeline_baseline")
    drift = config.getoption("pipeline_max_drift")
    if directory is None:
        if baseline is not None or drift is not None:
            raise pytest.UsageError("--pipeline-baseline and --pipeline-max-drift go with --pipeline-build")
        return
    from pipeline.errors import PipelineError
    from pipeline.finished import check

    try:
        checked = check.check(directory, baseline, drift=drift)
    except PipelineError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[CHECKED] = checked
    items += [_Check.of(session, finding) for finding in checked.findings]


class _Check(pytest.Item):
    """One finding as a test: undecided fails, since nothing was shown."""

    def __init__(self, *, finding: Finding, **options: Any) -> None:
        super().__init__(**options)
        self.finding = finding

    @classmethod
    def of(cls, session: pytest.Session, finding: Finding) -> _Check:
        """The test of ``finding``, named by its stage and check."""
        return cls.from_parent(session, name=f"{finding.stage}::{finding.check}", finding=finding)

    def runtest(self) -> None:
        """Hand on the verdict."""
        if self.finding.verdict == "pass":
            return
        if self.finding.verdict == "not_run" or self.finding.beside:
            pytest.skip(self.finding.told)
        pytest.fail(f"{self.finding.rule} {self.finding.verdict}: {self.finding.message}", pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where a reader finds it."""
        return Path(self.finding.file or self.finding.stage), None, self.name


@pytest.fixture(scope="session")
def build(pytestconfig: pytest.Config) -> Result:
    """The build of --pipeline-build, judged anew: verdict, report, ``stage(name)``."""
    from pipeline.api import Result

    checked = pytestconfig.stash.get(CHECKED, None)
    if checked is None:
        raise pytest.UsageError("this test wants a build: give --pipeline-build DIR")
    return Result(checked.report["verdict"], pytestconfig.getoption("pipeline_build"), checked.report)


@pytest.fixture(scope="session")
def engine(build: Result) -> Engine:
    """The engine of the build, loaded here, if it is the one that was judged."""
    from pipeline.errors import PipelineError
    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.parity import answers

    try:
        intact = [path for path, _ in FinishedBuild.open(build.output).engine_files()]
    except PipelineError as error:
        raise pytest.UsageError(str(error)) from error
    if build.engine is None or build.engine not in intact:
        raise pytest.UsageError(f"{build.output} has no engine that was judged")
    return Engine(build.engine, answers.of_file(build.engine))


@pytest.fixture(scope="session")
def reference_logits(build: Result) -> NDArray[np.float32]:
    """What the PyTorch network answered to the images that judged the build, (N, classes) float32."""
    from pipeline.errors import PipelineError
    from pipeline.finished.finished_build import FinishedBuild

    try:
        return FinishedBuild.of(build.output, build.report).saved_answers().reference
    except PipelineError as error:
        raise pytest.UsageError(str(error)) from error
