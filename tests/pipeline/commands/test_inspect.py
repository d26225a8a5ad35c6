"""`inspect` against published counts, and the tables that the source documents print."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from conftest import ROOT

from pipeline.models.specs import ARCHITECTURES
from pipeline.models.summary import summarise

if TYPE_CHECKING:
    from pathlib import Path

# Parameters, and G MACs at 224 pixels, of num_params and _ops in torchvision 0.28's models/resnet.py.
TORCHVISION = {
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "resnext50_32x4d": (25_028_904, 4.23),
    "resnext101_32x8d": (88_791_336, 16.414),
    "resnext101_64x4d": (83_455_272, 15.46),
    "wide_resnet50_2": (68_883_240, 11.398),
    "wide_resnet101_2": (126_886_696, 22.753),
}
# Million parameters, He et al. 2015, table 6; there the shortcuts have none.
CIFAR = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7}


def run(*flags: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", "inspect", *map(str, flags)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arch", TORCHVISION)
def test_the_counts_are_those_that_torchvision_publishes(arch: str) -> None:
    parameters, gmacs = TORCHVISION[arch]
    summary = summarise(ARCHITECTURES[arch], 1000, (1, 3, 224, 224))
    assert (summary.parameters, round(summary.macs / 1e9, 3)) == (parameters, gmacs)


def test_the_counts_of_resnet_d_are_those_of_timm_and_its_paper() -> None:
    # timm 1.0.29's own networks, counted; He et al. 2018 (arXiv 1812.01187), table 5: 4.3 G.
    for arch, parameters in (("resnet50d", 25_576_264), ("resnext50d_32x4d", 25_048_136)):
        assert summarise(ARCHITECTURES[arch], 1000, (1, 3, 64, 64)).parameters == parameters
    assert round(summarise(ARCHITECTURES["resnet50d"], 1000, (1, 3, 224, 224)).macs / 1e9, 1) == 4.3


@pytest.mark.parametrize("arch", CIFAR)
def test_the_counts_on_cifar_are_those_of_the_paper(arch: str) -> None:
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    summary = summarise(ARCHITECTURES[arch], 10, (1, 3, 32, 32))
    digits = 1 if arch == "resnet110" else 2
    assert round((summary.parameters - projections) / 1e6, digits) == CIFAR[arch]
    assert [part.shape[1:] for part in summary.parts[1:4]] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_grouping_saves_what_the_wide_network_costs() -> None:
    # The 3x3 convolutions of a ResNeXt-50 in one group are those of Wide-ResNet-50-2: 128 channels at first.
    dense = summarise(ARCHITECTURES["resnext50_32x4d"], 1000, (1, 3, 224, 224)).dense
    assert dense == summarise(ARCHITECTURES["wide_resnet50_2"], 1000, (1, 3, 224, 224))


@pytest.mark.parametrize("arch", ["d2l_resnet18", "d2l_jax_resnet18"])
def test_the_shapes_are_those_that_the_documents_print(arch: str) -> None:
    shown = json.loads(run("--arch", arch, "--input", "1x1x96x96", "--classes", 10, "--json").stdout)
    printed = [[1, 64, 24, 24], [1, 64, 24, 24], [1, 128, 12, 12], [1, 256, 6, 6], [1, 512, 3, 3], [1, 10]]
    assert [part["shape"] for part in shown["parts"] if part["name"] != "pool"] == printed
    large = summarise(ARCHITECTURES[arch], 10, (1, 1, 224, 224))
    assert [part.shape[-1] for part in large.parts] == [56, 56, 28, 14, 7, 1, 10]


def test_the_table_the_saving_and_the_picture(tmp_path: Path) -> None:
    done = run("--arch", "resnext50", "--input", "8x3x224x224", "--picture", tmp_path / "a.svg")
    assert done.returncode == 0, done.stderr
    assert "[8, 256, 56, 56]" in done.stdout
    assert "25,028,904 parameters, 4,230,479,872 MACs of an image" in done.stdout
    assert "in one group instead of 32: 68,883,240 parameters (2.75 times as many), 11,398,021,120" in done.stdout
    drawn = (tmp_path / "a.svg").read_text()
    assert ET.fromstring(drawn).tag.endswith("svg")
    assert all(text in drawn for text in ("layer4", "1×1, norm", "3×3, 128, 32 groups", "mean over space"))


def test_a_spec_of_ones_own_is_shown(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("block = 'bottleneck'\ndepths = [1, 2]\nwidths = [8, 16]\nstem = 'deep'\n")
    shown = json.loads(run("--arch", tmp_path / "own.toml", "--input", "1x3x32x32", "--json").stdout)
    assert (shown["arch"], shown["spec"]["stem"], shown["dense"]) == ("own", "deep", None)
    assert shown["parameters"] == sum(part["parameters"] for part in shown["parts"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--arch", "resnet51"), "did you mean resnet56, resnet50"),
        (("--arch", "resnet50", "--input", "3x224x224"), "3x224x224 is no shape; give images, channels"),
        (("--arch", "resnet50", "--input", "1x3x0x224"), "1x3x0x224 is no shape"),
        (("--arch", "resnet50", "--picture", "a.gif"), "--picture a.gif: give a file in .svg, .pdf, .png"),
    ],
)
def test_what_cannot_be_shown_is_refused(flags: tuple[str, ...], sentence: str) -> None:
    done = run(*flags)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
