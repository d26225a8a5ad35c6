"""The reference: weights and the architecture's spec in one safetensors file, so that reloading executes nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.models.specs import ResNetSpec
from pipeline.models.user_network import OwnSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from pipeline.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class NetworkDescription:
    """All that is needed to rebuild a network around its weights."""

    arch: str
    spec: ResNetSpec | OwnSpec
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]

    def network(self) -> nn.Module:
        """The network with fresh weights."""
        record = self.preprocessing
        return self.spec.network(len(self.classes), record["channels"], record["mean"], record["std"])

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "arch": self.arch,
            "spec": self.spec.to_json(),
            "classes": list(self.classes),
            "preprocessing": self.preprocessing,
        }


def describe(
    arch: str, spec: ResNetSpec | OwnSpec, classes: tuple[str, ...], preprocessing: Preprocessing
) -> NetworkDescription:
    """The description of a network for this data."""
    return NetworkDescription(arch, spec, classes, json.loads(json.dumps(preprocessing.to_json())))


def write(network: nn.Module, description: NetworkDescription, path: Path) -> None:
    """Weights and description into ``path``; the same network always gives the same bytes."""
    import safetensors.torch

    from pipeline.models.checkpoint import parameters

    tensors = {key: value.detach().cpu().contiguous() for key, value in parameters(network).items()}
    # One entry only: safetensors writes several in no fixed order.
    record = {"network": json.dumps({**description.to_json(), "sha256": digest(network)}, sort_keys=True)}
    path.write_bytes(safetensors.torch.save(tensors, record))


def digest(network: nn.Module) -> str:
    """SHA-256 over the names and values of all weights."""
    from pipeline.models.checkpoint import parameters

    seen = hashlib.sha256()
    for key, value in parameters(network).items():
        seen.update(key.encode() + b"\0" + value.detach().cpu().numpy().tobytes())
    return seen.hexdigest()


def read(path: Path) -> tuple[nn.Module, NetworkDescription]:
    """The network in ``path``, on the CPU, in inference mode; raises ValueError where its weights were changed."""
    import safetensors

    from pipeline.models import checkpoint

    with safetensors.safe_open(path, "pt") as file:
        fields = json.loads(file.metadata()["network"])
    expected = fields.pop("sha256")
    own = "function" in fields["spec"]
    fields["spec"] = OwnSpec(**fields["spec"]) if own else ResNetSpec.from_json(fields["spec"])
    fields["classes"] = tuple(fields["classes"])
    description = NetworkDescription(**fields)
    network = description.network()
    checkpoint.fill(network, checkpoint.read(path), path.name)
    if digest(network) != expected:
        raise ValueError(f"the weights in {path.name} are not those that were written there")
    return network.eval(), description
