"""Equalisation leaves the float network as it is, bit by bit, and INT8 answers right where it lost them before."""

from __future__ import annotations

import runpy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper

from calibration import observe, qdq, ranges
from calibration.recovery.equalise import Statistics, equalise
from exporters import channel_space, onnx_file, reference
from exporters.certify import certify
from pipeline.data import digits
from pipeline.data.images import Images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

RELU, HEAD = ("Relu", "a", "r"), ("Conv", "r", "logits", (8, 3, 1))
FIRST = ("Conv", "images", "a", (4, 8, 1))


def net(path: Path, *rows: tuple[Any, ...]) -> Path:
    """A graph of (operator, inputs, output, (channels in, channels out, groups)), its outputs far apart in size."""
    rng = np.random.default_rng(0)
    nodes, arrays = [], {"one": np.ones(1)}
    for operator, read, out, *sizes in rows:
        inputs, told = read.split(), {}
        if sizes:
            into, outs, groups = sizes[0]
            size = np.exp(rng.uniform(-3, 3, outs))
            kernel = (3, 3) if operator == "Conv" else ()
            arrays[f"{out}.weight"] = rng.normal(size=(outs, into // groups, *kernel)) * size.reshape(
                -1, *[1] * (1 + len(kernel))
            )
            arrays[f"{out}.bias"] = rng.normal(size=outs) * size
            inputs += [f"{out}.weight", f"{out}.bias"]
            told = {"group": groups, "pads": [1] * 4} if operator == "Conv" else {"transB": 1}
        if operator == "BatchNormalization":
            arrays |= {f"{out}.{name}": rng.uniform(0.1, 9, 8) for name in ("gamma", "beta", "mean", "var")}
            inputs += [f"{out}.{name}" for name in ("gamma", "beta", "mean", "var")]
        if operator == "MaxPool":
            told = {"kernel_shape": [2, 2]}
        nodes.append(helper.make_node(operator, inputs, [out], f"/{out}/{operator}", **told))
    if (dead := arrays.get("a.weight")) is not None:
        dead[5], arrays["a.bias"][5] = 0, 0  # a channel that is always 0
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [images], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def tensors(path: Path, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Every tensor that the nodes of ``path`` compute."""
    model = onnx.load(path)
    names = [name for node in model.graph.node for name in node.output]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return dict(zip(names, reference.session(model.SerializeToString()).run(names, {"images": images}), strict=True))


def pictures(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 255, size=(5, 4, 8, 8)).astype(np.float32)


GRAPHS: dict[str, tuple[int, list[tuple[Any, ...]]]] = {
    "a chain": (1, [FIRST, RELU, HEAD]),
    "a pooled chain": (1, [FIRST, RELU, ("MaxPool", "r", "p"), ("Conv", "p", "logits", (8, 3, 1))]),
    "a grouped reader": (1, [FIRST, RELU, ("Conv", "r", "logits", (8, 12, 4))]),
    "a grouped writer": (1, [("Conv", "images", "a", (4, 8, 2)), RELU, HEAD]),
    "two readers": (
        1,
        [FIRST, RELU, ("Conv", "r", "p", (8, 3, 1)), ("Conv", "r", "q", (8, 3, 1)), ("Add", "p q", "logits")],
    ),
    "a residual stream": (
        2,
        [FIRST, RELU, ("Conv", "r", "b", (8, 8, 1)), ("Relu", "b", "s"), ("Conv", "s", "c", (8, 8, 4)),
         ("Add", "c r", "d"), ("Relu", "d", "e"), ("Conv", "e", "logits", (8, 3, 1))],
    ),
    "a Gemm head": (
        1,
        [FIRST, RELU, ("GlobalAveragePool", "r", "g"), ("Flatten", "g", "f"), ("Gemm", "f", "logits", (8, 3, 1))],
    ),
    "a normalisation that writes": (
        1, [FIRST, ("BatchNormalization", "a", "n"), ("Relu", "n", "r"), HEAD],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GRAPHS)
def test_every_tensor_is_a_power_of_two_times_what_it_was_and_logits_keep_their_bits(kind: str, tmp_path: Path) -> None:
    count, rows = GRAPHS[kind]
    src, dst = net(tmp_path / "src.onnx", *rows), tmp_path / "dst.onnx"
    assert equalise(src, dst, [pictures(0), pictures(1)[:2]]).startswith(f"{count} of {count} channel spaces equalised")
    before, after = (tensors(path, pictures(2)) for path in (src, dst))
    moved = 0
    for name, was in before.items():
        live = was.max(axis=(0, *range(2, was.ndim)), keepdims=True)
        now = after[name].max(axis=(0, *range(2, was.ndim)), keepdims=True)
        power = np.log2(np.where(live > 0, now / np.where(live > 0, live, 1), 1))
        np.testing.assert_array_equal(power, np.rint(power))
        np.testing.assert_array_equal(after[name], np.ldexp(was, power.astype(int)))
        moved += bool(power.any())
    assert moved >= count
    np.testing.assert_array_equal(before["logits"], after["logits"])
    certificate = certify(src, dst)
    assert (certificate.proven, certificate.rescaled) == (True, count), certificate.refuted


FIXED = {
    "an output of the graph": [FIRST, ("Relu", "a", "logits")],
    "a sigmoid": [FIRST, ("Sigmoid", "a", "r"), HEAD],
    "a constant that is added": [FIRST, ("Add", "a one", "r"), HEAD],
    "a product": [FIRST, RELU, ("Mul", "r r", "m"), ("Conv", "m", "logits", (8, 3, 1))],
    "a flattened map": [FIRST, RELU, ("Flatten", "r", "f"), ("Gemm", "f", "logits", (512, 3, 1))],
    "a normalisation that reads": [FIRST, RELU, ("BatchNormalization", "r", "n"), ("Conv", "n", "logits", (8, 3, 1))],
}  # fmt: skip


@pytest.mark.parametrize("kind", FIXED)
def test_what_is_not_homogeneous_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    src, dst = net(tmp_path / "src.onnx", *FIXED[kind]), tmp_path / "dst.onnx"
    equalise(src, dst, [pictures()])
    before, after = (tensors(path, pictures(1)) for path in (src, dst))
    np.testing.assert_array_equal(before["a"], after["a"])
    np.testing.assert_array_equal(before["logits"], after["logits"])


def test_one_bright_image_in_a_hundred_moves_a_peak_by_a_tenth_at_most() -> None:
    seen, values = Statistics(), np.ones((100, 2, 3, 3), np.float32)
    values[50] *= 10
    seen.add(values)
    np.testing.assert_allclose(seen.peak, 1.09)
    with pytest.raises(ValueError, match="NaN or infinite"):
        seen.add(values * np.inf)


def right(path: Path, images: Images) -> NDArray[np.bool_]:
    session = reference.session(path)
    logits = [session.run(["logits"], {"images": batch})[0] for batch in images.batches()]
    return np.asarray(np.concatenate(logits).argmax(1) == images.labels)


def int8(src: Path, dst: Path, images: Images) -> Path:
    seen = observe.observe(src, qdq.tensors(src), images.batches(50))
    qdq.quantise(src, dst, {name: ranges.mse(histogram) for name, histogram in seen.items()})
    return dst


def every_space(src: Path, dst: Path) -> None:
    """All spaces, residual streams as well, rescaled by powers of two."""
    model, rng = onnx_file.read(src), np.random.default_rng(0)
    spaces = channel_space.spaces(model.graph)
    channel_space.rescale(model.graph, {space: rng.integers(-4, 5, space.channels) for space in spaces})
    onnx_file.write(model, dst)


def inner(src: Path, dst: Path) -> None:
    """The inner channels of the blocks, grouped convolutions included, rescaled by any factors."""
    runpy.run_path(str(ROOT / "benchmarks/recovery.py"))["rescaled"](src, dst)


@pytest.mark.parametrize(("plant", "count"), [(inner, 6), (every_space, 10)])
def test_a_resnext_with_channels_far_apart_is_lost_without_and_right_with_it(
    built: Path, tmp_path: Path, plant: Callable[[Path, Path], None], count: int
) -> None:
    data, src = digits.read(), built / "04-fold_batchnorm.onnx"
    calibration, test = (Images(part, data.preprocessing) for part in (data.calibration, data.test))
    planted, dst = tmp_path / "planted.onnx", tmp_path / "equalised.onnx"
    plant(src, planted)
    assert equalise(planted, dst, calibration.batches(50)).startswith(f"{count} of 10 ")
    float32, lost, won = (
        right(path, test).mean()
        for path in (
            planted,
            int8(planted, tmp_path / "q.onnx", calibration),
            int8(dst, tmp_path / "e.onnx", calibration),
        )
    )
    assert lost < float32 - 0.02
    assert won > float32 - 0.005
