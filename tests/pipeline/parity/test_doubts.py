"""A network that may as well guess is told from one that is good, by counts that can be worked out by hand."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from pipeline.parity.doubts import of_network


def sentences(right: int, labels: np.ndarray, classes: int, confidence: float = 0.95) -> list[str]:
    """Of a network that answers the first ``right`` images rightly and all others wrongly."""
    answers = np.where(np.arange(len(labels)) < right, labels, (labels + 1) % classes)
    logits = np.eye(classes, dtype=np.float32)[answers]
    return list(of_network(logits, labels, classes, confidence))


def tail(right: int, count: int, chance: float) -> float:
    """P(X >= right) of a binomial, term by term."""
    return sum(comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(right, count + 1))


@pytest.mark.parametrize(("classes", "count"), [(2, 60), (4, 80), (10, 200), (1000, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_guessing_is_told_exactly_where_the_binomial_says(classes: int, count: int, confidence: float) -> None:
    labels = np.arange(count) % classes
    least = next(right for right in range(count + 1) if tail(right, count, 1 / classes) <= 1 - confidence)
    assert sentences(least, labels, classes, confidence) == []
    (sentence,) = sentences(least - 1, labels, classes, confidence)
    assert sentence.startswith(f"the float network answers {least - 1} of {count} test images rightly")
    assert f"not shown to be better than guessing ({100 / classes:.2f} %)" in sentence
    assert "the order of the classes and the pixels (RGB or BGR, mean and std, EXIF turns)" in sentence


def test_to_answer_the_commonest_class_always_is_no_skill() -> None:
    labels = np.array([0] * 180 + [1] * 20)
    (sentence,) = sentences(180, labels, 2)
    assert "always answering the commonest class (90.00 %)" in sentence
    assert sentences(190, labels, 2) == []


def test_a_good_network_of_few_images_is_believed() -> None:
    assert sentences(8, np.arange(8) % 4, 4) == []


def test_images_of_one_class_show_no_skill() -> None:
    assert sentences(0, np.zeros(40, np.int64), 2) == []
    assert sentences(40, np.zeros(40, np.int64), 2) == []


def test_a_network_worse_than_chance_is_doubted() -> None:
    assert len(sentences(0, np.arange(100) % 10, 10)) == 1
