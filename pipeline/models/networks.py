"""A network out of its spec, whichever kind of spec it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.models import user_network
from pipeline.models.user_network import UserSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from pipeline.models.resnet_spec import ResNetSpec


def build(
    spec: ResNetSpec | UserSpec, classes: int, channels: int, mean: Sequence[float], std: Sequence[float]
) -> nn.Module:
    """The network of ``spec`` with fresh weights, for pixels 0..255 of shape (N, channels, H, W).

    ``mean`` and ``std`` have one value per channel, in 0..1 units. Raises BadRequest where the network is the user's
    and its function cannot be run (see user_network.build).
    """
    if isinstance(spec, UserSpec):
        return user_network.build(spec, classes, channels, mean, std)

    from pipeline.models.resnet import ResNet

    return ResNet(spec, classes, channels, mean, std)
