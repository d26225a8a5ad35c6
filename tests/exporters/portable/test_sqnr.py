"""One formula of SQNR: what is infinite, what is no number, and what a cap makes of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporters.portable.sqnr import CAP_DB, capped_sqnr_db, sqnr_db


def row(*values: float) -> Any:
    return np.array([values], np.float32)


@pytest.mark.parametrize(
    ("reference", "answer", "exact_db", "capped_db"),
    [
        (row(3, 4), row(3, 4), np.inf, CAP_DB),
        (row(0, 0), row(0, 0), np.inf, CAP_DB),
        (row(3, 4), row(3, 4.5), 20.0, 20.0),  # 25 to 0.25
        (row(3, 4), row(np.nan, 4), np.nan, -CAP_DB),
        (row(3, 4), row(np.inf, 4), -np.inf, -CAP_DB),
        (row(0, 0), row(0, 1), -3000.0, -CAP_DB),  # no signal at all, and some noise
    ],
)
def test_a_row_of_each_kind(reference: Any, answer: Any, exact_db: float, capped_db: float) -> None:
    np.testing.assert_allclose(sqnr_db(reference, answer), [exact_db])
    np.testing.assert_allclose(capped_sqnr_db(reference, answer), [capped_db])


def test_float32_that_differs_at_all_is_told_from_the_same_bits() -> None:
    reference = np.ones((1, 1000), np.float32)
    answer = reference.copy()
    answer[0, 0] = np.nextafter(np.float32(1), np.float32(2))
    assert sqnr_db(reference, answer)[0] < CAP_DB - 100


def test_rows_of_more_dimensions_count_all_their_values_and_other_shapes_have_nothing_in_common() -> None:
    images = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 2, 2)
    flat = sqnr_db(images.reshape(2, -1), images.reshape(2, -1) + 1)
    np.testing.assert_array_equal(sqnr_db(images, images + 1), flat)
    assert capped_sqnr_db(images, images[:, :2]) == [-CAP_DB, -CAP_DB]


def test_the_figures_of_batches_are_gathered_in_a_list() -> None:
    gathered: list[float] = []
    for _ in range(2):
        gathered += capped_sqnr_db(row(3, 4), row(3, 4))
    assert gathered == [CAP_DB, CAP_DB]
