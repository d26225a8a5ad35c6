"""Every registered network in every precision, with random weights: each file is proven from the file before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from calibration import qdq
from calibration.recovery.equalise import equalise
from exporters import export, reference, simplify
from exporters.certify import certify
from exporters.float16 import float16
from exporters.float_weights import float_weights
from exporters.fold_batchnorm import fold_batchnorm
from exporters.number_formats import NUMBER_FORMATS
from pipeline.models.resnet import ResNet
from pipeline.models.specs import ARCHITECTURES
from pipeline.precisions import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.models.resnet_spec import ResNetSpec

pytestmark = pytest.mark.usefixtures("quick_collection")

SIZE = 32
# Of every activation: certificates ask nothing of ranges.
AMAX = 6.0


def exported(spec: ResNetSpec, path: Path) -> Path:
    """A network of ``spec`` with statistics as training leaves them."""
    torch.manual_seed(0)
    network = ResNet(spec, 10, 3, (0.5,) * 3, (0.25,) * 3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    export.export(network, path, (3, SIZE, SIZE), {})
    return path


def quantised(number_format: str) -> Callable[[Path, Path], object]:
    def write(src: Path, dst: Path) -> None:
        row = NUMBER_FORMATS[number_format]
        amax = dict.fromkeys(qdq.tensors(src, "tensorrt", row), AMAX)
        qdq.quantise(src, dst, amax, "tensorrt", row)

    return write


def equalised(src: Path, dst: Path) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (4, 3, SIZE, SIZE)).astype(np.float32)
    equalise(src, dst, [images])


# What makes the file of each stage of a precision. Recoveries that train prove nothing of weights.
MAKE: dict[str, Callable[[Path, Path], object]] = {
    "equalise": equalised,
    "fp16": lambda src, dst: float16(src, dst, {}),
    "halve": lambda src, dst: float16(src, dst, {}),
    "float_weights": float_weights,
    **{name: quantised(name) for name in NUMBER_FORMATS},
}


def prove(src: Path, stages: tuple[str, ...], known: dict[tuple[str, ...], Path]) -> Path:
    """Make one file from the other, and hold every one against the one before; the last.

    ``known`` are the files that are there, by the stages that led to them.
    """
    done: tuple[str, ...] = ()
    for name in stages:
        if name == "qat":
            continue
        done += (name,)
        if done not in known:
            known[done] = src.with_name(f"{'-'.join(done)}.onnx")
            MAKE[name](src, known[done])
            certificate = certify(src, known[done], stage=name)
            assert certificate.proven, (name, certificate.refuted[:3])
        src = known[done]
    return src


def folded(spec: ResNetSpec, folder: Path) -> Path:
    """The folded graph of ``spec``, proven from what the exporter wrote."""
    before = exported(spec, folder / "export.onnx")
    simplified = folder / "simplify.onnx"
    simplify.in_child(str(before), str(simplified))
    assert certify(before, simplified, stage="simplify").proven
    after = folder / "fold.onnx"
    fold_batchnorm(simplified, after)
    certificate = certify(simplified, after, stage="fold_batchnorm")
    assert certificate.proven, certificate.refuted[:3]
    assert not certificate.left
    return after


def cut(spec: ResNetSpec) -> ResNetSpec:
    """``spec`` with two blocks a stage at most: those behind them are of the same kind."""
    return replace(spec, depths=tuple(min(depth, 2) for depth in spec.depths))


# Networks that differ in their depth alone have one row.
KINDS = {cut(spec): arch for arch, spec in reversed(ARCHITECTURES.items())}


@pytest.mark.parametrize("spec", KINDS, ids=list(KINDS.values()))
def test_every_kind_of_network_is_proven_in_every_precision(spec: ResNetSpec, tmp_path: Path) -> None:
    source = folded(spec, tmp_path)
    known: dict[tuple[str, ...], Path] = {}
    for name, precision in PRECISIONS.items():
        last = prove(source, precision.stages, known)
        onnx.checker.check_model(str(last), full_check=True)
        if name != "fp8":
            reference.session(last).run(None, {"images": np.zeros((2, 3, SIZE, SIZE), np.float32)})


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_network_in_its_full_depth_is_proven_as_int8_in_float16(arch: str, tmp_path: Path) -> None:
    before = exported(ARCHITECTURES[arch], tmp_path / "export.onnx")
    after = tmp_path / "fold.onnx"
    fold_batchnorm(before, after)
    last = prove(after, ("int8", "halve"), {})
    types = {value.data_type for value in onnx.load(last).graph.initializer}
    assert onnx.TensorProto.INT8 in types
    assert onnx.TensorProto.FLOAT16 in types
