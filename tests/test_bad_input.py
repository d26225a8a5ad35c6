"""Every bad input: its exit code and its one sentence; nothing is left half-written."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, Cli
from PIL import Image
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from pathlib import Path


def test_unknown_architecture(cli: Cli, tmp_path: Path) -> None:
    sentence = cli.refused("--arch", "resnxt50", "-o", tmp_path / "out")
    assert "no such architecture" in sentence
    assert "resnext50" in sentence
    assert not (tmp_path / "out").exists()


def test_weights_of_another_architecture(cli: Cli, weights: Path, tmp_path: Path) -> None:
    sentence = cli.refused("--arch", "resnet18", "--weights", weights, "-o", tmp_path)
    assert "conv1.weight has shape (64, 1, 7, 7) in the network and has shape (16, 1, 7, 7) in the file" in sentence
    assert "fits --arch resnext_tiny" in sentence


def test_weights_of_another_class_count(cli: Cli, weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    tensors["fc.weight"] = torch.zeros(1000, tensors["fc.weight"].shape[1])
    save_file(tensors, tmp_path / "w.safetensors")
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "out")
    assert "fc.weight" in sentence
    assert "knows 1000 classes and the data set 10" in sentence


def test_colour_weights_on_grey_images(cli: Cli, weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    tensors["conv1.weight"] = tensors["conv1.weight"].repeat(1, 3, 1, 1)
    save_file(tensors, tmp_path / "w.safetensors")
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "out")
    assert "ask for --channels 3" in sentence


def test_truncated_safetensors(cli: Cli, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(weights.read_bytes()[:5000])
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "out")
    assert "truncated or corrupted" in sentence


def test_corrupted_pth(cli: Cli, weights: Path, tmp_path: Path) -> None:
    torch.save(load_file(weights), tmp_path / "whole.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:9000])
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.pth", "-o", tmp_path / "out")
    assert "truncated or corrupted" in sentence


class Bomb:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_that_carries_code_is_not_executed(cli: Cli, tmp_path: Path, plain: bool) -> None:
    path = tmp_path / "w.pth"
    if plain:
        path.write_bytes(pickle.dumps({"conv1.weight": Bomb()}))
    else:
        torch.save({"conv1.weight": Bomb()}, path)
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", path, "-o", tmp_path / "out", cwd=tmp_path)
    assert "was not executed" in sentence
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content", [[1, 2, 3], {0: torch.zeros(3)}, {"a": torch.zeros(3, dtype=torch.complex64)}, {"a": 1}]
)
def test_weights_that_are_no_state_dict(cli: Cli, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert "no state_dict" in cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.pth")


def test_a_flipped_bit_in_pth(cli: Cli, weights: Path, tmp_path: Path) -> None:
    torch.save(load_file(weights), tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "w.pth").write_bytes(content)
    assert "truncated or corrupted" in cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.pth")


def test_a_text_file_called_pth(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("these are no weights\n" * 100)
    assert "truncated or corrupted" in cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.pth")


def test_kept_weights_that_were_changed_are_not_used(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "cache")
    flags = ("--arch", "resnet_tiny", "--epochs", "1", "--engine", "onnxruntime", "-o", tmp_path / "out")
    cli(*flags)
    kept = next((tmp_path / "cache").rglob("*.safetensors"))
    content = bytearray(kept.read_bytes())
    content[-100] ^= 1
    kept.write_bytes(content)
    assert f"the weights kept in {kept} are damaged" in cli.refused(*flags)


def test_a_cache_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "point XDG_CACHE_HOME elsewhere" in Cli(tmp_path / "file").refused(
        "--arch", "resnet_tiny", "-o", tmp_path / "out"
    )


def test_weights_that_do_not_exist_or_have_another_format(cli: Cli, tmp_path: Path) -> None:
    assert "no such file" in cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.pth")
    (tmp_path / "w.h5").write_bytes(b"")
    assert "only .safetensors" in cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.h5")


def test_a_checkpoint_in_pth_gives_the_same_build(cli: Cli, built: Path, weights: Path, tmp_path: Path) -> None:
    torch.save({**load_file(weights), "bn1.num_batches_tracked": torch.tensor(7)}, tmp_path / "w.pth")
    report = cli.report(*TINY, "--weights", tmp_path / "w.pth", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "05-int8.onnx").read_bytes() == (built / "05-int8.onnx").read_bytes()
    assert str(tmp_path / "w.pth") in report["sources"]["weights"]


def test_nan_in_weights(cli: Cli, weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    tensors["layer2.0.conv1.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "w.safetensors")
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "out")
    assert "layer2.0.conv1.weight holds NaN" in sentence


def test_no_training_or_validation_folder(cli: Cli, folder: Path) -> None:
    shutil.rmtree(folder / "val")
    assert "there is no folder val/" in cli.refused("--arch", "resnet_tiny", "--data", folder)


def test_data_that_is_no_folder(cli: Cli, tmp_path: Path) -> None:
    sentence = cli.refused("--arch", "resnet_tiny", "--data", tmp_path / "nowhere")
    assert "neither a folder nor one of digits, fashion-mnist" in sentence


def test_an_empty_data_folder(cli: Cli, folder: Path) -> None:
    for place in (folder / "train").iterdir():
        shutil.rmtree(place)
    assert "train/ is empty" in cli.refused("--arch", "resnet_tiny", "--data", folder)


def test_a_class_without_images(cli: Cli, folder: Path) -> None:
    for image in (folder / "val" / "class1").iterdir():
        image.unlink()
    assert "class1 holds no images" in cli.refused("--arch", "resnet_tiny", "--data", folder)


def test_one_class_only(cli: Cli, folder: Path) -> None:
    for part in ("train", "val"):
        shutil.rmtree(folder / part / "class1")
    assert "only the class class0" in cli.refused("--arch", "resnet_tiny", "--data", folder)


def test_classes_that_differ(cli: Cli, folder: Path) -> None:
    (folder / "val" / "class1").rename(folder / "val" / "other")
    assert "class class1 is in only one" in cli.refused("--arch", "resnet_tiny", "--data", folder)


def test_an_unreadable_image(cli: Cli, folder: Path, tmp_path: Path) -> None:
    broken = sorted((folder / "val" / "class0").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:60])
    sentence = cli.refused("--arch", "resnet_tiny", "--data", folder, "-o", tmp_path / "out")
    assert f"{broken} is no readable image" in sentence
    assert not (tmp_path / "out").exists()


def test_colour_among_grey_images(cli: Cli, folder: Path) -> None:
    odd = folder / "val" / "class0" / "odd.png"
    Image.new("RGB", (8, 8)).save(odd)
    sentence = cli.refused("--arch", "resnet_tiny", "--data", folder)
    assert f"{odd} is in colour" in sentence
    assert "--channels 1" in sentence


def test_grey_is_averaged_from_colour_when_asked(cli: Cli, folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    flags = ("--arch", "resnet_tiny", "--data", folder, "--input-size", 32, "--resize", 32, "--epochs", 2)
    report = cli.report(*flags, "--channels", 1, "--test-samples", 2, "-o", tmp_path / "out")
    assert report["preprocessing"]["mean"] == [pytest.approx((0.485 + 0.456 + 0.406) / 3)]


def test_a_folder_of_images_is_trained_and_judged(cli: Cli, folder: Path, tmp_path: Path) -> None:
    flags = ("--arch", "resnet_tiny", "--data", folder, "--input-size", 32, "--resize", 32, "--epochs", 8)
    report = cli.report(*flags, "-o", tmp_path / "out")
    assert report["classes"] == ["class0", "class1"]
    assert report["stages"][0]["accuracy"]["n"] == 40


@pytest.mark.parametrize("flag", ["--test-samples", "--calib-samples"])
def test_more_images_than_there_are(cli: Cli, flag: str) -> None:
    sentence = cli.refused("--arch", "resnet_tiny", flag, 100000)
    assert f"{flag} 100000: there are only" in sentence


def test_one_test_image_shows_one_class(cli: Cli) -> None:
    assert "one class only" in cli.refused("--arch", "resnet_tiny", "--test-samples", 1)


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((4, 32, 32), np.float32), "of shape (N, C, H, W)"),
        (np.full((4, 1, 32, 32), np.nan, np.float32), "NaN or infinite pixels"),
        (np.full((4, 1, 32, 32), 0.5, np.float32), "multiply yours by 255"),
        (np.full((4, 3, 32, 32), 200.0, np.float32), "--channels 3"),
        (np.array([{}], dtype=object), "no readable array"),
        (np.zeros((4, 1, 0, 0), np.float32), "of shape (N, C, H, W)"),
    ],
)
def test_bad_calibration_arrays(cli: Cli, tmp_path: Path, array: np.ndarray, part: str) -> None:
    np.save(tmp_path / "calib.npy", array, allow_pickle=True)
    assert part in cli.refused(*TINY, "--calib-data", tmp_path / "calib.npy", "-o", tmp_path / "out")


def test_a_damaged_calibration_archive(cli: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", images=np.full((4, 1, 32, 32), 9.0))
    (tmp_path / "calib.npz").write_bytes((tmp_path / "calib.npz").read_bytes()[:900])
    assert "no readable array" in cli.refused(*TINY, "--calib-data", tmp_path / "calib.npz")


def test_calibration_data_that_is_not_there_or_empty(cli: Cli, tmp_path: Path) -> None:
    assert "no such file or folder" in cli.refused(*TINY, "--calib-data", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in cli.refused(*TINY, "--calib-data", tmp_path / "empty")
    np.save(tmp_path / "empty/part.npy", np.full((4, 1, 32, 32), 9.0))
    Image.new("L", (32, 32)).save(tmp_path / "empty/one.png")
    assert "holds images and arrays" in cli.refused(*TINY, "--calib-data", tmp_path / "empty")
    (tmp_path / "calib.txt").write_text("")
    assert "a folder of images, or pixels in .npy, .npz" in cli.refused(*TINY, "--calib-data", tmp_path / "calib.txt")


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--std", "0"), "must be above 0"),
        (("--mean", "123.7"), "divide yours by 255"),
        (("--mean", "nan"), "numbers from 0 to 1"),
        (("--std", "inf"), "numbers from 0 to 1"),
        (("--max-drop", "1"), "0.01 is one point"),
        (("--confidence", "95"), "below 1"),
        (("--data-root", "."), "goes with --data fashion-mnist"),
        (("--weights", "w.pth", "--epochs", "3"), "exclude each other"),
        (("--mean", "0.1", "0.2"), "one value or one per channel"),
        (("--mean", "0.1", "0.2", "0.3"), "3 values for a network of 1 channel"),
        (("--input-size", "64", "--resize", "32"), "the crop needs at least that"),
        (("--device", "cuda"), "sees no GPU"),
        (("--engine", "tensorrt"), "no NVIDIA GPU"),
        (("--min-batch", "8", "--max-batch", "4"), "--min-batch 8 --opt-batch 4 --max-batch 4: they must not fall"),
        (("--min-batch", "1", "2", "--max-batch", "4"), "as many numbers as there are profiles"),
        (("--engine", "onnxruntime", "--max-batch", "4"), "goes with --engine tensorrt"),
        (("--dla-core", "0"), "--dla-core goes with --engine tensorrt"),
        (("--no-gpu-fallback",), "--no-gpu-fallback goes with --dla-core"),
        (("--error-on-timing-cache-miss",), "goes with --timing-cache"),
    ],
)
def test_flags_that_make_no_sense(cli: Cli, tmp_path: Path, flags: tuple[str, ...], part: str) -> None:
    assert part in cli.refused("--arch", "resnet_tiny", *flags, "-o", tmp_path / "out")


@pytest.mark.parametrize(
    "flag",
    [
        "--calib-samples=0",
        "--calib-samples=abc",
        "--max-batch=0",
        "--workspace=0",
        "--workspace=2X",
        "--precision=int4",
        "--seed=-1",
        "--input-size=200000",
        "--no-such-flag",
    ],
)
def test_flags_that_do_not_exist(cli: Cli, flag: str) -> None:
    done = cli("--arch", "resnet_tiny", flag)
    assert done.returncode == 2
    assert flag.split("=", maxsplit=1)[0] in done.stderr


def test_an_output_directory_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be made" in cli.refused("--arch", "resnet_tiny", "-o", tmp_path / "file" / "out")


def test_an_output_directory_that_cannot_be_written(cli: Cli) -> None:
    # Where not even root may write.
    assert "nothing can be written there" in cli.refused("--arch", "resnet_tiny", "-o", "/proc")


@pytest.mark.parametrize("stage", ["freeze", "export", "simplify"])
def test_a_full_disk(cli: Cli, built: Path, weights: Path, tmp_path: Path, stage: str) -> None:
    # A limit on the size of files answers like a full disk and needs no file system of its own. Each of these files
    # is larger than the one before, so the first that does not fit is the one asked for.
    limit = next(built.glob(f"*-{stage}.[so]*")).stat().st_size - 1

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    sentence = cli.refused(*TINY, "--weights", weights, "-o", tmp_path, code=3, preexec_fn=limited)
    assert f"stage {stage} could not make" in sentence
    assert "disk is full" in sentence
    assert not list(tmp_path.glob(".unfinished-*"))
    cli.report(*TINY, "--weights", weights, "-o", tmp_path)


@pytest.mark.parametrize(
    ("module", "extra", "flags"),
    [("onnxruntime", "[cpu]", ("--engine", "onnxruntime")), ("tensorrt_rtx", "[rtx]", ("--engine", "tensorrt-rtx"))],
)
def test_a_missing_dependency_names_its_extra(
    cli: Cli, tmp_path: Path, module: str, extra: str, flags: tuple[str, ...]
) -> None:
    code = f"""
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {module!r} else real(name, *rest)
sys.modules[{module!r}] = None
from pipeline.__main__ import main
sys.exit(main(["build", "--arch", "resnet_tiny", *{flags!r}, "-o", {str(tmp_path)!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=cli.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert module.replace("_", "-") in done.stderr
    assert extra.strip("[]") in done.stderr


def test_debug_shows_the_traceback(cli: Cli) -> None:
    done = cli("--arch", "nothing", "--debug")
    assert "Traceback" in done.stderr
