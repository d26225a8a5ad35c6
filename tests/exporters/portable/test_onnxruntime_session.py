"""Sessions of ONNX Runtime as both sides make them, against what it is and answers here."""

from __future__ import annotations

import platform
from pathlib import Path

import onnx
import pytest

from exporters.portable import onnxruntime_session
from exporters.portable.errors import NativeError


def test_sums_saturate_on_x86_without_vnni_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    words = set(Path("/proc/cpuinfo").read_text().split())
    with_vnni = bool(words & {"avx512_vnni", "avx_vnni"})
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert onnxruntime_session.sums_saturate() != with_vnni
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not onnxruntime_session.sums_saturate()


@pytest.mark.parametrize(
    ("flags", "there"), [("avx2 avx512_vnni", True), ("avx_vnni fma", True), ("avx2 avx512f", False), ("vnni", False)]
)
def test_vnni_by_the_flags_of_a_processor(flags: str, there: bool) -> None:
    assert (onnxruntime_session.VNNI.search(flags) is not None) == there


def test_another_provider_than_the_one_asked_for_is_an_error() -> None:
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    opset = onnx.helper.make_opsetid("", 17)
    content = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    options = onnxruntime_session.settings("ORT_DISABLE_ALL")
    made = onnxruntime_session.session(content, options)
    assert made.get_providers() == [onnxruntime_session.CPU]
    with pytest.warns(UserWarning, match="not in available provider names"):  # noqa: SIM117
        with pytest.raises(NativeError, match="asked ONNX Runtime for CUDAExecutionProvider, it runs CPU"):
            onnxruntime_session.session(content, options, "CUDAExecutionProvider")
