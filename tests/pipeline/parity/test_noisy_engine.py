"""An engine of a file on which INT8 costs much: right ones pass though they lie far from it, and faulty ones fail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import faults
import onnx
import pytest

from calibration import observe, qdq, ranges
from exporters import engines
from pipeline.data import digits, sampling
from pipeline.data.images import Images
from pipeline.errors import StageFailed
from pipeline.parity import answers
from pipeline.parity.examine import examine
from pipeline.parity.figures import TestSet
from pipeline.parity.per_image import PerImage, per_image
from pipeline.precisions import COMPILED
from pipeline.report import hidden
from pipeline.stage import StageRow

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

# Of activations, where 127 are to be had.
LEVELS = 16
# What is asked of their loss is asked elsewhere, of more images.
BOUNDS = replace(COMPILED, drop=None)


@dataclass(frozen=True)
class Noisy:
    """A file of few levels, what is kept of its answers to some images, and its engine."""

    file: Path
    engine: Path
    images: Images
    test_set: TestSet
    logits: np.ndarray
    kept: PerImage

    def examined(self, engine: Path) -> StageRow:
        row = StageRow("engine", "engine", "int8", tolerance=BOUNDS)
        examine(row, engine, self.file, self.images, self.test_set, self.logits, self.kept)
        return row


@pytest.fixture(scope="module")
def noisy(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Noisy:
    where = tmp_path_factory.mktemp("noisy")
    src, file, engine = built / "04-fold_batchnorm.onnx", where / "few_levels.onnx", where / "engine.ort.onnx"
    data = digits.read()
    images = sampling.some(Images(data.test, data.preprocessing), 200)
    seen = observe.observe(src, qdq.tensors(src), Images(data.calibration, data.preprocessing).batches(25))
    qdq.quantise(src, file, {name: ranges.mse(histogram) * 127 / LEVELS for name, histogram in seen.items()})
    engines.named("onnxruntime").build(file, engine, {}, lambda *_: None)

    reference, logits = (answers.of_file(path).answers(images, "") for path in (src, file))
    test_set = TestSet(images.labels, reference, images.distinct)
    kept = per_image(logits, images.labels, reference, reference)
    return Noisy(file, engine, images, test_set, logits, kept)


def test_a_right_engine_passes_beyond_the_bound_of_a_quiet_one(noisy: Noisy) -> None:
    row = noisy.examined(noisy.engine)
    assert row.verdict == "pass", row.reasons
    assert row.step is not None
    assert row.step.sqnr_db is not None
    assert row.before is not None
    assert row.before.sqnr_db is not None
    assert row.before.sqnr_db < 22
    assert row.before.sqnr_db - 3 < row.step.sqnr_db < BOUNDS.step_sqnr_db
    held_to = f"engine is held to {row.before.sqnr_db - 3:.1f} dB against the file before, not to 30 (its own noise: "
    assert [sentence for sentence in hidden.sentences(row) if sentence.startswith(held_to)]


PLANTED = [plant for _, plant in faults.GRAPH_FAULTS["engine"]]


@pytest.mark.parametrize("plant", PLANTED, ids=map(str, range(len(PLANTED))))
def test_a_faulty_engine_fails_all_the_same(noisy: Noisy, tmp_path: Path, plant: faults.Fault) -> None:
    model = onnx.load(noisy.engine)
    plant(model)
    path = tmp_path / noisy.engine.name
    onnx.save(model, path)
    assert is_refused(noisy, path)


def is_refused(noisy: Noisy, engine: Path) -> bool:
    """Whether it fails, or does not even run."""
    try:
        return noisy.examined(engine).verdict == "fail"
    except StageFailed as error:
        return "cannot be run" in str(error)
