"""Kernels that are 8-bit levels without their scale, and kernels that are whole numbers honestly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.models.kernels import of_whole_numbers


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3), nn.Linear(16, 10))


def levels(kernel: torch.Tensor, largest: int) -> torch.Tensor:
    return (kernel / kernel.abs().amax() * largest).round()


@pytest.mark.parametrize("largest", [7, 127])
def test_levels_without_their_scale(largest: int) -> None:
    some = network()
    with torch.no_grad():
        some[0].weight.copy_(levels(some[0].weight, largest))
        some[3].weight.copy_(levels(some[3].weight, largest))
    (sentence,) = of_whole_numbers(some)
    assert sentence.startswith("2 of 3 kernels of these weights are whole numbers from ")
    assert "(0.weight, 3.weight): levels of INT8 without their scale?" in sentence
    assert str(largest) in sentence


def test_plain_kernels() -> None:
    assert not list(of_whole_numbers(network()))


SOBEL = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
GAUSS = torch.outer(*2 * [torch.tensor([1.0, 4, 6, 4, 1])])
HONEST = {
    "binary": torch.sign(torch.randn(16, 16, 3, 3)),
    "ternary": torch.randint(-1, 2, (16, 16, 3, 3)).float(),
    "zero": torch.zeros(16, 16, 3, 3),
    "an edge filter": SOBEL.expand(16, 1, 3, 3),
    "a blur": GAUSS.expand(16, 1, 5, 5),
    "levels with their scale": levels(torch.randn(16, 16, 3, 3), 127) * 0.013,
}


@pytest.mark.parametrize("kernel", HONEST.values(), ids=HONEST)
def test_whole_numbers_that_are_no_levels(kernel: torch.Tensor) -> None:
    convolution = nn.Conv2d(1, 1, 3)
    convolution.weight = nn.Parameter(kernel.clone())
    assert not list(of_whole_numbers(convolution))


def test_only_kernels_count() -> None:
    """Biases, and tables of places that are no parameters, may be whole numbers."""
    some = network()
    with torch.no_grad():
        some[3].bias.copy_(torch.arange(10.0))
    some.register_buffer("places", torch.arange(400).reshape(20, 20))
    assert not list(of_whole_numbers(some))
