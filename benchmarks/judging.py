"""How long it takes to judge 50,000 images of 1,000 classes, with groups, and in how much memory beyond the answers.

`python -m benchmarks.judging` prints processor seconds and megabytes of each part.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipeline.data.groups import Grouping
from pipeline.parity import per_image
from pipeline.parity.figures import TestSet, fill
from pipeline.parity.judge import judge
from pipeline.stage import CLASSES, StageRow, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")
GROUPS = {"camera": 20, "site": 400}


def main() -> None:
    """One stage, from its logits to its verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    n = arguments.images
    labels = rng.integers(0, arguments.classes, n)
    reference = rng.standard_normal((n, arguments.classes), np.float32)
    reference[np.arange(n), labels] += 4
    logits = reference + np.float32(0.1) * rng.standard_normal(reference.shape, np.float32)
    groupings = {CLASSES: Grouping([str(number) for number in range(arguments.classes)], labels)}
    for column, count in GROUPS.items():
        groupings[column] = Grouping([str(number) for number in range(count)], rng.integers(0, count, n))
    # What is imported once by whoever judges anything.
    row = StageRow("engine", "engine", "int8", tolerance=Tolerance(15, 15, 0.5, 0.01, threshold=0.9))
    few = np.arange(8)
    small = TestSet(labels[few], reference[few], few >= 0, {CLASSES: groupings[CLASSES].of(few)})
    fill(row, small, per_image.per_image(logits[few], labels[few], reference[few], reference[few]), None)

    def judged() -> str:
        test_set = TestSet(labels, reference, np.ones(n, np.bool_), groupings)
        fill(row, test_set, kept, None)
        return judge(row)[0]

    kept = _measured("the figures of each image", lambda: per_image.per_image(logits, labels, reference, reference))
    verdict = _measured("all figures and the verdict", judged)
    print(f"verdict: {verdict}")


def _measured(what: str, work: Callable[[], Result]) -> Result:
    """Time it, and then, since that is slower, its memory."""
    started = time.process_time()
    result = work()
    seconds = time.process_time() - started
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{what}: {seconds:.2f} s, {peak / 2**20:.0f} MB at most", flush=True)
    return result


if __name__ == "__main__":
    main()
