"""What is odd about the kernels of given weights, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

NAMED = 3
# Levels of 3 bits and more have so many values and such magnitudes; fixed filters (Sobel, Gauss, Laplace) have fewer.
LEAST_VALUES = 8
LEAST_MAGNITUDE = 3


def of_whole_numbers(network: nn.Module) -> Iterator[str]:
    """A sentence where kernels of ``network`` are whole numbers: 8-bit levels whose scale is missing."""
    kernels = {name: value.detach() for name, value in network.named_parameters() if value.ndim >= 2}
    levels = [name for name, kernel in kernels.items() if _are_levels(kernel)]
    if levels:
        first = kernels[levels[0]]
        yield (
            f"{len(levels)} of {len(kernels)} kernels of these weights are whole numbers from {first.min():g} to "
            f"{first.max():g} or alike ({', '.join(levels[:NAMED])}): levels of INT8 without their scale? Multiply "
            "them by it, or give the weights before quantisation"
        )


def _are_levels(kernel: Tensor) -> bool:
    if not bool((kernel == kernel.round()).all()) or float(kernel.abs().max()) <= LEAST_MAGNITUDE:
        return False
    return len(np.unique(kernel.cpu().numpy())) >= LEAST_VALUES
