"""The directory of a build of any number of classes, without a network: answers are made up, figures are not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import safetensors.numpy

from pipeline.bounds import bounds
from pipeline.data.groups import Grouping
from pipeline.finished.saved_answers import SavedAnswers
from pipeline.models.frozen import NetworkDescription
from pipeline.parity.figures import TestSet, every_subset, fill
from pipeline.parity.judge import judge
from pipeline.parity.per_image import PerImage, per_image
from pipeline.recipe import Recipe
from pipeline.report import ledger
from pipeline.stage import CLASSES, Role, StageRow

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("tench, Tinca tinca", "<b>goldfish</b> & co", "Größe 大白鲨", "a" * 90, "with\x1b[31m a colour")


@dataclass(frozen=True)
class Made:
    """How many ``classes``, with how many images ``each``; class 1 loses ``lost``, all others a share of ``changed``.

    ``groups`` of ``camera``; ``noise`` as a share of the largest logit; ``beside`` that of a file in fp16.
    """

    classes: int
    each: int
    lost: int = 0
    changed: float = 0.0
    noise: float = 0.005
    groups: int = 0
    threshold: float | None = None
    beside: float | None = None

    def names(self) -> tuple[str, ...]:
        """Some of which are awkward."""
        return tuple(NAMES[number] if number < len(NAMES) else f"class {number}" for number in range(self.classes))


def directory(output: Path, made: Made) -> dict[str, Any]:
    """A build in ``output`` of a network that is right in 98 of 100, and an INT8 file with noise; its report."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(made.classes), made.each)
    reference = random.standard_normal((len(labels), made.classes), np.float32)
    answered = np.where(random.random(len(labels)) < 0.98, labels, (labels + 1) % made.classes)
    reference[np.arange(len(labels)), answered] += 12
    int8 = reference + made.noise * np.abs(reference).max() * random.standard_normal(reference.shape, np.float32)
    right = answered == labels
    spoilt = np.flatnonzero(random.random(len(labels)) < made.changed)
    spoilt = np.union1d(spoilt, np.flatnonzero((labels == 1) & right)[: made.lost])
    # Those that were right are no longer so, and the others are now.
    int8[spoilt, (labels[spoilt] + right[spoilt]) % made.classes] = 30

    groupings = {CLASSES: Grouping(made.names(), labels)}
    for column, count in {"camera": made.groups}.items():
        if count:
            codes = random.integers(0, count, len(labels)).astype(np.int32)
            groupings[column] = Grouping([f"{column} {number}" for number in range(count)], codes)
    test_set = TestSet(labels, reference, np.ones(len(labels), np.bool_), groupings, lambda place: f"val/{place}.png")

    recipe = Recipe(arch="resnext_tiny", precision="int8", output=output, threshold=made.threshold)
    logits = {"freeze": reference, "int8": int8, "engine": int8}
    stages: list[tuple[str, Role, str, str | None]] = [
        ("freeze", "reference", "fp32", None),
        ("int8", "quantised", "int8", "freeze"),
        ("engine", "engine", "int8", "int8"),
    ]
    if made.beside is not None:
        stages.append(("fp16_engine", "engine", "fp16", "freeze"))
        logits["fp16_engine"] = reference + made.beside * random.standard_normal(reference.shape, np.float32)

    output.mkdir(parents=True)
    rows: list[StageRow] = []
    kept: dict[str, PerImage] = {}
    for number, (name, role, precision, source) in enumerate(stages, start=1):
        content = name.encode()
        row = StageRow(name, role, precision, source, f"{number:02}-{name}.onnx", work=f"{name} of made-up answers")
        row.sha256, row.bytes, row.seconds = hashlib.sha256(content).hexdigest(), len(content), 0.1
        row.provider, row.tolerance = "PyTorch CPU", bounds(name.removeprefix("fp16_"), role, precision, recipe)
        (output / str(row.file)).write_bytes(content)
        kept[name] = per_image(logits[name], labels, reference, logits[source or "freeze"])
        fill(row, test_set, kept[name], kept.get(source or ""))
        row.verdict, row.reasons = judge(row)
        rows.append(row)

    report = _report(recipe, output, made, rows, test_set, kept["engine"])
    answers = safetensors.numpy.save(SavedAnswers.of(test_set, kept).tensors())
    report["answers"] = hashlib.sha256(answers).hexdigest()
    (output / "answers.safetensors").write_bytes(answers)
    (output / "report.json").write_text(json.dumps(report, allow_nan=False))
    return report


def _report(
    recipe: Recipe, output: Path, made: Made, rows: list[StageRow], test_set: TestSet, engine: PerImage
) -> dict[str, Any]:
    # Of the network only its name and its classes are in a report.
    description = NetworkDescription("resnext_tiny", cast("Any", None), made.names(), {"input_size": 32})
    sources = {"data": "made-up answers", "weights": "none"}
    images = {"calibration": "0" * 64, "test": hashlib.sha256(repr(made).encode()).hexdigest()}
    report = ledger.header(recipe, output, description, sources, images)
    report |= ledger.ledger(rows, [], None, recipe.precision)
    listed = every_subset(test_set, engine.answers.top1, recipe.confidence)
    subsets = {column: [asdict(subset) for subset in found[:2000]] for column, found in listed.items()}
    groups = {column: list(each.names) for column, each in test_set.groupings.items() if column != CLASSES}
    return {**report, "speed": None, "conformance": None, "groups": groups, "subsets": subsets}
