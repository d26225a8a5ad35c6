"""report.html: one file that asks nothing of a network, made of what the directory of a build holds."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pipeline import workspace
from pipeline.errors import EXITS, BadRequest
from pipeline.finished import json_records, report_json
from pipeline.finished.benchmark import Benchmark
from pipeline.finished.finished_build import FinishedBuild
from pipeline.recipe import Recipe, flag
from pipeline.report import changes, evidence, figures, hidden, layers, subsets, terminal
from pipeline.report.render import refusing, rendered

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.report.changes import BeforeAndAfter, Changes
    from pipeline.report.evidence import Depth, DepthStep, Flip
    from pipeline.report.subsets import FamilyChart
    from pipeline.stage import StageRow

FILE = report_json.PAGE
# Histograms that are shown at once; the others open on request.
FIRST = 12
# What the command always says; the defaults of other flags may depend on it.
NAMED = ("arch", "precision", "target")


@dataclass(frozen=True)
class UnfinishedPage:
    """What is shown of a build that was killed, or still runs: the ``notes`` of the stages that made a file."""

    name: str
    title: str
    notes: list[dict[str, Any]]


@dataclass(frozen=True)
class RangeChart:
    """A calibrated tensor: the largest magnitude ``seen``, where its range ends, and the share that lies beyond.

    ``drawn`` is its histogram, where the report has one.
    """

    tensor: str
    seen: float
    amax: float
    clipped: float
    drawn: dict[str, Any] | None


@dataclass(frozen=True)
class DepthChart:
    """The drift of the file ``bad`` next to ``good`` along its depth, with the noisiest of its layers."""

    good: str
    bad: str
    images: int
    steps: list[DepthStep]
    chart: dict[str, Any]
    worst: DepthStep | None


@dataclass(frozen=True)
class HistoryChart:
    """The lines ``names`` of a training over ``count`` epochs."""

    title: str
    names: list[str]
    count: int
    chart: dict[str, Any]


@dataclass(frozen=True)
class BenchTable:
    """The timings of ``bench``; ``shares`` are the medians per image, in percent of the longest."""

    figures: Benchmark
    shares: list[float]


@dataclass(frozen=True)
class BuildPage:
    """All that a template shows of the ``finished`` build.

    ``intervals`` and ``sizes`` are places in charts, by the name of the stage. Where a part is None or empty, the
    sentence for it is in ``depth_missing`` and ``history_missing``, or in ``evidence_missing`` for all that
    evidence.json would hold.
    """

    finished: FinishedBuild
    word: str
    shipped: StageRow | None
    intervals: dict[str, dict[str, float]]
    reach: float
    sizes: dict[str, float]
    speed: str | None
    look: str | None
    families: list[FamilyChart]
    beside: list[str]
    answers: BeforeAndAfter | None
    changes: Changes | None
    ranges: list[RangeChart]
    first_ranges: int
    depth: DepthChart | None
    depth_missing: str | None
    flips: list[Flip]
    engines: list[dict[str, Any]]
    history: list[HistoryChart]
    history_missing: str | None
    bench: BenchTable | None
    evidence_missing: str | None
    command: str

    @property
    def name(self) -> str:
        """Where it is."""
        return str(self.finished.directory)

    @property
    def title(self) -> str:
        """What it is."""
        return f"{self.finished.arch} in {self.finished.precision}"

    @property
    def warnings(self) -> list[str]:
        """What does not decide, and should be looked at."""
        return list(self.finished.report.get("warnings") or ())

    def is_beside(self, row: StageRow) -> bool:
        """Whether ``row`` leads to no engine that is asked for, and so decides nothing."""
        return row.stands_beside(self.finished.precision)


def html(directory: Path) -> str:
    """The report of ``directory``, finished or not; raises BadRequest where it holds no build, or a damaged one."""
    with refusing(directory):
        page = gathered(directory)
        template = "report.html" if isinstance(page, BuildPage) else "unfinished.html"
        return rendered(template, build=page)


def gathered(directory: Path) -> BuildPage | UnfinishedPage:
    """All that a template shows of the build in ``directory``."""
    path = directory / report_json.FILE
    if not path.exists():
        return _unfinished(directory)
    if not workspace.read_note(path):
        raise BadRequest(f"{path} is damaged: it holds no report; build again")

    finished = FinishedBuild.open(directory)
    shipped = finished.shipped
    # Where nothing was judged there may be no answers that could be read.
    answers = None if shipped is None else changes.before_and_after(finished.saved_answers(), shipped.name)
    kept = evidence.read(finished)
    rows = finished.report["stages"]
    return BuildPage(
        finished=finished,
        word=EXITS[finished.verdict].name.capitalize(),
        shipped=shipped,
        intervals=figures.intervals(rows),
        reach=figures.reach(rows),
        sizes=figures.shares({row.name: row.bytes for row in finished.stages if row.bytes}),
        speed=terminal.speed(finished.report["speed"]) if finished.speed else None,
        look=terminal.look(finished.report.get("looks")),
        families=[] if shipped is None else subsets.charts(shipped, finished.subsets or {}),
        beside=list(hidden.beside(finished.stages, finished.precision)),
        answers=answers,
        changes=None if answers is None else changes.changes(answers, finished.classes),
        ranges=_ranges(finished.stages),
        first_ranges=FIRST,
        depth=_depth(kept.depth),
        depth_missing=kept.depth.missing,
        flips=kept.flips,
        engines=[layers.drawn(description) for description in kept.engines],
        history=_history(kept.history.rows),
        history_missing=kept.history.missing,
        bench=_bench(finished),
        evidence_missing=kept.missing,
        command=command(finished.report["recipe"]),
    )


def _unfinished(directory: Path) -> UnfinishedPage:
    """What the notes say of a build that was killed, or still runs."""
    notes = []
    # The numbers in front sort them in the order they were made in.
    for path in sorted(directory.glob("[0-9][0-9]-*.json")):
        note = workspace.read_note(path)
        if note.keys() >= {"file", "seconds", "work"}:
            notes.append(note)
    if not notes:
        raise BadRequest(f"{directory} holds no report.json and no file of a stage; give the directory of a build")
    return UnfinishedPage(str(directory), f"Build in {directory}", notes)


def _ranges(rows: list[StageRow]) -> list[RangeChart]:
    """Every tensor that was calibrated, those of which most is clipped first."""
    # Of two stages that calibrated a tensor the later one counts.
    accounts: dict[str, dict[str, Any]] = {}
    for row in rows:
        accounts |= row.details.get("tensors") or {}

    charts = []
    for tensor, account in accounts.items():
        # Of a tensor that was never seen no value was counted.
        clipped = account["beyond"] / (account["values"] or 1)
        drawn = figures.histogram(account) if account.get("histogram") else None
        charts.append(RangeChart(_maker(tensor), account["seen"], account["amax"], clipped, drawn))
    return sorted(charts, key=lambda chart: -chart.clipped)


def _maker(tensor: str) -> str:
    """The module that made a tensor, where its name says it: ``/layer1/layer1.0/relu/Relu_output_0``."""
    import onnx

    from exporters import onnx_file

    return onnx_file.module_of(onnx.NodeProto(name=tensor)) or tensor.strip("/").removesuffix("_output_0")


def _depth(kept: Depth) -> DepthChart | None:
    if kept.steps is None:
        return None
    # What a layer hands on as it came adds nothing, and would only break the line.
    steps = [step for step in kept.steps if step.own is not None]
    chart = figures.lines(
        {"all so far": [step.total for step in steps], "this layer alone": [step.own for step in steps]}
    )

    # A mark where each block of layers begins: layer1.0.conv1 is in layer1.
    tops = [step.module.split(".")[0] for step in steps]
    blocks = dict.fromkeys(top for top in tops if "layer" in top)
    chart["x"] = [{"at": chart["across"](tops.index(block)), "text": block} for block in blocks]

    worst = min(steps, key=_own_db, default=None)
    return DepthChart(kept.good, kept.bad, kept.images, steps, chart, worst)


def _own_db(step: DepthStep) -> float:
    assert step.own is not None
    return step.own


def _history(rows: list[dict[str, float]]) -> list[HistoryChart]:
    """A chart for the losses and one for the accuracies of a training, where its history has any."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names_by_title = {
        "Loss": [name for name in names if "loss" in name],
        "Accuracy": [name for name in names if "top1" in name or "acc" in name],
    }
    charts = []
    for title, chosen in names_by_title.items():
        if not chosen:
            continue
        series = {name: [row.get(name) for row in rows] for name in chosen}
        charts.append(HistoryChart(title, chosen, len(rows), {**figures.lines(series), "x": []}))
    return charts


def _bench(finished: FinishedBuild) -> BenchTable | None:
    """The timings of ``bench``, where they are of this very build."""
    kept = workspace.read_note(finished.directory / "bench.json")
    if not kept or kept.get("answers") != finished.answers_digest:
        return None
    benchmark = json_records.read(Benchmark, kept)
    # By their place: one contender is timed at several batch sizes.
    medians = {}
    for place, row in enumerate(benchmark.rows):
        medians[str(place)] = row.milliseconds["50"] / row.batch
    return BenchTable(benchmark, list(figures.shares(medians).values()))


def command(recipe: Mapping[str, Any]) -> str:
    """The line that builds the same again."""
    from pipeline.models.specs import ARCHITECTURES

    defaults = Recipe(**{name: recipe[name] for name in NAMED})
    words = ["python", "-m", "pipeline", "build"]
    for knob in fields(Recipe):
        value = recipe.get(knob.name, knob.default)
        if value is None or (knob.name not in NAMED and value == getattr(defaults, knob.name)):
            continue
        # A spec of a user's own is kept by the name in its file, and is taken for that file again.
        if knob.name == "arch" and value not in ARCHITECTURES and ":" not in value:
            value = f"{value}.toml"
        words.append(flag(knob.name))
        if isinstance(value, list):
            words += [str(item) for item in value]
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)
