"""Weights from a file that may be anyone's: no pickle is executed, and what does not fit is named."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

Weights = dict[str, "Tensor"]


def _safetensors(path: Path) -> Weights:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise BadRequest(f"--weights {path} is truncated or corrupted ({error}); fetch or save it again") from error


def _pickled(path: Path) -> Weights:
    import pickle

    import torch

    try:
        _check_sums(path)
        # weights_only: a restricted reader that knows tensors and containers and runs nothing.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle ends in any error there is
        if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error).lower():
            raise BadRequest(
                f"--weights {path} holds more than tensors, which only runs as code and was not executed; "
                "save its state_dict() with safetensors.torch.save_file where you trust it"
            ) from error
        raise BadRequest(f"--weights {path} is truncated or corrupted; fetch or save it again") from error
    if not isinstance(loaded, dict) or not all(_plain(key, value) for key, value in loaded.items()):
        raise BadRequest(f"--weights {path} is no state_dict of tensors; save network.state_dict() and give that")
    return loaded


def _check_sums(path: Path) -> None:
    """Raise ValueError where a checksum is wrong; torch does not look at those of its own archives."""
    if zipfile.is_zipfile(path) and (bad := zipfile.ZipFile(path).testzip()):
        raise ValueError(f"the checksum of {bad} is wrong")


def _plain(key: object, value: object) -> bool:
    import torch

    if not isinstance(key, str) or not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_complex() and not value.is_quantized


READERS: dict[str, Callable[[Path], Weights]] = {".safetensors": _safetensors, ".pth": _pickled, ".pt": _pickled}


def read(path: Path) -> Weights:
    """All tensors of ``path`` by name; raises BadRequest where it cannot be read as plain tensors."""
    if not path.is_file():
        raise BadRequest(f"--weights {path}: there is no such file")
    if path.suffix not in READERS:
        raise BadRequest(f"--weights {path}: only {', '.join(READERS)} files are read, not {path.suffix or 'this'}")
    return READERS[path.suffix](path)


def fill(network: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Put ``weights`` into ``network``; raises BadRequest with the first key that does not fit, and why."""
    expected = parameters(network)
    given = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    for key in [*expected, *given]:
        ours = tuple(expected[key].shape) if key in expected else None
        theirs = tuple(given[key].shape) if key in given else None
        if ours != theirs:
            raise BadRequest(_mismatch(name, key, ours, theirs, given))
    filled = {key: value.float() for key, value in given.items()}
    for key, value in filled.items():
        if not bool(value.isfinite().all()):
            raise BadRequest(f"{name}: {key} holds NaN or infinity; this checkpoint cannot give an answer, use another")
    network.load_state_dict(filled, strict=False)


def parameters(network: nn.Module) -> Weights:
    """What a checkpoint in torchvision's layout must hold, without its counters and without our pixel statistics."""
    return {
        key: value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked") and not key.startswith("pixel_")
    }


def _mismatch(
    name: str, key: str, ours: tuple[int, ...] | None, theirs: tuple[int, ...] | None, given: Mapping[str, Tensor]
) -> str:
    network = f"has shape {ours}" if ours is not None else "does not exist"
    file = f"has shape {theirs}" if theirs is not None else "does not exist"
    return f"{name}: {key} {network} in the network and {file} in the file; {_cure(key, ours, theirs, given)}"


def _cure(key: str, ours: tuple[int, ...] | None, theirs: tuple[int, ...] | None, given: Mapping[str, Tensor]) -> str:
    if key.startswith("fc.") and ours and theirs:
        return f"the file knows {theirs[0]} classes and the data set {ours[0]}: use the data it was trained on"
    if key in {"conv1.weight", "conv1.0.weight"} and ours and theirs and ours[1] != theirs[1]:
        return f"the file takes {theirs[1]} channel(s): ask for --channels {theirs[1]}"
    fits = _architectures(given)
    return f"the file fits --arch {' or '.join(fits)}" if fits else "it is no checkpoint of this family"


def _architectures(given: Mapping[str, Tensor]) -> list[str]:
    """The architectures whose body has exactly these shapes."""
    import torch

    from pipeline.models.resnet import ResNet
    from pipeline.models.specs import ARCHITECTURES

    def body(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {key: tuple(value.shape) for key, value in weights.items() if key.startswith("layer")}

    fits = []
    for name, spec in ARCHITECTURES.items():
        with torch.device("meta"):
            if body(parameters(ResNet(spec, 2, 3, (0.0,) * 3, (1.0,) * 3))) == body(given):
                fits.append(name)
    return fits
