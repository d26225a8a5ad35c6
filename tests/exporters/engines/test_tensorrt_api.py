"""Every TensorRT that we support, by the API of its binding wheel: the builder uses only what each one has."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tensorrt_surface import SURFACES, Strict, library

from exporters.engines import tensorrt, trt_builder
from exporters.portable import cuda

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = {
    "profiles": [[1, 1, 1], [2, 4, 8]],
    "workspace": 2**31,
    "builder_optimization_level": 4,
    "dla_core": 1,
    "version_compatible": True,
    "hardware_compatibility": "ampere-plus",
}
FULL = [version for version in SURFACES if not version.startswith("rtx")]


@pytest.fixture
def heard() -> dict[str, Any]:
    return {}


def told(
    monkeypatch: pytest.MonkeyPatch, version: str, heard: dict[str, Any], src: Path, dst: Path, **options: Any
) -> dict[str, Any]:
    """What the builder answers with ``version`` in the place of the real library."""
    module = library(version, heard)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return trt_builder.in_child(module.__name__, str(src), str(dst), json.dumps(options))


@pytest.mark.parametrize("version", FULL)
def test_every_option_is_in_the_words_of_each_version(
    monkeypatch: pytest.MonkeyPatch, version: str, heard: dict[str, Any], built: Path, tmp_path: Path
) -> None:
    made = told(monkeypatch, version, heard, built / "05-int8.onnx", tmp_path / "x.engine", **EVERYTHING)
    assert (tmp_path / "x.engine").read_bytes() == b"plan"
    assert made["convolutions"] == 13
    assert heard["flags"] == {"GPU_FALLBACK", "VERSION_COMPATIBLE", *(["INT8"] if version.startswith("8.") else [])}
    assert [[shape[0] for shape in shapes[1:]] for shapes in heard["profiles"]] == EVERYTHING["profiles"]
    assert heard["workspace"] == (SURFACES[version]["MemoryPoolType"]["WORKSPACE"], 2**31)
    assert (heard["config"].DLA_core, heard["config"].builder_optimization_level) == (1, 4)
    assert heard["config"].profiling_verbosity == SURFACES[version]["ProfilingVerbosity"]["DETAILED"]


@pytest.mark.parametrize(
    ("version", "name"),
    [("8.6.1", "EXPLICIT_BATCH"), ("10.3.0", "STRONGLY_TYPED"), ("10.16.1.11", "STRONGLY_TYPED"), ("11.4.0", None)],
)
def test_networks_are_strongly_typed_wherever_that_is_a_choice(
    monkeypatch: pytest.MonkeyPatch, version: str, name: str | None, heard: dict[str, Any], built: Path, tmp_path: Path
) -> None:
    told(monkeypatch, version, heard, built / "04-fold_batchnorm.onnx", tmp_path / "x.engine")
    bit = SURFACES[version]["NetworkDefinitionCreationFlag"][name] if name else None
    assert heard["network"] == (0 if bit is None else 1 << bit)
    assert heard["flags"] == set()  # float32, and TensorFloat-32 as it was
    assert ("progress_monitor" in vars(heard["config"])) == (version != "8.6.1")


def test_rtx_is_built_for_the_gpus_that_were_named(
    monkeypatch: pytest.MonkeyPatch, heard: dict[str, Any], built: Path, tmp_path: Path
) -> None:
    told(monkeypatch, "rtx-1.7.1", heard, built / "05-int8.onnx", tmp_path / "x.engine", rtx_sm=["86", "120"])
    capabilities = SURFACES["rtx-1.7.1"]["ComputeCapability"]
    assert heard["sm"] == [capabilities["SM86"], capabilities["SM120"]]
    assert heard["config"].num_compute_capabilities == 2


@pytest.mark.parametrize("version", FULL)
def test_a_timing_cache_is_read_and_kept(
    monkeypatch: pytest.MonkeyPatch, version: str, heard: dict[str, Any], built: Path, tmp_path: Path
) -> None:
    src = built / "05-int8.onnx"
    dst = tmp_path / "x.engine"
    path = tmp_path / "a.cache"
    for before in (b"", b"times"):
        told(monkeypatch, version, heard, src, dst, timing_cache=str(path))
        assert (heard["cache"], path.read_bytes()) == (before, b"times")
    path.write_bytes(b"foreign")
    with pytest.raises(SystemExit, match=r"a\.cache is no timing cache of this GPU and TensorRT; name another file"):
        told(monkeypatch, version, heard, src, dst, timing_cache=str(path))
    assert path.read_bytes() == b"foreign"


@pytest.mark.parametrize(
    ("version", "options", "sentence"),
    [
        ("8.6.1", {"error_on_timing_cache_miss": True}, "8.6.1 has no BuilderFlag.ERROR_ON_TIMING_CACHE_MISS"),
        ("10.7.0", {"hardware_compatibility": "same-compute-capability"}, "HardwareCompatibilityLevel.SAME_COMPUTE"),
    ],
)
def test_what_a_version_lacks_is_an_error_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    options: dict[str, Any],
    sentence: str,
    heard: dict[str, Any],
    built: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit, match=sentence):
        told(monkeypatch, version, heard, built / "05-int8.onnx", tmp_path / "x.engine", **options)
    assert not (tmp_path / "x.engine").exists()


@pytest.mark.parametrize(("version", "node"), [("8.6.1", "3"), ("10.3.0", "/conv1/Conv")])
def test_the_parser_names_its_node_in_every_version(
    monkeypatch: pytest.MonkeyPatch, version: str, node: str, heard: dict[str, Any], built: Path, tmp_path: Path
) -> None:
    heard["refuse"] = True
    with pytest.raises(SystemExit, match=rf"the parser refuses 05-int8\.onnx: no such thing \(node {node}\)"):
        told(monkeypatch, version, heard, built / "05-int8.onnx", tmp_path / "x.engine")


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("version", FULL)
def test_an_engine_runs_any_number_of_images_in_the_batches_that_it_was_built_for(
    monkeypatch: pytest.MonkeyPatch, version: str, kind: str, tmp_path: Path
) -> None:
    """A static engine of 4 under a stand-in that hands back the first pixel: no answer is lost or made up."""
    surface = SURFACES[version]
    ran: list[int] = []
    pixels: list[Any] = []
    context = Strict(
        surface["IExecutionContext"],
        set_optimization_profile_async=lambda profile, _: profile == 1,
        set_input_shape=lambda _, shape: ran.append(shape[0]) is None,
        get_tensor_shape=lambda _: (ran[-1], 1),
        set_tensor_address=lambda *_: True,
        execute_async_v3=lambda _: True,
    )
    profiles = [((1,), (1,), (1,)), ((4,), (4,), (4,))]
    engine = Strict(
        surface["ICudaEngine"],
        num_optimization_profiles=2,
        get_tensor_dtype=lambda _: kind,
        get_tensor_profile_shape=lambda _, profile: profiles[profile],
        create_execution_context=lambda: context,
    )
    module: Any = library(version, {})
    module.uint8, module.float32 = "uint8", "float32"
    module.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda *_: None})
    module.Runtime = lambda _: Strict(surface["Runtime"], deserialize_cuda_engine=lambda _: engine)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    address = nullcontext(type("Address", (), {"value": 0}))
    monkeypatch.setattr(cuda, "stream", lambda: address)
    monkeypatch.setattr(cuda, "buffer", lambda _: address)
    monkeypatch.setattr(cuda, "wait", lambda _: None)
    monkeypatch.setattr(cuda, "to_device", lambda _, images: pixels.append(images))
    monkeypatch.setattr(cuda, "to_host", lambda logits, _: np.copyto(logits, pixels[-1][:, 0, 0, :1]))
    (tmp_path / "x.engine").write_bytes(b"plan")
    images = np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1)
    answers = tensorrt.load(tmp_path / "x.engine")(images)
    assert ran == [4, 4]
    assert {str(batch.dtype) for batch in pixels} == {kind}
    np.testing.assert_array_equal(answers[:, 0], np.arange(7))
