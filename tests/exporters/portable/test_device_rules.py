"""What this machine and a device ask of the same data: both get the same answers."""

from __future__ import annotations

import json

import pytest

from exporters.portable import device_rules
from pipeline.precisions import PRECISIONS
from pipeline.targets import table

# As it is read here, and as it travels in a bundle.
HERE = table.data()
TRAVELLED = json.loads(json.dumps(HERE, default=str))


@pytest.mark.parametrize("data", [HERE, TRAVELLED], ids=["here", "travelled"])
@pytest.mark.parametrize(
    ("version", "kept"),
    [
        ("8.5.2.2", {"fp32", "fp16", "int8-trt8"}),
        ("10.3.0", set(PRECISIONS)),
        ("10.3.0.post1", set(PRECISIONS)),
        ("11.4.0.5", set(PRECISIONS)),
    ],
)
def test_whose_types_each_tensorrt_keeps(data: device_rules.Row, version: str, kept: set[str]) -> None:
    row = device_rules.tensorrt_row(data, device_rules.version(version))
    assert row is not None
    assert {name for name, precision in PRECISIONS.items() if device_rules.keeps_types(row, precision.typing)} == kept
    # What weak typing keeps it keeps by flags; without any it would be float32 throughout.
    assert {name for name, precision in PRECISIONS.items() if precision.weak_flags is not None} == {
        "fp32",
        "fp16",
        "int8-trt8",
    }


def test_a_tensorrt_before_the_first_row_is_not_known() -> None:
    assert device_rules.tensorrt_row(HERE, (1, 0)) is None


@pytest.mark.parametrize(
    ("build", "release", "answer"),
    [("11.4.0.5", "11.4.0", True), ("11.4.0", "11.4.0.5", False), ("10.13.3", "10.1", False), ("10.3.0", "10.3", True)],
)
def test_a_build_begins_with_its_release(build: str, release: str, answer: bool) -> None:
    assert device_rules.is_build_of(device_rules.version(build), device_rules.version(release)) == answer


def test_units_of_modules() -> None:
    modules = HERE["module"]
    for name, precision in PRECISIONS.items():
        # All INT8 goes by one word, whatever is around it.
        expected = name.startswith("int8") or name in {"fp32", "fp16"}
        assert device_rules.computes_in(modules["jetson-orin-nx"], precision.computes_in) == expected
    assert device_rules.computes_in(modules["jetson-nano"], "int8") is False
    assert device_rules.computes_in({}, "int8") is None
