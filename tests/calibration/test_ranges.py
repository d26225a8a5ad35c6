"""The methods against their definitions written out on the raw values."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from conftest import ROOT
from onnxruntime.quantization import calibrate
from scipy import stats

from calibration import ranges
from calibration.histogram import Histogram
from exporters.number_formats import FP8

RNG = np.random.default_rng(0)
# Bell, heavy tail, half of it zeros as after a ReLU, and one outlier a thousand times the rest.
SHAPES = {
    "normal": RNG.normal(0, 3, 300_000),
    "student": RNG.standard_t(3, 300_000),
    "relu": np.maximum(RNG.normal(0, 1e-3, 300_000), 0),
    "outlier": np.append(RNG.normal(0, 1, 100_000), 1000.0),
}
VALUES = {name: values.astype(np.float32) for name, values in SHAPES.items()}


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return histogram


def error(values: np.ndarray, amax: float) -> float:
    scale = amax / 127
    return float(np.sum((np.clip(np.rint(values / scale), -127, 127) * scale - values.astype(np.float64)) ** 2))


def brute_entropy(values: np.ndarray) -> float:
    """Migacz 2017 bin by bin, on an ordinary linear histogram of the raw values."""
    bins, edges = np.histogram(np.abs(values), 2048, (0, float(np.abs(values).max())))
    bins[0] = bins[1]
    found = []
    for i in range(128, 2049):
        p = bins[:i].astype(float)
        p[-1] += bins[i:].sum()
        level = np.digitize(np.arange(i), np.linspace(0, i, 129)) - 1
        filled = np.bincount(level, bins[:i] > 0)
        q = np.where(bins[:i] > 0, (np.bincount(level, bins[:i]) / np.maximum(filled, 1))[level], 0)
        found.append(stats.entropy(p, q))
    return float(edges[128 + len(found) - 1 - int(np.argmin(found[::-1]))])


@pytest.mark.parametrize("method", ranges.METHODS)
def test_a_method_has_its_line_in_the_docs(method: str) -> None:
    assert f"\n| `{method}`" in (ROOT / "docs" / "placement.md").read_text()


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_minmax_percentile_and_mse_are_their_definitions_on_the_raw_values(values: np.ndarray) -> None:
    histogram, magnitudes = histogram_of(values), np.abs(values)
    assert ranges.minmax(histogram) == magnitudes.max()
    assert ranges.percentile(histogram) == pytest.approx(np.quantile(magnitudes, 0.9999), rel=0.03)
    chosen = ranges.mse(histogram)
    candidates = np.geomspace(magnitudes.max() / 2000, magnitudes.max(), 400)
    assert error(values, chosen) <= 1.002 * min(error(values, amax) for amax in candidates)
    for amax in (magnitudes.max(), magnitudes.max() / 3, chosen):
        assert ranges.squared_error(histogram, amax / 127) == pytest.approx(error(values, amax), rel=0.01)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_error_of_fp8_is_that_of_its_own_numbers(values: np.ndarray) -> None:
    histogram, magnitudes = histogram_of(values), np.abs(values).astype(np.float64)

    def error(amax: float) -> float:
        kept = np.minimum(magnitudes / amax * 448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
        return float(np.sum((kept / 448 * amax - magnitudes) ** 2))

    for amax in (magnitudes.max(), magnitudes.max() / 3, magnitudes.max() * 8):
        assert ranges.squared_error(histogram, amax / 448, FP8) == pytest.approx(error(amax), rel=0.02)
    chosen = ranges.mse(histogram, FP8)
    assert error(chosen) <= 1.01 * min(
        error(amax) for amax in np.geomspace(histogram.usual.amax / 500, histogram.usual.amax, 99)
    )


@pytest.mark.parametrize("name", ["student", "relu"])
def test_entropy_is_migacz_bin_by_bin(name: str) -> None:
    ours, expected = ranges.entropy(histogram_of(VALUES[name])), brute_entropy(VALUES[name])
    assert ours == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("method", ranges.METHODS)
def test_what_is_always_zero_or_one_number_has_that_range(method: str) -> None:
    assert ranges.METHODS[method](Histogram()) == 0.0
    assert ranges.METHODS[method](histogram_of(np.zeros(100))) == 0.0
    assert ranges.METHODS[method](histogram_of(np.full(100, -3.0))) == pytest.approx(3.0, rel=0.01)


def test_the_percentile_of_almost_nothing_but_zeros_keeps_what_is_not_zero() -> None:
    values = np.append(np.zeros(100_000), [0.3, -0.5])
    assert ranges.percentile(histogram_of(values)) == 0.5
    assert error(values, ranges.percentile(histogram_of(values))) < 1e-5


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_percentile_is_onnxruntimes(values: np.ndarray) -> None:
    collector = calibrate.HistogramCollector("percentile", True, 2048, 128, 99.99, "same")
    collector.collect({"x": [values]})
    theirs = float(collector.compute_collection_result()["x"][1])
    # Theirs is a step of a linear grid of 2048 over the widest range; ours lies at most one of their steps beside it.
    step = 2 * float(np.abs(values).max()) / 2048
    assert abs(ranges.percentile(histogram_of(values)) - theirs) <= 1.5 * step


def test_a_few_images_far_too_bright_do_not_decide_the_range() -> None:
    images = np.random.default_rng(3).standard_normal((100, 4000)).astype(np.float32)
    honest, bright = Histogram(), Histogram()
    honest.add(images)
    images[::50] *= 10
    bright.add(images)
    assert ranges.minmax(bright) > 8 * ranges.minmax(honest)
    assert ranges.mse(bright) < 1.5 * ranges.mse(honest)
    rare = Histogram()
    rare.add(np.where(np.arange(100)[:, None] < 3, images, 0))
    assert ranges.mse(rare) > ranges.mse(honest) / 2
    # Of one image in five it is no accident.
    images[::5] *= 10
    common = Histogram()
    common.add(images)
    assert ranges.mse(common) > 4 * ranges.mse(honest)


def test_even_error_is_what_smooth_values_have_and_what_values_on_a_grid_would() -> None:
    random = np.random.default_rng(0)
    smooth = Histogram()
    smooth.add(np.abs(random.normal(size=(64, 20_000))).astype(np.float32))
    scale = 0.04  # nothing is clipped
    measured = ranges.squared_error(smooth, scale)
    assert ranges.even_error(smooth, scale) <= measured
    assert ranges.even_error(smooth, scale) == pytest.approx(measured, rel=0.05)

    on_grid = Histogram()
    on_grid.add((scale * random.integers(0, 128, (64, 20_000))).astype(np.float32))
    # Next to nothing is lost under the same scale, and of another one near it no more than of smooth values.
    assert ranges.squared_error(on_grid, scale) < 1e-2 * ranges.even_error(on_grid, scale)
    assert ranges.squared_error(on_grid, scale * (1 + 2**-11)) < 4 * ranges.even_error(on_grid, scale)
    assert ranges.squared_error(on_grid, 4 * scale) > 15 * ranges.even_error(on_grid, scale)
