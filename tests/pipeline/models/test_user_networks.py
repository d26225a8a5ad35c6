"""Networks as people build them: every one becomes INT8, float16 and FP8, and answers as PyTorch does.

With random weights, stage by stage in this process; a few of them by the command line, from training to the verdict.
``python -m benchmarks.user_networks`` builds all of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from user_networks import NETWORKS

from calibration import observe, qdq
from calibration.histogram import Peak
from calibration.recovery.equalise import equalise
from exporters import export, reference, simplify
from exporters.certify import certify
from exporters.certify_weights import certify_weights
from exporters.float16 import float16
from exporters.fold_batchnorm import fold_batchnorm
from exporters.number_formats import NUMBER_FORMATS
from exporters.portable.sqnr import sqnr_db
from pipeline.errors import BadRequest
from pipeline.models import frozen, networks, user_network

if TYPE_CHECKING:
    from conftest import Cli

pytestmark = pytest.mark.usefixtures("quick_collection")

SHAPE = (1, 32, 32)
IMAGES = np.random.default_rng(0).uniform(0, 255, (8, *SHAPE)).astype(np.float32)
# What torch's exporter has no ONNX for.
REFUSED = {"channel_shuffle_module": "aten::channel_shuffle", "spectral_norm": "aten::vdot"}
# What a file keeps at least of PyTorch's answers: float32 in another order, float16, 8 bits of random weights.
SAME_DB, FLOAT16_DB, INT8_DB = 100.0, 45.0, 25.0


def described(name: str, monkeypatch: pytest.MonkeyPatch) -> frozen.NetworkDescription:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(user_network, "TRUSTED", set())
    spec = user_network.named(f"user_networks:{name}")
    record = {"channels": 1, "mean": [0.3], "std": [0.3]}
    return frozen.NetworkDescription(f"user_networks:{name}", spec, tuple("0123456789"), record)


def trained(network: nn.Module) -> nn.Module:
    """``network`` with statistics as a training leaves them."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def peaks(src: Path, tensors: list[str]) -> dict[str, float]:
    observer = observe.Observer(src, tensors, Peak)
    observer.take([IMAGES])
    return {name: peak.amax for name, peak in observer.seen.items()}


def halved(src: Path, dst: Path) -> None:
    float16(src, dst, peaks(src, observe.activations(src)))


def quantised(src: Path, dst: Path, number_format: str) -> None:
    row = NUMBER_FORMATS[number_format]
    tensors = list(qdq.tensors(src, "tensorrt", row))
    qdq.quantise(src, dst, peaks(src, tensors), "tensorrt", row)


def proven(before: Path, after: Path, stage: str) -> None:
    certificate = certify(before, after, stage=stage)
    assert certificate.proven, (stage, certificate.refuted[:3])


def simplified_as_far_as_proven(src: Path, dst: Path) -> None:
    """As the stage does it, in this process: all of the simplifier's work, or its constants, or none of it."""
    for attempt in (simplify.in_child, simplify.constants_in_child):
        attempt(str(src), str(dst))
        if certify(src, dst, stage="simplify").proven:
            return
    dst.write_bytes(src.read_bytes())


def kept_db(expected: np.ndarray, path: Path) -> float:
    answers = reference.session(path).run(None, {"images": IMAGES})[0]
    return float(np.median(sqnr_db(expected, answers)))


# torch warns that padding='same' of an even kernel costs a copy.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in REFUSED])
def test_every_network_is_proven_and_answers_as_before_in_every_precision(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    description = described(name, monkeypatch)
    network = trained(description.network())
    with torch.inference_mode():
        expected = network(torch.from_numpy(IMAGES)).numpy()
    names = ("weights.safetensors", "export.onnx", "simplify.onnx", "fold.onnx", "fp16.onnx", "equalise.onnx")
    weights, exported, simplified, folded, in_float16, equalised = (tmp_path / file for file in names)

    frozen.write(network, description, weights)
    metadata = {"classes": json.dumps(description.classes), "preprocessing": json.dumps(description.preprocessing)}
    export.export(network, exported, SHAPE, metadata)
    certificate = certify_weights(weights, exported)
    assert certificate.proven, certificate.refuted[:3]
    simplified_as_far_as_proven(exported, simplified)
    fold_batchnorm(simplified, folded)
    proven(simplified, folded, "fold_batchnorm")
    assert kept_db(expected, folded) > SAME_DB

    halved(folded, in_float16)
    proven(folded, in_float16, "fp16")
    assert kept_db(expected, in_float16) > FLOAT16_DB

    equalise(folded, equalised, [IMAGES])
    proven(folded, equalised, "equalise")
    for number_format in ("int8", "fp8"):
        pairs = tmp_path / f"{number_format}.onnx"
        quantised(equalised, pairs, number_format)
        proven(equalised, pairs, number_format)
        strong = tmp_path / f"{number_format}-halved.onnx"
        halved(pairs, strong)
        proven(pairs, strong, "halve")
        if number_format == "int8":
            assert kept_db(expected, pairs) > INT8_DB
            assert kept_db(expected, strong) > INT8_DB


@pytest.mark.parametrize("name", REFUSED)
def test_an_operator_without_onnx_is_named_before_any_work(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    description = described(name, monkeypatch)
    network = networks.build(description.spec, 10, 1, (0.3,), (0.3,))
    with pytest.raises(BadRequest, match=f"--arch {name} cannot be written as an ONNX graph .*{REFUSED[name]}"):
        user_network.refuse(network, name, 10, SHAPE, 17)
    # torch would print the graph that it could not write, in the middle of what a program reads.
    assert not capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("squeeze_excite", "int8"),
        ("group_norm", "int8-fp16"),
        ("mean_head", "int8-fp16"),
        ("upsample_bilinear", "fp8"),
        ("perceptron", "int8"),
    ],
)
def test_a_few_are_built_from_training_to_the_verdict(name: str, precision: str, cli: Cli, tmp_path: Path) -> None:
    flags = ("--arch", f"user_networks:{name}", "--precision", precision, "--engine", "onnxruntime", "--beside", "none")
    done = cli(*flags, "-o", tmp_path / "out", cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
