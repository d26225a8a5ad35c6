"""What a bundle becomes for others: their own readers read it, and its answers are those that were judged."""

from __future__ import annotations

import configparser
import importlib.util
import io
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from shipping import refused

from exporters import trtexec
from pipeline.errors import BadRequest
from pipeline.ship import export as exports
from pipeline.ship.agent import container

if TYPE_CHECKING:
    from shipping import Shipped

# Of the plugin's manual (Gst-nvinfer, DeepStream 7.0), table of the group property.
KEYS = """
    batch-size classifier-threshold gie-unique-id gpu-id infer-dims labelfile-path maintain-aspect-ratio
    model-color-format model-engine-file net-scale-factor network-type offsets output-blob-names process-mode
    scaling-compute-hw scaling-filter
""".split()


def export(shipped: Shipped, form: str, output: Path, tensorrt: str | None = None, **more: Path) -> list[str]:
    """``more`` are the engine, and another ``file`` than the bundle of all tests."""
    bundle = container.opened(str(more.pop("file", shipped.file)), shipped.trusted())
    return exports.export(bundle, form, output, tensorrt, more.get("engine"))


def answers(path: Path, images: Any) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    (name,) = (tensor.name for tensor in session.get_inputs())
    return session.run(None, {name: images})[0]


def goldens(shipped: Shipped) -> tuple[Any, Any]:
    images, judged = (np.load(io.BytesIO(shipped.members()[f"golden-{name}.npy"])) for name in ("images", "judged"))
    return images.astype(np.float32), judged


def test_triton_by_the_graph_that_was_judged(shipped: Shipped, tmp_path: Path) -> None:
    key = ("--key", shipped.public, "-o", tmp_path / "out")
    done = shipped.pipeline("export", shipped.file, "--format", "triton", *key)
    assert (done.returncode, "onnxruntime_onnx" in done.stdout) == (0, True), done.stderr
    home = tmp_path / "out" / "resnext_tiny-int8"
    text = (home / "config.pbtxt").read_text()
    assert "dims: [ 1, 32, 32 ]" in text
    assert "optimization { graph { level: 2 } }" in text
    assert (home / "labels.txt").read_text().splitlines() == json.loads(shipped.members()["classes.json"])
    images, judged = goldens(shipped)
    # Level 2 is ONNX Runtime without optimisations.
    assert (answers(home / "1/model.onnx", images).argmax(1) == judged.argmax(1)).mean() > 0.95
    assert "is there already" in refused(shipped.pipeline("export", shipped.file, "--format", "trtexec", *key))


def test_triton_by_an_engine_of_the_machine_that_serves(shipped: Shipped, tmp_path: Path) -> None:
    engine = tmp_path / "engine.plan"
    engine.write_bytes(b"built there")
    export(shipped, "triton", tmp_path / "out", engine=engine)
    home = tmp_path / "out" / "resnext_tiny-int8"
    assert (home / "1/model.plan").read_bytes() == b"built there"
    text = (home / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"' in text
    assert "optimization" not in text
    for name, sentence in (("engine.bin", "is no .plan"), ("none.plan", "cannot be read")):
        with pytest.raises(BadRequest, match=sentence):
            export(shipped, "triton", tmp_path / "no", engine=tmp_path / name)
    assert not (tmp_path / "no").exists()
    model = {**shipped.opened().manifest["model"], "batches": [2, 8, 16]}
    pairs = shipped.again("pairs.edge", model=model)
    with pytest.raises(BadRequest, match="it sends single images, and the engine takes at least 2"):
        export(shipped, "triton", tmp_path / "no", engine=engine, file=pairs)


@pytest.mark.fleet
def test_tritons_own_reader_takes_it(shipped: Shipped, tmp_path: Path) -> None:
    from google.protobuf import text_format

    # The package around them wants another protobuf than ONNX does; its messages are content with any.
    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(next(iter(package.submodule_search_locations))) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    messages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(messages)
    (tmp_path / "engine.plan").write_bytes(b"")
    for number, engine in enumerate(({}, {"engine": tmp_path / "engine.plan"})):
        export(shipped, "triton", tmp_path / str(number), **engine)
        (path,) = (tmp_path / str(number)).glob("*/config.pbtxt")
        read = text_format.Parse(path.read_text(), messages.ModelConfig())
        assert (read.name, read.max_batch_size) == (path.parent.name, 16)
        assert [(tensor.name, list(tensor.dims)) for tensor in (*read.input, *read.output)] == [
            ("images", [1, 32, 32]),
            ("logits", [10]),
        ]
        assert read.optimization.graph.level == (0 if engine else 2)


def test_deepstream(shipped: Shipped, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BadRequest, match=r"name that of the device, as in --tensorrt 10\.3\.0"):
        export(shipped, "deepstream", out)
    export(shipped, "deepstream", out, "10.3.0")
    read = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    read.read(out / "config_infer.txt")
    settings = dict(read["property"])
    assert sorted(settings) == KEYS
    assert (settings["net-scale-factor"], settings["offsets"], settings["model-color-format"]) == ("1.0", "0", "2")
    assert (settings["infer-dims"], settings["batch-size"], settings["network-type"]) == ("1;32;32", "16", "1")
    labels = (out / settings["labelfile-path"]).read_text().rstrip("\n").split(";")
    assert labels == json.loads(shipped.members()["classes.json"])
    script = (out / "build-engine.sh").read_text()
    assert f"engine=${{1:-{settings['model-engine-file']}}}" in script
    images, judged = goldens(shipped)
    shares = answers(out / "model.onnx", images)
    logits = np.exp(judged - judged.max(1, keepdims=True))
    assert np.allclose(shares.sum(1), 1, atol=1e-5)
    assert np.abs(shares - logits / logits.sum(1, keepdims=True)).max() < 0.05
    assert settings["output-blob-names"] == "probabilities"


def test_deepstream_of_what_nvinfer_cannot_do(shipped: Shipped, tmp_path: Path) -> None:
    model = shipped.opened().manifest["model"]
    bytes_in = shipped.again("bytes.edge", model={**model, "dtype": "uint8"})
    with pytest.raises(BadRequest, match="nvinfer hands on float32"):
        export(shipped, "deepstream", tmp_path / "no", "10.3.0", file=bytes_in)
    names = json.dumps(["a;b", *json.loads(shipped.members()["classes.json"])[1:]]).encode()
    twice = shipped.again("twice.edge", {"classes.json": names})
    with pytest.raises(BadRequest, match="cannot hold the class 'a;b'"):
        export(shipped, "deepstream", tmp_path / "no", "10.3.0", file=twice)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("version", ["10.3.0", "11.4.1"])
def test_trtexec_by_the_line_of_its_version(shipped: Shipped, tmp_path: Path, version: str) -> None:
    (line,) = export(shipped, "trtexec", tmp_path / "out", version)
    flags = trtexec.flags([1, 32, 32], "int8", {"tensorrt": version, "profiles": [[1, 8, 16]], "typing": "strong"})
    assert line.split() == ["trtexec", "--onnx=model.onnx", "--saveEngine=model.engine", *flags]
    assert ("--stronglyTyped" in line) == (version == "10.3.0")
    script = (tmp_path / "out" / "build-engine.sh").read_text()
    assert all(flag in script for flag in flags)
    assert subprocess.run(["sh", "-n", tmp_path / "out" / "build-engine.sh"], check=False).returncode == 0


def test_a_trtexec_that_cannot(shipped: Shipped, tmp_path: Path) -> None:
    for version, engine, sentence in (
        ("8.6.2", None, r"8\.6\.2 does not keep the types of int8; build again with --target"),
        ("new", None, "is no version"),
        ("10.3.0", tmp_path / "a.plan", "goes with --format triton"),
    ):
        with pytest.raises(BadRequest, match=sentence):
            export(shipped, "trtexec", tmp_path / "out", version, **({"engine": engine} if engine else {}))
    assert not list(tmp_path.iterdir())
