"""Checkpoints of other frameworks: the network that saved one and our frozen file of it give the same answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
import tutorials
from conftest import ROOT
from torch import Tensor, nn

from pipeline import Recipe
from pipeline.__main__ import main
from pipeline.errors import BadRequest
from pipeline.models import checkpoint, dialects, frozen, networks, specs, weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Document, --arch, dialect, channels, and the network as that document has it.
DOCUMENTS: dict[str, tuple[str, str, int, Callable[[], nn.Module]]] = {
    "000": ("d2l_resnet18", "d2l", 1, tutorials.D2l),
    "000, ResNeXt": ("d2l_resnext26", "d2l", 1, lambda: tutorials.D2l(tutorials.Grouped)),
    "001": ("d2l_resnet18", "d2l-sequential", 1, tutorials.d2l_sequential),
    "002": ("d2l_resnet18", "d2l", 3, tutorials.D2l),
    "003": ("labml_resnet20", "labml", 3, lambda: tutorials.labml(3)),
    "003, bottlenecks": ("labml_resnet56", "labml", 3, lambda: tutorials.labml(6, (8, 16, 16))),
}


def loaded(path: object, arch: str, channels: int = 1, classes: int = 10) -> tuple[nn.Module, str]:
    """The network with the weights in ``path``, frozen and read back, and where they came from."""
    record = {"channels": channels, "mean": [0.3] * channels, "std": [0.4] * channels}
    name, spec = specs.find(arch)
    description = frozen.NetworkDescription(name, spec, tuple(map(str, range(classes))), record)
    given = weights.given(Recipe(arch=arch, weights=path), description)
    assert given is not None
    return given


def frozen_answers(network: nn.Module, images: Tensor, folder: Path, arch: str, channels: int) -> Tensor:
    record = {"channels": channels, "mean": [0.3] * channels, "std": [0.4] * channels}
    description = frozen.NetworkDescription(arch, specs.find(arch)[1], tuple("0123456789"), record)
    frozen.write(network, description, folder / "frozen")
    (folder / "frozen").rename(folder / "frozen.safetensors")
    with torch.inference_mode():
        return frozen.read(folder / "frozen.safetensors")[0](images)  # type: ignore[no-any-return]


def close(answers: Tensor, expected: Tensor) -> None:
    assert expected.std() > 1e-3
    assert (answers - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_network_of_a_tutorial_and_its_frozen_file_answer_the_same(tmp_path: Path, document: str) -> None:
    arch, dialect, channels, network = DOCUMENTS[document]
    theirs = tutorials.with_statistics(network(), channels)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    images = torch.randint(0, 256, (2, channels, 64, 64)).float()
    with torch.inference_mode():
        expected = theirs((images / 255 - 0.3) / 0.4)
    ours, origin = loaded(tmp_path / "w.pth", arch, channels)
    assert f"in the dialect of {dialect}" in origin
    assert str(tmp_path / "w.pth") in origin
    close(frozen_answers(ours, images, tmp_path, arch, channels), expected)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_checkpoint_goes_to_ours_and_back_and_loads_where_it_came_from(tmp_path: Path, document: str) -> None:
    arch, dialect, channels, network = DOCUMENTS[document]
    theirs = tutorials.with_statistics(network(), channels)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    for source, destination, to in (("w.safetensors", "ours.pth", "torchvision"), ("ours.pth", "back.pth", dialect)):
        files = [str(tmp_path / source), str(tmp_path / destination)]
        assert main(["convert", *files, "--arch", arch, "--to", to]) == 0
    saved = theirs.state_dict()
    other = tutorials.with_statistics(network(), channels)
    nn.init.zeros_(next(other.parameters()))
    other.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True), strict=True)
    for key, value in other.state_dict().items():
        assert value.equal(saved[key]) or key.endswith("num_batches_tracked")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.pth", "ours.pth", "w.safetensors"]


def test_every_row_of_the_docs_is_tested_here() -> None:
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    for arch, dialect, *_ in DOCUMENTS.values():
        assert f"| `{arch}` | `{dialect}` |" in page
    assert [name for name in dialects.DIALECTS if f"`{name}`" not in page] == []


def tiny() -> dict[str, Tensor]:
    network = networks.build(specs.find("resnext_tiny")[1], 10, 1, (0.3,), (0.4,))
    return {key: value.contiguous() for key, value in checkpoint.parameters(network).items()}


def renamed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in tensors.items()}


def test_wrappers_are_taken_off(tmp_path: Path) -> None:
    """What DataParallel, torch.compile, Lightning, timm, torchvision and SWA write, by the real parts of torch."""
    network = networks.build(specs.find("resnext_tiny")[1], 10, 1, (0.3,), (0.4,))
    del network.pixel_mean, network.pixel_std  # theirs have none
    plain = network.state_dict()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    for value in averaged.parameters():
        value.data += 1
    ema = averaged.module.state_dict()
    cases: dict[str, tuple[Any, float]] = {
        "DataParallel": (nn.DataParallel(network).state_dict(), 0),
        "compile": (torch.compile(nn.DataParallel(network), backend="eager").state_dict(), 0),
        "SWA": (averaged.state_dict(), 1),
        "Lightning": ({"epoch": 3, "state_dict": renamed(plain, "model."), "optimizer_states": [{"state": {}}]}, 0),
        "torchvision": ({"model": plain, "model_ema": averaged.state_dict(), "epoch": 3}, 1),
        "timm": ({"state_dict": plain, "state_dict_ema": ema, "arch": "x"}, 1),
        "nested": ({"model": {"state_dict": renamed(plain, "module.backbone.")}}, 0),
    }
    for name, (content, more) in cases.items():
        torch.save(content, tmp_path / f"{name}.ckpt")
        network_of_file, origin = loaded(tmp_path / f"{name}.ckpt", "resnext_tiny")
        assert network_of_file.fc.bias.equal(plain["fc.bias"] + more), name
        assert ("its model_ema, not its model" in origin) == (name == "torchvision")
    network_of_file, origin = loaded(f"{tmp_path / 'timm.ckpt'}#state_dict", "resnext_tiny")
    assert network_of_file.fc.bias.equal(plain["fc.bias"])
    with pytest.raises(BadRequest, match="holds no weights; of containers it has: state_dict_ema, state_dict"):
        loaded(f"{tmp_path / 'timm.ckpt'}#weights", "resnext_tiny")


def test_a_pickle_that_holds_itself_and_a_name_that_is_there_twice_are_refused(tmp_path: Path) -> None:
    endless: dict[str, Any] = {"state": tiny()}
    endless["model"] = endless["state"]["again"] = endless
    doubled = {**tiny(), **renamed(tiny(), "_orig_mod.")}
    for content, sentence in (
        (endless, "no state_dict of tensors"),
        (doubled, "conv1.weight twice, once as _orig_mod"),
    ):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(BadRequest, match=sentence):
            loaded(tmp_path / "w.pth", "resnext_tiny")


def refused(tensors: dict[str, Tensor], folder: Path, arch: str, channels: int = 1) -> str:
    safetensors.torch.save_file(tensors, folder / "w.safetensors")
    with pytest.raises(BadRequest) as raised:
        loaded(folder / "w.safetensors", arch, channels)
    return str(raised.value)


def test_missing_and_extra_keys_are_named_five_at_a_time(tmp_path: Path) -> None:
    tensors = renamed(tiny(), "module.")
    for key in [key for key in tensors if ".layer2." in key][:7]:
        tensors[key + "x"] = tensors.pop(key)
    sentence = refused(tensors, tmp_path, "resnext_tiny")
    assert "the file lacks 7 keys: module.layer2.0.conv1.weight, module.layer2.0.bn1.weight, " in sentence
    assert "the network has no place for 7 keys: module.layer2.0." in sentence
    assert sentence.count("weightx") + sentence.count("biasx") + sentence.count("meanx") + sentence.count("varx") == 5
    assert sentence.count("and 2 more") == 2


def test_another_architecture_is_suggested_with_its_classes_in_every_dialect(tmp_path: Path) -> None:
    for network, fits in ((tutorials.D2l(), "d2l_resnet18"), (tutorials.labml(3), "labml_resnet20")):
        channels = 1 if fits == "d2l_resnet18" else 3
        sentence = refused(tutorials.with_statistics(network, channels).state_dict(), tmp_path, "resnet18", channels)
        assert f"the file fits --arch {fits} with 10 classes" in sentence
    assert "its keys are torchvision's, and the file fits --arch resnext_tiny" in refused(tiny(), tmp_path, "resnet50d")


def test_channels_classes_and_a_missing_classifier(tmp_path: Path) -> None:
    network = tutorials.with_statistics(tutorials.D2l(), 1)
    assert "0.0.weight has shape (64, 3, 7, 7) in the network and has shape (64, 1, 7, 7) in the file" in (
        sentence := refused(network.state_dict(), tmp_path, "d2l_resnet18", 3)
    )
    assert sentence.endswith("the file takes 1 channel(s): ask for --channels 1")
    tensors = {key: value for key, value in tiny().items() if not key.startswith("fc.")}
    assert "lacks 2 keys: fc.weight, fc.bias; a classifier is needed" in refused(tensors, tmp_path, "resnext_tiny")


def test_the_other_padding_is_refused_since_no_shape_tells_it(tmp_path: Path) -> None:
    tensors = tutorials.with_statistics(tutorials.D2l(), 1).state_dict()
    sentence = refused(tensors, tmp_path, "d2l_jax_resnet18")
    assert "shapes are the same and answers are not; take --arch d2l_resnet18" in sentence


@pytest.mark.parametrize(
    ("keys", "looks"),
    [
        ("resnet.embedder.embedder.convolution.weight resnet.encoder.stages.0.layers.0.x classifier.1.bias", "Hugging"),
        ("stem.conv1.weight res2.0.conv1.norm.weight", "a checkpoint of Detectron2"),
        ("params/conv_init/kernel params/ResNetBlock_0/Conv_0/kernel", "Flax's ImageNet example"),
        ("blocks.0.attn.qkv.weight cls_token", "a vision transformer"),
        ("a.weight b.weight c d e f g", "is in no dialect that is known here (a.weight, b.weight, c, d, e and 2 more)"),
    ],
)
def test_a_dialect_that_is_not_read_is_named(tmp_path: Path, keys: str, looks: str) -> None:
    sentence = refused({key: torch.zeros(1) for key in keys.split()}, tmp_path, "resnet18")
    assert looks in sentence
    assert "torchvision, timm, d2l, d2l-sequential, labml, flax are read" in sentence


def test_a_loss_beside_the_network_is_named(tmp_path: Path) -> None:
    sentence = refused({**renamed(tiny(), "model."), "criterion.weight": torch.ones(10)}, tmp_path, "resnext_tiny")
    assert "model. has the keys of torchvision, and beside it are criterion.weight: save it alone" in sentence


def test_conversions_that_cannot_be_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safetensors.torch.save_file(tiny(), tmp_path / "w.safetensors")

    def sentence(destination: str, arch: str, *flags: str) -> str:
        assert (
            main(["convert", str(tmp_path / "w.safetensors"), str(tmp_path / destination), "--arch", arch, *flags]) == 2
        )
        return capsys.readouterr().err

    assert "only .safetensors, .pth, .pt, .msgpack files are written" in sentence("w.h5", "resnext_tiny")
    assert "only Flax reads .msgpack; add --to flax" in sentence("w.msgpack", "resnext_tiny")
    assert "name a file in a folder that is there" in sentence("no/w.pth", "resnext_tiny")
    assert "--to flax, whose networks have 'same' padding" in sentence("w.msgpack", "resnext_tiny", "--to", "flax")
    assert "the file fits --arch resnext_tiny" in sentence("x.pth", "resnet18")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
