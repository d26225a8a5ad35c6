"""Fold, float16 and the uint8 form, on small graphs whose answers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from faults import array
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from exporters import child, export, float16, fold_batchnorm, onnx_file, probabilities, reference
from exporters.engines import onnxruntime as engine
from exporters.engines import onnxruntime_cuda, ort_integers, ort_session

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)


def conv_net(path: Path, *, groups: int = 1, bias: bool = False, twice: bool = False, scale: float = 1.0) -> Path:
    """Images (N, 4, 8, 8) → Conv → BatchNormalization → ReLU; with ``twice`` the Conv is an output as well."""
    arrays = {
        "conv.weight": RNG.normal(size=(8, 4 // groups, 3, 3)) * scale,
        "conv.bias": RNG.normal(size=8),
        "bn.weight": RNG.normal(size=8),
        "bn.bias": RNG.normal(size=8),
        "bn.mean": RNG.normal(size=8),
        "bn.var": RNG.uniform(0.1, 2, size=8),
    }
    if not bias:
        del arrays["conv.bias"]
    nodes = [
        helper.make_node(
            "Conv", ["images", *(name for name in arrays if name.startswith("conv"))], ["c"], "/conv/Conv",
            group=groups, pads=[1] * 4,
        ),
        helper.make_node(
            "BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["n"], "/bn/BatchNormalization",
            epsilon=1e-3,
        ),
        helper.make_node("Relu", ["n"], ["logits"], "/relu/Relu"),
    ]  # fmt: skip
    shape: list[Any] = ["batch", 8, 8, 8]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ["logits", *["c"] * twice]]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        outputs,
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def answers(path: Path) -> np.ndarray:
    images = np.random.default_rng(1).normal(size=(3, 4, 8, 8)).astype(np.float32)
    return np.asarray(reference.session(path).run(["logits"], {"images": images})[0])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_pair_gives_the_same_answers(tmp_path: Path, groups: int, bias: bool) -> None:
    src = conv_net(tmp_path / "a.onnx", groups=groups, bias=bias)
    assert fold_batchnorm.fold_batchnorm(src, tmp_path / "b.onnx") == "BatchNormalization 1 → 0"
    np.testing.assert_allclose(answers(tmp_path / "b.onnx"), answers(src), rtol=1e-5, atol=1e-5)
    names = [initializer.name for initializer in onnx.load(tmp_path / "b.onnx").graph.initializer]
    assert sorted(names) == ["conv.bias", "conv.weight"]


def test_a_convolution_that_feeds_two_consumers_is_left_alone(tmp_path: Path) -> None:
    src = conv_net(tmp_path / "a.onnx", twice=True)
    assert fold_batchnorm.fold_batchnorm(src, tmp_path / "b.onnx") == "BatchNormalization 1 → 1"
    np.testing.assert_array_equal(answers(tmp_path / "b.onnx"), answers(src))


def test_what_float16_does_not_hold_stays_in_float32_and_is_named(tmp_path: Path) -> None:
    for name, scale, reason in (("high", 1e6, "weights reach 3"), ("low", 1e-9, "weights as low as")):
        src = conv_net(tmp_path / f"{name}.onnx", scale=scale)
        work = float16.float16(src, tmp_path / "b.onnx", {})
        assert f"float32 kept: conv ({reason}" in work
        types = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "b.onnx").graph.initializer}
        assert types["conv.weight"] == onnx.TensorProto.FLOAT
    src = conv_net(tmp_path / "a.onnx")
    work = float16.float16(src, tmp_path / "b.onnx", {"n": 40000.0, "c": 1e-6})
    assert "float32 kept: conv (activations reach no more than 1e-06), bn (" in work
    assert work.endswith("relu (activations reach 4e+04)")
    work = float16.float16(src, tmp_path / "b.onnx", {"n": 32000.0, "c": 1e-3})
    assert "float32" not in work


def test_activations_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    src = conv_net(tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="activations of conv"):
        float16.float16(src, tmp_path / "b.onnx", {"c": float("nan")})


def test_a_file_that_keeps_weights_elsewhere_is_refused(tmp_path: Path) -> None:
    model = onnx.load(conv_net(tmp_path / "a.onnx"))
    onnx.save(model, tmp_path / "b.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ValueError, match=r"keeps conv\.weight in another file"):
        onnx_file.read(tmp_path / "b.onnx")


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07" * 400])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.onnx is (not a valid ONNX file|truncated or no ONNX file)"):
        onnx_file.read(tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=r"b\.onnx cannot be read \(No such file"):
        onnx_file.read(tmp_path / "b.onnx")


def test_modules_are_found_by_the_names_of_nodes() -> None:
    names = {
        "/layer1/layer1.0/conv1/Conv": "layer1.0.conv1",
        "/layer2/layer2.0/downsample/downsample.0/Conv": "layer2.0.downsample.0",
        "/conv1/Conv": "conv1",
        "/fc/Gemm": "fc",
        "": "",
    }
    for name, module in names.items():
        assert onnx_file.module_of(ir.node("Conv", [], name=name)) == module


def test_the_uint8_form_is_exact(built: Path, tmp_path: Path) -> None:
    model = onnx_file.read(built / "05-int8.onnx")
    ort_integers.to_uint8(model.graph)
    onnx_file.write(model, tmp_path / "u8.onnx")
    images = RNG.uniform(0, 255, size=(16, 1, 32, 32)).astype(np.float32)
    before = reference.session(built / "05-int8.onnx").run(["logits"], {"images": images})[0]
    after = reference.session(tmp_path / "u8.onnx").run(["logits"], {"images": images})[0]
    np.testing.assert_array_equal(before, after)
    kinds = {node.op_type for node in model.graph}
    assert "Max" in kinds


@pytest.mark.parametrize("ends_in_softmax", [False, True])
def test_probabilities_are_those_of_the_logits_or_those_that_are_there(tmp_path: Path, ends_in_softmax: bool) -> None:
    network = nn.Sequential(nn.Conv2d(1, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if ends_in_softmax:
        network.append(nn.Softmax(-1))
    plain, shares = tmp_path / "plain.onnx", tmp_path / "shares.onnx"
    export.export(network.eval(), plain, (1, 8, 8), {})
    probabilities.probabilities(plain, shares)
    images = np.random.default_rng(0).uniform(0, 255, (3, 1, 8, 8)).astype(np.float32)
    answers = reference.session(plain).run(None, {"images": images})[0]
    exponentials = np.exp(answers - answers.max(1, keepdims=True))
    expected = answers if ends_in_softmax else exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(reference.session(shares).run(["probabilities"], {"images": images})[0], expected, 1e-5)


def test_merged_groups_are_exact(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = RNG.uniform(0, 255, size=(16, 1, 32, 32)).astype(np.float32)
    groups = []
    answers = []
    for full in (1, ort_integers.FULL_GROUP):
        monkeypatch.setattr(ort_integers, "FULL_GROUP", full)
        path = tmp_path / f"{full}.ort.onnx"
        engine.BACKEND.build(built / "05-int8.onnx", path)
        nodes = [node for node in onnx_file.read(path, check=False).graph if node.op_type == "QLinearConv"]
        groups.append([node.attributes["group"].as_int() for node in nodes])
        answers.append(engine.BACKEND.load(path).run(images))
    assert [sorted(counts)[-3:] for counts in groups] == [[4, 4, 4], [2, 4, 4]]  # 8, 16 and 32 channels each
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(("smaller", "kind"), [(0.5, "QGemm"), (1e-9, "Gemm")], ids=["fits", "beyond INT32"])
def test_the_classifier_runs_in_integers_where_its_bias_fits(
    built: Path, tmp_path: Path, smaller: float, kind: str
) -> None:
    model = onnx.load(built / "05-int8.onnx")
    array("fc.weight_scale", lambda scale: scale * np.float32(smaller))(model)
    onnx.save(model, tmp_path / "a.onnx")
    engine.BACKEND.build(tmp_path / "a.onnx", tmp_path / "b.ort.onnx")
    kinds = [node.op_type for node in onnx_file.read(tmp_path / "b.ort.onnx", check=False).graph]
    assert [found for found in kinds if "Gemm" in found] == [kind]
    images = RNG.uniform(0, 255, size=(16, 1, 32, 32)).astype(np.float32)
    before = reference.session(tmp_path / "a.onnx").run(["logits"], {"images": images})[0]
    after = engine.BACKEND.load(tmp_path / "b.ort.onnx").run(images)
    np.testing.assert_allclose(after, before, rtol=0, atol=0.02 * np.abs(before).max())


def test_a_crash_in_a_child_is_an_error_here() -> None:
    with pytest.raises(RuntimeError, match="os:abort crashed \\(SIGABRT\\)"):
        child.call("os:abort")
    with pytest.raises(RuntimeError, match="time:sleep failed: TypeError"):
        child.call("time:sleep", "1")
    with pytest.raises(RuntimeError, match="did not end within 1 s"):
        child.call("signal:pause", seconds=1)


def test_weights_stay_int8_where_their_sums_do_not_saturate(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest weights everywhere: the sums differ between the two forms if and only if this processor saturates."""
    model = onnx.load(built / "05-int8.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and tensor.dims:
            levels = np.where(numpy_helper.to_array(tensor) < 0, -127, 127).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(levels, tensor.name))
    onnx.save(model, tmp_path / "a.onnx")
    images = RNG.uniform(0, 255, size=(16, 1, 32, 32)).astype(np.float32)
    here = engine.processor()
    kinds = []
    answers = []
    for machine in ("x86 with VNNI", "x86 without VNNI"):
        monkeypatch.setattr(engine, "processor", lambda machine=machine: machine)
        path = tmp_path / f"{machine}.ort.onnx"
        engine.BACKEND.build(tmp_path / "a.onnx", path)
        integer = [node for node in onnx_file.read(path, check=False).graph if node.op_type in {"QLinearConv", "QGemm"}]
        kinds.append({str(node.inputs[3].dtype) for node in integer if node.inputs[3] is not None})
        answers.append(reference.session(path, ort_session.LAYOUTS).run(["logits"], {"images": images})[0])
    assert kinds == [{"INT8"}, {"UINT8"}]
    assert np.array_equal(*answers) == (here != "x86 without VNNI")


@pytest.mark.parametrize(
    ("kind", "largest", "refused"), [(np.int8, -65, True), (np.int8, -64, False), (np.uint8, 255, False)]
)
def test_a_file_whose_sums_would_saturate_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[np.generic], largest: int, refused: bool
) -> None:
    arrays = {
        "s": np.float32(1),
        "z": np.uint8(0),
        "w": np.full((1, 1, 1, 1), largest, kind),
        "wz": np.zeros(1, kind),
        "ws": np.ones(1, "f4"),
    }
    conv = helper.make_node("QLinearConv", ["x", "s", "z", "w", "ws", "wz", "s", "z"], ["y"], "/conv/Conv")
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, ["n", 1, 2, 2]) for name in "xy"]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph([conv], "net", ends[:1], ends[1:], initializers)
    path = tmp_path / "x.ort.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    monkeypatch.setattr(engine, "processor", lambda: "x86 with VNNI")
    assert engine.BACKEND.load(path)
    monkeypatch.setattr(engine, "processor", lambda: "x86 without VNNI")
    if refused:
        with pytest.raises(RuntimeError, match="its INT8 sums would saturate; build it again here"):
            engine.BACKEND.load(path)
    else:
        assert engine.BACKEND.load(path)


def test_a_provider_that_is_not_there_never_falls_back_to_the_cpu(built: Path, tmp_path: Path) -> None:
    assert onnxruntime_cuda.BACKEND.available() is not None
    with pytest.raises(RuntimeError, match=r"asked ONNX Runtime for CUDAExecutionProvider, it has .*CPUExecution"):
        onnxruntime_cuda.BACKEND.build(built / "04-fold_batchnorm.onnx", tmp_path / "a.cuda.onnx")
