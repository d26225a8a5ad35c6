"""What an ONNX file says of itself, next to what onnx reads in it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.onnx_glance import glance

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two nodes, a weight, and metadata of which one says nothing."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "weight")
    nodes = [
        helper.make_node("MatMul", ["images", "weight"], ["product"], "/fc/MatMul"),
        helper.make_node("Relu", ["product"], ["logits"], "/relu/Relu"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "small", [images], [logits], [weight]))
    helper.set_model_props(model, {"classes": '["Käse", "犬"]', "commit": ""})
    file = tmp_path / "small.onnx"
    onnx.save(model, file)
    return file


def test_it_is_what_onnx_reads(path: Path) -> None:
    model = onnx.load(path)
    seen = glance(path)
    assert seen.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert seen.operators == Counter(node.op_type for node in model.graph.node)


def test_files_of_a_build_are_read_as_onnx_reads_them(built: Path) -> None:
    for file in sorted(built.glob("*.onnx")):
        model = onnx.load(file)
        seen = glance(file)
        assert seen.metadata == {entry.key: entry.value for entry in model.metadata_props}
        assert seen.operators == Counter(node.op_type for node in model.graph.node)


def test_what_is_no_onnx_file_is_refused(path: Path) -> None:
    content = path.read_bytes()
    # In the middle of the graph, and of the metadata.
    for length in (0, 3, len(content) // 2, len(content) - 2):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"small\.onnx is no ONNX file \("):
            glance(path)
    path.write_text('{"classes": []}')
    with pytest.raises(ValueError, match=r"small\.onnx is no ONNX file"):
        glance(path)
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        glance(path)
