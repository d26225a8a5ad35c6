"""The reference: weights and the architecture's spec in one safetensors file, so that reloading executes nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.models import networks
from pipeline.models.resnet_spec import ResNetSpec
from pipeline.models.user_network import UserSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from pipeline.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class NetworkDescription:
    """All that is needed to rebuild a network around its weights."""

    arch: str
    spec: ResNetSpec | UserSpec
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]

    def network(self) -> nn.Module:
        """The network with fresh weights."""
        pixels = self.preprocessing
        return networks.build(self.spec, len(self.classes), pixels["channels"], pixels["mean"], pixels["std"])

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "arch": self.arch,
            "spec": self.spec.to_json(),
            "classes": list(self.classes),
            "preprocessing": self.preprocessing,
        }


def describe(
    arch: str, spec: ResNetSpec | UserSpec, classes: tuple[str, ...], preprocessing: Preprocessing
) -> NetworkDescription:
    """The description of a network for this data."""
    # Through JSON, so that this one equals the one that is read back: a tuple of means is a list there.
    record = json.loads(json.dumps(preprocessing.to_json()))
    return NetworkDescription(arch, spec, classes, record)


def write(network: nn.Module, description: NetworkDescription, path: Path) -> None:
    """Weights and description into ``path``; the same network always gives the same bytes."""
    import safetensors.torch

    from pipeline.models.checkpoint import parameters

    tensors = {}
    for name, value in parameters(network).items():
        tensors[name] = value.detach().cpu().contiguous()

    record = {**description.to_json(), "sha256": digest(network)}
    # One entry only: safetensors writes several in no fixed order.
    metadata = {"network": json.dumps(record, sort_keys=True)}
    # Two layers may share one weight, which safetensors refuses: each has its own in the file.
    own = {name: tensor.clone() for name, tensor in tensors.items()}
    path.write_bytes(safetensors.torch.save(own, metadata))


def digest(network: nn.Module) -> str:
    """SHA-256 over the names and values of all weights."""
    from pipeline.models.checkpoint import parameters

    sha256 = hashlib.sha256()
    for name, value in parameters(network).items():
        sha256.update(name.encode() + b"\0" + value.detach().cpu().numpy().tobytes())
    return sha256.hexdigest()


def read(path: Path) -> tuple[nn.Module, NetworkDescription]:
    """The network in ``path``, on the CPU, in inference mode; raises ValueError where its weights were changed."""
    import safetensors

    from pipeline.models import checkpoint

    with safetensors.safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["network"])
    expected = record.pop("sha256")
    description = _described(record)
    network = description.network()
    checkpoint.fill(network, checkpoint.read(path), path.name)
    if digest(network) != expected:
        raise ValueError(f"the weights in {path.name} are not those that were written there")
    return network.eval(), description


def preprocessing_in(path: Path) -> dict[str, Any] | None:
    """The record of preprocessing in a file that :func:`write` wrote; None where ``path`` is another one, or none."""
    import safetensors

    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            record = json.loads(file.metadata()["network"])["preprocessing"]
    # A stranger's file has other metadata or none, and one that is damaged is refused where its weights are read.
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _described(record: dict[str, Any]) -> NetworkDescription:
    """The description that :meth:`NetworkDescription.to_json` wrote."""
    spec = _spec(record["spec"])
    return NetworkDescription(**{**record, "spec": spec, "classes": tuple(record["classes"])})


def _spec(fields: dict[str, Any]) -> ResNetSpec | UserSpec:
    if "function" in fields:
        return UserSpec(**fields)
    return ResNetSpec.from_json(fields)
