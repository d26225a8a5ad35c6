"""torchvision's own networks and transforms against ours: same keys, same answers, same pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import library

from pipeline.data.preprocessing import Preprocessing
from pipeline.models import checkpoint, published
from pipeline.models.resnet import ResNet
from pipeline.models.specs import ARCHITECTURES

pytestmark = pytest.mark.torchvision
PUBLISHED = list(ARCHITECTURES)[:10]


@pytest.fixture(scope="module")
def torchvision() -> object:
    # Its compiled operators want CUDA; only their names are needed to import the rest.
    operators = library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    return torchvision


def test_all_published_networks_are_known(torchvision: object) -> None:
    theirs = torchvision.models.list_models(module=torchvision.models)  # type: ignore[attr-defined]
    assert sorted(PUBLISHED) == sorted(name for name in theirs if name.startswith(("resne", "wide_resnet")))


@pytest.mark.parametrize("arch", PUBLISHED)
def test_a_torchvision_checkpoint_loads_and_answers_the_same(torchvision: object, arch: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(arch, weights=None).eval()  # type: ignore[attr-defined]
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = ResNet(ARCHITECTURES[arch], 1000, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).eval()
    checkpoint.fill(ours, theirs.state_dict(), arch)
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        expected = theirs((pixels / 255 - mean) / std)
        answers = ours(pixels)
    assert expected.std() > 1e-3
    assert (answers - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("arch", PUBLISHED)
def test_published_weights_are_named_as_torchvision_names_them(torchvision: object, arch: str) -> None:
    rows = torchvision.models.get_model_weights(arch)  # type: ignore[attr-defined]
    ours = {row: digits[arch] for row, digits in published.PUBLISHED.items() if arch in digits}
    assert {row.name: row.url for row in rows} == {
        row: f"{published.URL}{arch}-{digits}.pth" for row, digits in ours.items()
    }


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (231, 300)])
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_resize_and_crop_are_torchvisions(torchvision: object, size: tuple[int, int], name: str) -> None:
    transforms = torchvision.transforms  # type: ignore[attr-defined]
    image = Image.fromarray(load_sample_image("china.jpg")).resize(size)
    filters = transforms.InterpolationMode(name)
    expected = transforms.CenterCrop(224)(transforms.Resize(232, interpolation=filters)(image))
    record = Preprocessing(224, 232, name, 3, (0.0,) * 3, (1.0,) * 3)
    np.testing.assert_array_equal(record.pixels(image, "china").transpose(1, 2, 0), np.asarray(expected))
