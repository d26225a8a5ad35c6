"""timm's own networks against ours: their checkpoints load as they are, the deep stem and averaged shortcut too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from test_dialects import close, frozen_answers, loaded
from test_torchvision import torchvision  # noqa: F401
from tutorials import with_statistics

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.torchvision
NETWORKS = {
    "resnet18": "torchvision",
    "resnet50": "torchvision",
    "resnext50_32x4d": "torchvision",
    "wide_resnet50_2": "torchvision",
    "resnet50d": "timm",
    "resnext50d_32x4d": "timm",
}


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("arch", NETWORKS)
def test_a_checkpoint_of_timm_and_our_frozen_file_answer_the_same(tmp_path: Path, arch: str) -> None:
    import timm

    theirs = with_statistics(timm.create_model(arch, num_classes=10), 3)
    torch.save({"epoch": 3, "state_dict": theirs.state_dict()}, tmp_path / "w.pth")
    images = torch.randint(0, 256, (2, 3, 64, 64)).float()
    with torch.inference_mode():
        expected = theirs((images / 255 - 0.3) / 0.4)
    ours, origin = loaded(tmp_path / "w.pth", arch, 3)
    assert f"in the dialect of {NETWORKS[arch]}, its state_dict" in origin
    close(frozen_answers(ours, images, tmp_path, arch, 3), expected)
