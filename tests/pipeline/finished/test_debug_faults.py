"""Faults of many kinds, planted into each graph of one build: each is named, and what is honest is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import planting
import pytest
from conftest import ROOT
from faults import array, attribute, bump, neighbour, skip, swap_arrays
from onnx import numpy_helper
from planting import (
    BIAS,
    BN1,
    BN2,
    CONV,
    POOL,
    RELU,
    SHORTCUT,
    SUM,
    after,
    all_of,
    before_readers,
    by,
    clipped,
    one,
    operator,
    own_scale,
    own_zero_point,
    reads,
    reshaped,
    some_images,
)  # fmt: skip

from exporters.float16 import float16
from pipeline.data import sampling
from pipeline.data.arrays import Arrays
from pipeline.errors import BadRequest
from pipeline.finished.debug import diagnose
from pipeline.finished.finished_build import FinishedBuild

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

    from pipeline.data.images import Images

CONV2, ADD = "/layer2/layer2.0/conv2/Conv", "/layer2/layer2.0/Add"
BATCHNORM, ACTIVATION = "/layer2/layer2.0/bn2/BatchNormalization", "/layer2/layer2.0/relu/Relu"
QUANTISE, DEQUANTISE = f"{RELU}_QuantizeLinear", f"{RELU}_DequantizeLinear"
MEAN_POOL = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
IMAGES = 20


class Stages:
    """The graphs of one build by their stages, and some of the images that judged it."""

    def __init__(self, directory: Path, elsewhere: Path) -> None:
        self.directory = directory
        build = FinishedBuild.open(directory)
        self.images: Images = sampling.some(build.test_images(), IMAGES)
        self.files = {row.name: build.path(row) for row in build.stages if str(row.file).endswith(".onnx")}
        self.sources = {row.name: self.files.get(row.source or "") for row in build.stages}
        self.files["fp16"] = elsewhere / "fp16.onnx"
        self.sources["fp16"] = self.files["fold_batchnorm"]
        float16(self.files["fold_batchnorm"], self.files["fp16"], {})

    def pair(self, stage: str) -> tuple[Path, Path]:
        source = self.sources[stage]
        assert source is not None
        return source, self.files[stage]


@pytest.fixture(scope="module")
def stages(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A ResNet of basic blocks in every precision, trained for seconds."""
    output = tmp_path_factory.mktemp("resnet") / "int8-fp16"
    cli.report("--arch", "resnet_tiny", "--precision", "int8-fp16", "--engine", "onnxruntime", "-o", output)
    return Stages(output, tmp_path_factory.mktemp("fp16"))


# The stage, the module that has to be named, and what is planted.
FAULTS: dict[str, tuple[str, str, planting.Fault]] = {
    # A node more in the piece.
    "output x1.25": ("int8", "layer2.0.conv2", after(BN2, by("Mul", 1.25))),
    "0.15 more on every channel": ("int8", "layer2.0.conv2", after(BN2, by("Add", 0.15))),
    "one garbage pixel": ("int8", "layer2.0.conv2", after(BN2, planting.garbage_pixel)),
    "a third of the images halved": ("int8", "layer2.0.conv2", after(BN2, some_images(3, 0.5))),
    "an eighth of the images x0.98": ("int8", "layer2.0.conv2", after(BN2, some_images(8, 0.98))),
    "bright images halved": ("int8", "layer2.0.relu", after(RELU, planting.bright_images)),
    "what its readers read x1.1": ("int8", "layer2.0.conv2", before_readers(RELU, by("Mul", 1.1))),
    "saturates": ("int8", "layer2.0.relu", after(RELU, clipped(0, 1.5))),
    "halves of a Concat exchanged": ("int8", "layer2.0", after(SUM, planting.halves_exchanged)),
    "mirrored": ("int8", "layer2.0.conv2", after(BN2, planting.mirrored)),
    "the answer of another image": ("int8", "layer2.0.conv2", after(BN2, planting.neighbours_image)),
    "root of what is negative": ("int8", "layer2.0.conv2", after(BN2, one("Sqrt"))),
    "pixels divided by 255 twice": ("int8", "/Div", after("/Div_output_0", by("Div", 255.0))),
    "whole logits": ("int8", "fc", after("logits", one("Round"))),
    "mean x0.99": ("int8", "avgpool", after(POOL, by("Mul", 0.99))),
    # Another operator, another attribute, a node less.
    "LeakyRelu": ("int8", "layer2.0.relu", operator(ACTIVATION, "LeakyRelu", alpha=0.05)),
    "Elu": ("int8", "layer2.0.relu", operator(ACTIVATION, "Elu", alpha=0.1)),
    "maximum for the mean": ("int8", "avgpool", operator("/avgpool/GlobalAveragePool", "GlobalMaxPool")),
    "mean for the maximum": ("int8", "maxpool", operator("/maxpool/MaxPool", "AveragePool", **MEAN_POOL)),
    "padding": ("int8", "layer2.0.conv2", attribute(CONV2, "pads", [0, 0, 2, 2])),
    "dilation": (
        "int8", "layer2.0.conv2", all_of(attribute(CONV2, "dilations", [2, 2]), attribute(CONV2, "pads", [2] * 4)),
    ),
    "Relu lost": ("int8", "layer2.0.relu", skip(ACTIVATION)),
    "Relu lost in float16": ("fp16", "layer2.0.relu", skip(ACTIVATION)),
    "epsilon": ("simplify", "layer2.0.bn2", attribute(BATCHNORM, "epsilon", 1e-2)),
    # A weight of another shape.
    "two groups": (
        "int8", "layer2.0.conv2",
        all_of(attribute(CONV2, "group", 2), reshaped(f"{CONV}_int8", lambda w: w[:, : w.shape[1] // 2])),
    ),
    "a channel fewer": ("int8", "layer2.0.conv2", reshaped(f"{CONV}_int8", lambda w: w[:, 1:])),
    "a filter fewer": ("int8", "layer2.0.conv2", reshaped(f"{CONV}_int8", lambda w: w[1:])),
    "a filter fewer in float32": ("fold_batchnorm", "layer2.0.conv2", reshaped(CONV, lambda w: w[1:])),
    "a class fewer": ("int8", "fc", reshaped("fc.bias", lambda b: b[1:])),
    # An edge.
    "the shortcut of another place": ("int8", "layer2.0", reads(ADD, 1, BN1)),
    "the shortcut twice": ("int8", "layer2.0", reads(ADD, 0, SHORTCUT)),
    "what comes only later": ("int8", "layer2.0.conv2", reads(CONV2, 0, SHORTCUT)),
    # Scales and zero points.
    "zero point": (
        "int8", "layer2.0.conv2", all_of(own_zero_point(QUANTISE, 40), own_zero_point(DEQUANTISE, 40)),
    ),
    "zero point of one half": ("int8", "layer2.0.conv2", own_zero_point(DEQUANTISE, 3)),
    "scale of one half 2 % off": ("int8", "layer2.0.conv2", own_scale(QUANTISE, 1.02)),
    "scale of one channel in float16": ("halve", "layer2.0.conv2", array(f"{CONV}_scale", bump((5,), 5e-4))),
    # Weights and biases.
    "bias of the next channel": ("int8", "layer2.0.conv2", array(BIAS, lambda b: np.roll(b, 1))),
    "bias of one channel": ("int8", "layer2.0.conv2", array(BIAS, bump((3,), 0.2))),
    "bias of one channel in float16": ("fp16", "layer2.0.conv2", array(BIAS, bump((3,), 0.02))),
    "bias lost beside float16": ("halve", "layer2.0.conv2", array(BIAS, np.zeros_like)),
    "bias x0.99": ("fold_batchnorm", "layer2.0.conv2", array(BIAS, lambda b: b * np.float32(0.99))),
    "classes of the next feature": ("int8", "fc", array("fc.weight_int8", lambda w: np.roll(w, 1, 1))),
    "fc transposed": ("int8", "fc", array("fc.weight_int8", lambda w: w.T.reshape(w.shape))),
    "stem mirrored": ("int8", "conv1", array("conv1.weight_int8", lambda w: w[..., ::-1])),
    "filters in another order": ("fold_batchnorm", "layer2.0.conv2", array(CONV, lambda w: w[::-1])),
    "one level": ("int8", "layer2.0.conv2", array(f"{CONV}_int8", lambda w: np.where(w == w.max(), w - 2, w))),
    "float16 x1.01": ("fp16", "layer2.0.conv2", array(CONV, lambda w: w * np.float16(1.01))),
    "one float16 flipped": ("fp16", "layer2.0.conv2", array(CONV, lambda w: np.where(w == w.max(), -w, w))),
    "one float16 too high": ("fp16", "layer2.0.conv2", array(CONV, neighbour((3, 1, 1, 1)))),
    "one float32 too high": ("simplify", "layer2.0.conv2", array(CONV, neighbour((3, 1, 1, 1)))),
    "statistics exchanged": (
        "simplify", "layer2.0.bn1", swap_arrays("layer2.0.bn1.running_mean", "layer2.0.bn1.bias"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_named(stages: Stages, tmp_path: Path, name: str) -> None:
    stage, module, plant = FAULTS[name]
    good, honest = stages.pair(stage)
    model = onnx.load(honest)
    plant(model)
    onnx.save(model, tmp_path / "bad.onnx")
    found = diagnose(good, tmp_path / "bad.onnx", stages.images)
    assert found["verdict"] == "fail"
    assert [fault["module"] for fault in found["faults"]] == [module]
    case = found["case"]
    # What only certify finds changes too little to fail by itself.
    if found["first"]["kind"] == "certificate":
        assert case == {"directory": None, "missing": "by itself its piece keeps every bound on these images"}
        return
    assert not case["measured_db"] >= case["bound_db"]


# What shows beside others only, what no runtime takes, what shows without rounding only.
@pytest.mark.parametrize("name", ["the answer of another image", "a class fewer", "zero point of one half"])
def test_a_case_of_any_kind_runs_with_nothing_of_ours(stages: Stages, tmp_path: Path, name: str) -> None:
    stage, module, plant = FAULTS[name]
    good, honest = stages.pair(stage)
    model = onnx.load(honest)
    plant(model)
    onnx.save(model, tmp_path / "bad.onnx")
    directory = diagnose(good, tmp_path / "bad.onnx", stages.images)["case"]["directory"]
    moved = shutil.move(directory, tmp_path / "elsewhere")
    command = [sys.executable, "-I", f"{moved}/reproduce.py"]
    done = subprocess.run(command, cwd="/", env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (10, "")
    assert done.stdout.startswith(f"{module}: ")


STAGES = ["simplify", "fold_batchnorm", "equalise", "int8", "halve", "engine", "fp16"]


@pytest.mark.parametrize("stage", STAGES)
def test_an_honest_stage_blames_nobody(stages: Stages, stage: str) -> None:
    found = diagnose(*stages.pair(stage), stages.images)
    assert (found["verdict"], found["faults"]) == ("pass", [])
    assert len(found["steps"]) > 10


SPELLINGS = {
    "constants in nodes": planting.levels_as_nodes,
    "scales in nodes": planting.scales_as_nodes,
    "scales through Identity": planting.scales_through_identity,
    "initializers among the inputs": planting.initializers_as_inputs,
    "other names": planting.renamed,
    "other names, constants in nodes": all_of(planting.levels_as_nodes, planting.renamed),
    "a function": planting.in_a_function,
    "no record of its images": planting.plain,
}


SPELT = [("int8", False), ("int8", True), ("fold_batchnorm", True), ("halve", True), ("fp16", False)]


@pytest.mark.parametrize(("stage", "both"), SPELT)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_honest_file_is_not_blamed_for_its_spelling(
    stages: Stages, tmp_path: Path, spelling: str, stage: str, both: bool
) -> None:
    good, bad = (onnx.load(path) for path in stages.pair(stage))
    for model in [good, bad] if both else [bad]:
        SPELLINGS[spelling](model)
    onnx.save(good, tmp_path / "good.onnx")
    onnx.save(bad, tmp_path / "bad.onnx")
    found = diagnose(tmp_path / "good.onnx", tmp_path / "bad.onnx", stages.images)
    assert (found["verdict"], found["faults"]) == ("pass", [])
    assert len(found["steps"]) > 20


@pytest.mark.parametrize("name", ["output x1.25", "bias of one channel", "Relu lost", "one level", "a channel fewer"])
def test_a_fault_in_a_file_with_other_names_is_named(stages: Stages, tmp_path: Path, name: str) -> None:
    stage, module, plant = FAULTS[name]
    good, honest = stages.pair(stage)
    model = onnx.load(honest)
    plant(model)
    planting.renamed(model)
    onnx.save(model, tmp_path / "bad.onnx")
    found = diagnose(good, tmp_path / "bad.onnx", stages.images)
    assert [fault["module"] for fault in found["faults"]] == [module]


def rescale(model: onnx.ModelProto) -> None:
    """One channel four times as large, and all that read it as if it were."""

    def first(values: np.ndarray) -> np.ndarray:
        return np.concatenate([4 * values[:1], values[1:]])

    array("layer2.0.conv1.weight", first)(model)
    array("layer2.0.conv1.bias", first)(model)
    array(CONV, lambda w: np.concatenate([w[:, :1] / 4, w[:, 1:]], 1))(model)


def test_rescaled_channels_are_no_fault_and_hide_none(stages: Stages, tmp_path: Path) -> None:
    good, honest = stages.files["fold_batchnorm"], tmp_path / "bad.onnx"
    model = onnx.load(good)
    rescale(model)
    onnx.save(model, honest)
    found = diagnose(good, honest, stages.images)
    assert (found["verdict"], found["steps"]) == ("pass", [])
    assert "rescaled by powers of two" in found["note"]
    array("layer3.0.conv2.weight", bump((3, 1, 1, 1), 0.1))(model)
    onnx.save(model, honest)
    found = diagnose(good, honest, stages.images)
    assert [(fault["module"], fault["kind"]) for fault in found["faults"]] == [("layer3.0.conv2", "certificate")]


def test_the_number_of_a_class_is_no_obstacle(stages: Stages, tmp_path: Path) -> None:
    """Both files answer the most likely class beside the logits."""
    good, bad = (onnx.load(path) for path in stages.pair("int8"))
    for model in (good, bad):
        model.graph.node.append(onnx.helper.make_node("ArgMax", ["logits"], ["class"], "/class", axis=1))
        model.graph.output.append(onnx.helper.make_tensor_value_info("class", onnx.TensorProto.INT64, ["batch", 1]))
    array("fc.bias", lambda b: b + 5)(bad)
    onnx.save(good, tmp_path / "good.onnx")
    onnx.save(bad, tmp_path / "bad.onnx")
    found = diagnose(tmp_path / "good.onnx", tmp_path / "bad.onnx", stages.images)
    assert [fault["module"] for fault in found["faults"]] == ["fc"]


def debug(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "debug", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def plain(stages: Stages, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two files of nobody's, float32 and INT8, that take normalised tensors of a fixed batch; and such tensors."""
    paths = []
    for path in stages.pair("int8"):
        model = onnx.load(path)
        pixels = model.graph.input[0]
        for tensor, value in (("pixel_mean", 0.0), ("pixel_std", 1.0)):
            reshaped(tensor, lambda array, value=value: np.full_like(array, value))(model)
        pixels.type.tensor_type.shape.dim[0].dim_value = 4
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
        planting.plain(model)
        paths.append(tmp_path / path.name)
        onnx.save(model, paths[-1])
    normalised = stages.images.select(np.arange(8)) / 128 - 1
    np.savez(tmp_path / "tensors.npz", normalised)
    return paths[0], paths[1], tmp_path / "tensors.npz"


def test_plain_files_take_tensors_as_they_are(plain: tuple[Path, Path, Path], tmp_path: Path) -> None:
    good, bad, tensors = plain
    done = debug(good, bad, "--images", tensors)
    assert done.returncode == 0, done.stdout + done.stderr
    model = onnx.load(bad)
    after(BN2, by("Mul", 1.25))(model)
    onnx.save(model, tmp_path / "bad.onnx")
    done = debug(good, tmp_path / "bad.onnx", "--images", tensors)
    assert "first at fault: layer2.0.conv2" in done.stdout, done.stdout + done.stderr


def test_what_plain_files_cannot_take_is_refused_in_a_sentence(plain: tuple[Path, Path, Path], tmp_path: Path) -> None:
    good, bad, tensors = plain
    with np.load(tensors) as held:
        array = held["arr_0"]
    np.save(tmp_path / "few.npy", array[:3])
    np.save(tmp_path / "flat.npy", array[:, 0])
    np.save(tmp_path / "nan.npy", array * np.nan)
    other = numpy_helper.from_array(np.ones((1, 1, 32, 32), np.float32), "weight")
    add = onnx.helper.make_node("Mul", ["images", "weight"], ["answer"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, [4, 1, 32, 32]) for name in ("images", "answer")]
    graph = onnx.helper.make_graph([add], "other", ends[:1], ends[1:], [other])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "other.onnx")
    asked = {
        "take 4 images at a time, and there are 3": (good, bad, tmp_path / "few.npy"),
        "holds float32 (8, 32, 32), and the file takes (N, 1, 32, 32)": (good, bad, tmp_path / "flat.npy"),
        "holds NaN or infinity": (good, bad, tmp_path / "nan.npy"),
        "does not say how it wants its images": (good, bad, tmp_path),
        "share no tensors": (good, tmp_path / "other.onnx", tensors),
    }
    for sentence, (trusted, accused, images) in asked.items():
        done = debug(trusted, accused, "--images", images)
        assert done.returncode == 2, (sentence, done.stdout, done.stderr)
        assert sentence in done.stderr
        assert len(done.stderr.splitlines()) == 1
    with pytest.raises(BadRequest, match="takes"):
        Arrays(tensors, [3, None, None], 4)


def test_scalars_and_shapes_along_the_way_are_no_cuts(stages: Stages, tmp_path: Path) -> None:
    """A limit that is computed from the size of the image, and one from all images of the batch."""

    def make(model: onnx.ModelProto, old: str, new: str) -> list[onnx.NodeProto]:
        planting.constant(model, "gentle", 1e-9)
        return [
            onnx.helper.make_node("Size", [old], ["size"], "/size"),
            onnx.helper.make_node("Cast", ["size"], ["limit"], "/limit", to=1),
            onnx.helper.make_node("ReduceMax", [old], ["largest"], "/largest", keepdims=0),
            onnx.helper.make_node("Mul", ["largest", "gentle"], ["floor"], "/floor"),
            onnx.helper.make_node("Clip", [old, "floor", "limit"], [new], "/clip"),
        ]

    good, bad = (onnx.load(path) for path in stages.pair("int8"))
    for name, model in (("good", good), ("bad", bad)):
        after(RELU, make)(model)
        onnx.save(model, tmp_path / f"{name}.onnx")
    found = diagnose(tmp_path / "good.onnx", tmp_path / "bad.onnx", stages.images)
    assert (found["verdict"], found["faults"]) == ("pass", [])
    assert not {"size", "limit", "largest", "floor"} & {step["tensor"] for step in found["steps"]}
    own_scale(QUANTISE, 1.02)(bad)
    onnx.save(bad, tmp_path / "bad.onnx")
    found = diagnose(tmp_path / "good.onnx", tmp_path / "bad.onnx", stages.images)
    assert [fault["module"] for fault in found["faults"]] == ["layer2.0.conv2"]
