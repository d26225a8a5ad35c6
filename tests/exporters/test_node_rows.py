"""Rows of nodes that one node could stand for, and nodes that do nothing: proven, and anything else refuted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters import reference
from exporters.certify import certify
from exporters.node_rows import KINDS

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (4, 6, 7)
# An operator with its constant inputs and attributes.
Step = tuple[str, list[Any], dict[str, Any]]


def pad(*pads: int, value: float = 0.0, mode: str = "constant", axes: tuple[int, ...] | None = None) -> Step:
    listed = [] if axes is None else [np.int64(axes)]
    return "Pad", [np.int64(pads), np.float32(value), *listed], {"mode": mode}


def taken(axis: int, start: int, end: int, step: int = 1) -> Step:
    return "Slice", [np.int64([number]) for number in (start, end, axis, step)], {}


def turned(*perm: int) -> Step:
    return "Transpose", [], {"perm": perm}


def arithmetic(operator: str, number: Any) -> Step:
    return operator, [np.float32(number)], {}


def conv(pads: int = 0, end: int | None = None, gain: Any = 1.0) -> Step:
    weight = np.random.default_rng(0).normal(size=(5, 4, 3, 3)).astype(np.float32) * np.float32(gain)
    last = pads if end is None else end
    return "Conv", [weight], {"pads": [pads, pads, last, last]}


def max_pool(before: int, behind: int) -> Step:
    return "MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [before, before, behind, behind]}


RELU: Step = ("Relu", [], {})
NOTHING = 2**40
PER_CHANNEL = np.array([0.5, 2, 3, -1], np.float32).reshape(4, 1, 1)
PROVEN: dict[str, tuple[list[Step], list[Step]]] = {
    "no width": ([pad(*[0] * 8)], []),
    "no width, repeated": ([pad(*[0] * 8, mode="edge")], []),
    "no width, of some axes": ([pad(0, 0, axes=(2,))], []),
    "channels and no width": ([pad(0, 0, 0, 0, 0, 3, 0, 0), pad(*[0] * 8)], [pad(0, 0, 0, 0, 0, 3, 0, 0)]),
    "three of one number": (
        [pad(0, 0, 1, 0, 0, 0, 0, 2, value=0.5), pad(0, 1, 0, 0, 0, 0, 0, 0, value=0.5), pad(*[1] * 8, value=0.5)],
        [pad(1, 2, 2, 1, 1, 1, 1, 3, value=0.5)],
    ),
    "of listed axes": ([pad(1, 1, axes=(2,)), pad(2, 0, axes=(3,))], [pad(0, 0, 1, 2, 0, 0, 1, 0)]),
    "one into two": ([pad(0, 0, 2, 2, 0, 0, 2, 2)], [pad(*[0, 0, 1, 1] * 2), pad(*[0, 0, 1, 1] * 2)]),
    "two into a convolution": ([pad(*[0, 0, 1, 0] * 2), pad(*[0, 0, 0, 1] * 2), conv()], [conv(1)]),
    "two into a pool": ([RELU, pad(0, 0, 0, 0, 0, 0, 1, 0), pad(0, 0, 0, 0, 0, 0, 0, 1), max_pool(0, 0)],
                        [RELU, max_pool(0, 1)]),
    "a factor through pads": ([arithmetic("Mul", 2), pad(*[0, 0, 1, 1] * 2), conv()], [conv(1, gain=2)]),
    "a divisor through two pads": (
        [arithmetic("Div", 4), pad(*[0, 0, 1, 1] * 2), pad(*[0] * 8), conv()],
        [pad(*[0, 0, 1, 1] * 2), conv(gain=0.25)],
    ),
    "a factor of each channel through pads": (
        [arithmetic("Mul", PER_CHANNEL), pad(*[0, 0, 1, 1] * 2), conv()], [conv(1, gain=PER_CHANNEL)],
    ),
    "slices of two axes": ([taken(2, 0, NOTHING, 2), taken(3, 1, 6, 2)], [
        ("Slice", [np.int64(part) for part in ((0, 1), (NOTHING, 6), (2, 3), (2, 2))], {})]),
    "slices of one axis": ([taken(3, 1, 7), taken(3, 0, NOTHING, 2)], [taken(3, 1, NOTHING, 2)]),
    "turned round twice": ([taken(1, -1, -NOTHING, -1), taken(1, -1, -NOTHING, -1)], [taken(1, 0, NOTHING)]),
    "a slice of everything": ([taken(2, 0, NOTHING)], []),
    "transposes": ([turned(0, 2, 3, 1), RELU, turned(0, 2, 1, 3), turned(0, 3, 2, 1)],
                   [turned(0, 2, 3, 1), RELU, turned(0, 3, 1, 2)]),
    "there and back": ([turned(0, 2, 3, 1), turned(0, 3, 1, 2)], [turned(0, 1, 2, 3)]),
    "a transpose in the same order": ([turned(0, 1, 2, 3)], []),
    "zero": ([arithmetic("Sub", 0), arithmetic("Add", [0])], []),
    "one": ([arithmetic("Div", [[[1]]]), arithmetic("Mul", 1)], []),
    "a ReLU of a ReLU": ([RELU, RELU, RELU], [RELU]),
}  # fmt: skip
# What went into weights is not taken out of them again.
TAKEN_IN = {"a factor through pads", "a divisor through two pads", "a factor of each channel through pads"}
REFUTED: dict[str, tuple[list[Step], list[Step]]] = {
    "another width": ([pad(*[0, 0, 1, 1] * 2), pad(*[0] * 8)], [pad(0, 0, 1, 1, 0, 0, 2, 0)]),
    "another number": ([pad(*[0, 0, 1, 1] * 2), pad(*[0, 0, 1, 1] * 2)], [pad(*[0, 0, 2, 2] * 2, value=0.5)]),
    "two numbers": ([pad(*[0, 0, 1, 1] * 2, value=0.5), pad(*[0, 0, 1, 1] * 2)], [pad(*[0, 0, 2, 2] * 2)]),
    "what was cut off": ([pad(*[0, 0, -1, -1] * 2), pad(*[0, 0, 1, 1] * 2)], [pad(*[0] * 8)]),
    "a mirror of a mirror": (
        [pad(*[0, 0, 2, 2] * 2, mode="reflect"), pad(*[0, 0, 2, 2] * 2, mode="reflect")],
        [pad(*[0, 0, 4, 4] * 2, mode="reflect")],
    ),
    "channels into a convolution": ([pad(0, 1, 0, 0, 0, -1, 0, 0), conv()], [conv()]),
    "halves into a convolution": ([pad(*[0, 0, 1, 1] * 2, value=0.5), conv()], [conv(1)]),
    "a factor through halves": ([arithmetic("Mul", 2), pad(*[0, 0, 1, 1] * 2, value=0.5), conv()],
                                [pad(*[0, 0, 1, 1] * 2, value=0.5), conv(gain=2)]),
    "a factor twice": ([arithmetic("Mul", 2), pad(*[0, 0, 1, 1] * 2), conv()], [conv(1, gain=4)]),
    "a factor lost": ([arithmetic("Mul", 2), pad(*[0, 0, 1, 1] * 2), conv()], [conv(1)]),
    "negative numbers into a pool": ([pad(*[0, 0, 1, 1] * 2), max_pool(0, 0)], [max_pool(1, 1)]),
    "another order of slices": ([taken(3, 1, 7), taken(3, 0, NOTHING, 2)], [taken(3, 0, NOTHING, 2)]),
    "a slice that turns": ([taken(2, -1, -NOTHING, -1)], []),
    "another transpose": ([turned(0, 2, 3, 1), turned(0, 2, 3, 1)], [turned(0, 2, 3, 1)]),
    "minus": ([("Neg", [], {})], []),
    "not quite zero": ([arithmetic("Sub", 1e-6)], []),
    "not quite one": ([arithmetic("Mul", 1.0000001)], []),
    "zero in one channel": ([arithmetic("Add", np.array([0, 0, 1, 0], np.float32).reshape(4, 1, 1))], []),
}  # fmt: skip


def written(steps: list[Step], path: Path) -> Path:
    """A chain of ``steps`` from images (N, 4, 6, 7)."""
    nodes, constants, value = [], [], "images"
    for place, (operator, operands, attributes) in enumerate(steps):
        names = [f"{place}.{number}" for number in range(len(operands))]
        constants += [
            numpy_helper.from_array(np.asarray(array), name) for name, array in zip(names, operands, strict=True)
        ]
        nodes.append(
            helper.make_node(operator, [value, *names], [f"made{place}"], f"/{place}/{operator}", **attributes)
        )
        value = f"made{place}"
    nodes.append(helper.make_node("Neg", [value], ["answer"], "/last/Neg"))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *SHAPE])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", None, None, None])
    graph = helper.make_graph(nodes, "rows", [images], [answer], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def both(before: list[Step], after: list[Step], folder: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """Both files and their answers to the same images."""
    images = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
    paths = [written(before, folder / "before.onnx"), written(after, folder / "after.onnx")]
    answers = [reference.session(path).run(None, {"images": images})[0] for path in paths]
    return paths[0], paths[1], answers[0], answers[1]


@pytest.mark.parametrize("name", PROVEN)
def test_what_does_the_same_is_proven_either_way(name: str, tmp_path: Path) -> None:
    before, after, expected, answers = both(*PROVEN[name], tmp_path)
    np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-5)
    certificate = certify(before, after, stage="simplify")
    assert certificate.proven, certificate.refuted
    if name not in TAKEN_IN:
        certificate = certify(after, before, stage="simplify")
        assert certificate.proven, certificate.refuted


@pytest.mark.parametrize("name", REFUTED)
def test_what_does_something_else_is_refuted(name: str, tmp_path: Path) -> None:
    before, after, expected, answers = both(*REFUTED[name], tmp_path)
    assert expected.shape != answers.shape or not np.array_equal(expected, answers)
    assert not certify(before, after, stage="simplify").proven
    assert not certify(after, before, stage="simplify").proven


def test_a_row_of_a_hundred_pads_is_one(tmp_path: Path) -> None:
    before, after, expected, answers = both([pad(*[0, 0, 0, 1] * 2)] * 100, [pad(*[0, 0, 0, 100] * 2)], tmp_path)
    np.testing.assert_array_equal(answers, expected)
    assert certify(before, after, stage="simplify").proven


def test_two_slices_take_the_places_that_one_would() -> None:
    """By arithmetic on first place, step and count alone: the axis of a foreign file may be of any length."""
    merge = KINDS["Slice"].merge
    rng = np.random.default_rng(0)
    for _ in range(500):
        size = int(rng.integers(1, 12))
        inner = range(size)[some_slice(rng)]
        outer = range(len(inner))[some_slice(rng)]
        found = merge({"axis 2": told(size, inner)}, {"axis 2": told(len(inner), outer)})
        wanted = [inner[place] for place in outer]
        assert found is not None
        _, first, step, length = found.get("axis 2", [size, 0, 1, size])
        assert [first + step * place for place in range(length)] == wanted

    huge = 2**60
    assert merge({"axis 0": [huge, 0, 2, huge // 2]}, {"axis 0": [huge // 2, 1, 3, 5]}) == {"axis 0": [huge, 2, 6, 5]}


def some_slice(rng: np.random.Generator) -> slice:
    start, end = (int(number) for number in rng.integers(-12, 12, 2))
    return slice(start, end, int(rng.choice([-3, -2, -1, 1, 2, 3])))


def told(size: int, places: range) -> list[int]:
    """The axis, the first place that is taken of it, the step and how many are."""
    return [size, places[0] if places else 0, places.step if len(places) > 1 else 1, len(places)]
