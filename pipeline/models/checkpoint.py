"""Weights from a file that may be anyone's: no pickle is executed, and what does not fit is named."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.models import flax_files, wrappers
from pipeline.models.dialects import DIALECTS
from pipeline.models.fitting import Fit

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


def _pickled(path: Path) -> Any:
    import pickle

    import torch

    try:
        _check_sums(path)
        # weights_only: a restricted reader that knows tensors and containers and runs nothing.
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle ends in any error there is
        if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error).lower():
            raise BadRequest(
                f"--weights {path} holds more than tensors, which only runs as code and was not executed; "
                "save its state_dict() with safetensors.torch.save_file where you trust it"
            ) from error
        raise BadRequest(f"--weights {path} is truncated or corrupted; fetch or save it again") from error


def _check_sums(path: Path) -> None:
    """Raise ValueError where a checksum is wrong; torch does not look at those of its own archives."""
    if not zipfile.is_zipfile(path):  # torch before 1.6 wrote plain pickles
        return
    bad = zipfile.ZipFile(path).testzip()
    if bad:
        raise ValueError(f"the checksum of {bad} is wrong")


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _safetensors,
    ".pth": _pickled,
    ".pt": _pickled,
    ".ckpt": _pickled,
    ".msgpack": flax_files.msgpack,
}


def read(path: Path) -> Weights:
    """All tensors of ``path`` by name; raises BadRequest where it cannot be read as plain tensors."""
    weights, _ = unwrapped(path)
    return weights


def unwrapped(path: Path, container: str | None = None) -> tuple[Weights, str]:
    """The tensors in ``path`` by name, out of ``container`` or the first known one, and which that was.

    ``path`` is a file of READERS or a folder of Orbax. Raises BadRequest where it cannot be read as plain tensors.
    """
    if not path.exists():
        raise BadRequest(f"--weights {path}: there is no such file")
    reader = flax_files.orbax if path.is_dir() else READERS.get(path.suffix)
    if reader is None:
        raise BadRequest(f"--weights {path}: only {', '.join(READERS)} files are read, not {path.suffix or 'this'}")
    return wrappers.unwrap(reader(path), f"--weights {path}", container)


def fill(network: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Put ``weights`` under our own names into ``network``; raises BadRequest with all that does not fit, and why."""
    given = wrappers.without_counters(weights)
    expected = parameters(network)
    same_names = {key: key for key in [*expected, *given]}
    put(network, Fit(name, expected, given, same_names, DIALECTS["torchvision"]))


def put(network: nn.Module, fit: Fit) -> None:
    """Put the weights of ``fit`` into ``network``; raises BadRequest with all that does not fit, and why."""
    state = {key: value.float() for key, value in taken(fit).items()}
    # Not strict, because no checkpoint has the statistics of the pixels; that all the rest is there, taken() has seen.
    network.load_state_dict(state, strict=False)


def taken(fit: Fit) -> Weights:
    """The weights of ``fit`` by our names; raises BadRequest where they do not fit, or are no numbers."""
    fit.refuse()
    weights = {}
    for key in fit.expected:
        value = fit.given[fit.named[key]]
        if not bool(value.float().isfinite().all()):
            their_name = fit.prefix + fit.named[key]
            raise BadRequest(
                f"{fit.name}: {their_name} holds NaN or infinity; this checkpoint cannot give an answer, use another"
            )
        weights[key] = value
    return weights


def parameters(network: nn.Module) -> Weights:
    """What a checkpoint in torchvision's layout must hold, without its counters and without our pixel statistics."""
    return {
        key: value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked") and not key.startswith("pixel_")
    }
