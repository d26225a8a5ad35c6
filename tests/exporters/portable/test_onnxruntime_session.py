"""Sessions of ONNX Runtime as both sides make them, against what it is and answers here."""

from __future__ import annotations

import platform

import onnx
import pytest

from exporters.engines import onnxruntime as backend
from exporters.portable import onnxruntime_session
from exporters.portable.errors import NativeError


def test_sums_saturate_on_x86_without_vnni_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert onnxruntime_session.sums_saturate() == (backend.machine() == backend.SATURATES)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not onnxruntime_session.sums_saturate()


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
