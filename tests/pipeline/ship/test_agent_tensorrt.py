"""The agent's calls into TensorRT, held against the API of every version's binding wheel."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tensorrt_surface import SURFACES, Strict, library

from exporters.portable import cuda
from exporters.portable.errors import NativeError
from pipeline.ship import bundle_members
from pipeline.ship.agent import tensorrt_engine
from pipeline.ship.agent.errors import Broken

if TYPE_CHECKING:
    from pathlib import Path

    from shipping import Shipped

FULL = [version for version in SURFACES if not version.startswith("rtx")]


@pytest.fixture
def heard() -> dict[str, Any]:
    return {}


def build(
    monkeypatch: pytest.MonkeyPatch, version: str, heard: dict[str, Any], folder: Path, **job: Any
) -> dict[str, Any]:
    module = library(version, heard)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    precision = "int8-trt8" if version.startswith("8.") else "int8-fp16"
    asked = {"model": "model.onnx", "engine": str(folder / "engine.plan"), "workspace": 2**28, "batches": [1, 4, 8]}
    model = {"precision": precision, **bundle_members.needs(precision), "dtype": "float32", "classes": 10}
    return tensorrt_engine.build({**asked, **model, **job})


@pytest.mark.parametrize("version", FULL)
def test_an_engine_is_built_in_the_words_of_each_version(
    monkeypatch: pytest.MonkeyPatch, version: str, heard: dict[str, Any], tmp_path: Path
) -> None:
    assert build(monkeypatch, version, heard, tmp_path) == {"warnings": []}
    assert (tmp_path / "engine.plan").read_bytes() == b"plan"
    assert (tmp_path / "timing.cache").read_bytes() == b"times"
    assert heard["workspace"] == (SURFACES[version]["MemoryPoolType"]["WORKSPACE"], 2**28)
    assert [shape[0] for shape in heard["profiles"][0][1:]] == [1, 4, 8]
    weak = version.startswith("8.")
    assert heard["flags"] == ({"INT8", "FP16"} if weak else set())
    flags = SURFACES[version]["NetworkDefinitionCreationFlag"]
    bit = None if version.startswith("11") else flags["EXPLICIT_BATCH" if weak else "STRONGLY_TYPED"]
    assert heard["network"] == (0 if bit is None else 1 << bit)
    assert ("progress_monitor" in vars(heard["config"])) != weak


@pytest.mark.parametrize("version", FULL)
def test_a_foreign_timing_cache_is_told_and_not_used(
    monkeypatch: pytest.MonkeyPatch, version: str, heard: dict[str, Any], tmp_path: Path
) -> None:
    cache = tmp_path / "timing-jetson-orin-nx.cache"
    cache.write_bytes(b"foreign")
    said = build(monkeypatch, version, heard, tmp_path, timing_cache=str(cache))
    assert said["warnings"] == [
        "timing-jetson-orin-nx.cache is of another GPU or TensorRT: every kernel was timed here"
    ]
    assert heard["cache"] == b""
    cache.write_bytes(b"own")
    assert build(monkeypatch, version, heard, tmp_path, timing_cache=str(cache)) == {"warnings": []}
    assert heard["cache"] == b"own"


@pytest.mark.parametrize(("version", "node"), [("8.6.1", "3"), ("10.3.0", "/conv1/Conv"), ("11.4.0", "/conv1/Conv")])
def test_a_graph_that_is_not_read_names_its_node(
    monkeypatch: pytest.MonkeyPatch, version: str, node: str, heard: dict[str, Any], tmp_path: Path
) -> None:
    heard["refuse"] = True
    with pytest.raises(Broken, match=rf"does not read model\.onnx: no such thing \(node {node}\)"):
        build(monkeypatch, version, heard, tmp_path)
    assert not (tmp_path / "engine.plan").exists()


def engine(monkeypatch: pytest.MonkeyPatch, version: str, ran: list[int], kind: str = "FLOAT") -> None:
    """A TensorRT whose engine hands back the first pixel of each image."""
    surface, pixels = SURFACES[version], []
    module: Any = library(version, {})
    context = Strict(
        surface["IExecutionContext"],
        set_input_shape=lambda _, shape: ran.append(shape[0]) is None,
        get_tensor_shape=lambda _: (ran[-1], 1),
        set_tensor_address=lambda *_: True,
        execute_async_v3=lambda _: True,
    )
    held = Strict(
        surface["ICudaEngine"],
        num_io_tensors=2,
        get_tensor_name=lambda index: ("images", "logits")[index],
        get_tensor_mode=lambda name: getattr(module.TensorIOMode, {"images": "INPUT", "logits": "OUTPUT"}[name]),
        get_tensor_dtype=lambda name: getattr(module.DataType, kind if name == "logits" else "FLOAT"),
        create_execution_context=lambda: context,
    )
    module.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda *_: None})
    module.Runtime = lambda _: Strict(surface["Runtime"], deserialize_cuda_engine=lambda _: held)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    address = nullcontext(type("Address", (), {"value": 1}))
    monkeypatch.setattr(cuda, "stream", lambda: address)
    monkeypatch.setattr(cuda, "buffer", lambda _: address)
    monkeypatch.setattr(cuda, "wait", lambda _: None)
    monkeypatch.setattr(cuda, "to_device", lambda _, images: pixels.append(images))
    monkeypatch.setattr(cuda, "to_host", lambda logits, _: np.copyto(logits, pixels[-1][:, 0, 0, :1]))


@pytest.mark.parametrize("version", FULL)
def test_any_number_of_images_runs_in_batches_of_the_profile(
    monkeypatch: pytest.MonkeyPatch, version: str, tmp_path: Path
) -> None:
    ran: list[int] = []
    engine(monkeypatch, version, ran)
    (tmp_path / "engine.plan").write_bytes(b"plan")
    run = tensorrt_engine.load(
        {"engine": str(tmp_path / "engine.plan"), "batches": [2, 4, 4], "dtype": "float32", "classes": 1}
    )
    images = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1)
    np.testing.assert_array_equal(run(images)[:, 0], np.arange(5))
    assert ran == [4, 2]


def test_an_engine_of_another_type_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine(monkeypatch, "10.3.0", [], "HALF")
    (tmp_path / "engine.plan").write_bytes(b"plan")
    job = {"engine": str(tmp_path / "engine.plan"), "batches": [1, 4, 4], "dtype": "float32", "classes": 1}
    with pytest.raises(Broken, match="does not take float32 and answer float32"):
        tensorrt_engine.load(job)


def test_without_a_gpu_cuda_says_so() -> None:
    assert cuda.name() is None
    assert cuda.compute_capability() is None
    with pytest.raises(NativeError, match="no NVIDIA GPU"), cuda.buffer(8):
        pass


def test_a_tensorrt_for_another_driver_is_none_and_no_crash(shipped: Shipped, tmp_path: Path) -> None:
    """Exit code 1 would say that the network is not the one that was judged."""
    (tmp_path / "tensorrt.py").write_text("raise RuntimeError('driver mismatch')\n")
    done = shipped.run("preflight", shipped.file, "--store", tmp_path / "s", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    (tmp_path / "onnxruntime.py").write_text("raise RuntimeError('no such instruction')\n")
    done = shipped.run("preflight", shipped.file, "--store", tmp_path / "s", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
