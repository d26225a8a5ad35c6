"""Networks as people really build them, for ``--arch user_networks:NAME``.

Each has one thing that the registered networks lack, and is small enough to be trained on the digits in seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 32
Network = Callable[[int, int], nn.Module]
NETWORKS: dict[str, Network] = {}


def network(function: Network) -> Network:
    """List ``function`` among the networks, under its own name."""
    NETWORKS[function.__name__] = function
    return function


# --- what the networks are made of ------------------------------------------------------------------------------------


class Plain(nn.Module):
    """Three convolutions and a classifier, with room for ``middle`` behind the first and for another ``head``.

    Of images of 32 x 32 pixels the middle has 8 x 8, and the head 4 x 4.
    """

    def __init__(
        self, classes: int, channels: int, middle: nn.Module | None = None, head: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTH, 5, 4, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.middle = nn.Identity() if middle is None else middle
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(WIDTH)
        self.conv3 = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(WIDTH)
        self.head = PooledHead(classes) if head is None else head

    def stem(self, images: Tensor) -> Tensor:
        return functional.relu(self.bn1(self.conv1(images)))

    def features(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn2(self.conv2(self.middle(self.stem(images)))))
        return functional.relu(self.bn3(self.conv3(x)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class PooledHead(nn.Module):
    """A linear layer over the mean of each channel."""

    def __init__(self, classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Function(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    """The input, and ``branch`` of it."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def conv_bn_relu(inputs: int = WIDTH, outputs: int = WIDTH, size: int = 3, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


# --- arithmetic without a module, and constants -----------------------------------------------------------------------


@network
def halved(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Function(lambda x: x / 2))


@network
def leaky_minus(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Function(lambda x: functional.leaky_relu(x - 1.0)))


@network
def doubled_minus(classes: int, channels: int) -> nn.Module:
    """As an Inception that takes pixels from -1 to 1."""
    return nn.Sequential(Function(lambda images: images * 2 - 1), Plain(classes, channels))


class OwnNormalisation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 0.2))
        self.register_buffer("std", torch.full((1, channels, 1, 1), 0.7))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


@network
def normalise_inside(classes: int, channels: int) -> nn.Module:
    return nn.Sequential(OwnNormalisation(channels), Plain(classes, channels))


@network
def norm_of_the_input(classes: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(channels), Plain(classes, channels))


class PositionEmbedding(nn.Module):
    """A buffer and a parameter that are added, neither of them by a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fixed", torch.linspace(-1, 1, 8).repeat(1, 1, 8, 1))
        self.learned = nn.Parameter(torch.zeros(1, WIDTH, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fixed + self.learned


@network
def position_embedding(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, PositionEmbedding())


class CoordConv(nn.Module):
    """Liu et al. 2018, arXiv 1807.03247: the coordinates of each pixel as two more channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH + 2, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows = torch.arange(height, dtype=x.dtype, device=x.device) / height
        columns = torch.arange(width, dtype=x.dtype, device=x.device) / width
        rows = rows.reshape(1, 1, height, 1).expand(batch, 1, height, width)
        columns = columns.reshape(1, 1, 1, width).expand(batch, 1, height, width)
        return functional.relu(self.conv(torch.cat([x, rows, columns], 1)))


@network
def coord_conv(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, CoordConv())


@network
def clamped(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Function(lambda x: x.clamp(0, 2)))


@network
def clamped_below(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Function(lambda x: x.clamp(min=0.1)))


@network
def where(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Function(lambda x: torch.where(x > 1, torch.ones_like(x), x)))


@network
def masked(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Function(lambda x: x * (x > x.mean((2, 3), keepdim=True)).float()))


@network
def masked_fill(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Function(lambda x: x.masked_fill(x < 0.1, 0.0)))


@network
def shortcut_of_shares(classes: int, channels: int) -> nn.Module:
    """Two branches weighed by a softmax over two parameters."""
    return Plain(classes, channels, LearnedShares())


class LearnedShares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.logits = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        shares = self.logits.softmax(0)
        return shares[0] * x + shares[1] * self.conv(x)


# --- activations ------------------------------------------------------------------------------------------------------


@network
def relu6(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.ReLU6())


@network
def gelu(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.GELU())


@network
def gelu_tanh(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.GELU(approximate="tanh"))


@network
def silu(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.SiLU())


@network
def hard_swish(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.Hardswish())


@network
def mish(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.Mish())


@network
def prelu(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.PReLU(WIDTH))


@network
def elu(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.Sequential(nn.ELU(), nn.CELU(), nn.SELU(), nn.Softplus(), nn.Hardtanh()))


@network
def gated_linear(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.Sequential(nn.Conv2d(WIDTH, 2 * WIDTH, 1), nn.GLU(1)))


class FunnelActivation(nn.Module):
    """Ma et al. 2020, arXiv 2007.11824: the larger of a pixel and a depthwise convolution around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False)
        self.bn = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.bn(self.conv(x)))


@network
def funnel(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, FunnelActivation())


@network
def maxout(classes: int, channels: int) -> nn.Module:
    """Goodfellow et al. 2013, arXiv 1302.4389: the largest of two channels."""
    wide = nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1)
    return Plain(classes, channels, nn.Sequential(wide, Function(lambda x: x.unflatten(1, (WIDTH, 2)).amax(2))))


# --- attention --------------------------------------------------------------------------------------------------------


class SqueezeExcite(nn.Module):
    """Hu et al. 2018, arXiv 1709.01507."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(WIDTH, 4, 1)
        self.expand = nn.Conv2d(4, WIDTH, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(functional.relu(self.reduce(pooled))))


@network
def squeeze_excite(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, SqueezeExcite(nn.Sigmoid()))


@network
def squeeze_excite_hard(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, SqueezeExcite(nn.Hardsigmoid()))


class LinearSqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(WIDTH, 4, bias=False), nn.ReLU(), nn.Linear(4, WIDTH, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        batch, width = x.shape[:2]
        pooled = functional.adaptive_avg_pool2d(x, 1).view(batch, width)
        return x * self.fc(pooled).sigmoid().view(batch, width, 1, 1).expand_as(x)


@network
def squeeze_excite_linear(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, LinearSqueezeExcite())


class EfficientChannelAttention(nn.Module):
    """Wang et al. 2020, arXiv 1910.03151: a one-dimensional convolution over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3)).unsqueeze(1)
        return x * torch.sigmoid(self.conv(pooled)).squeeze(1)[:, :, None, None]


@network
def efficient_channel_attention(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, EfficientChannelAttention())


class BlockAttention(nn.Module):
    """CBAM: Woo et al. 2018, arXiv 1807.06521."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(WIDTH, 4, 1), nn.ReLU(), nn.Conv2d(4, WIDTH, 1))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.shared(functional.adaptive_avg_pool2d(x, 1))
        largest = self.shared(functional.adaptive_max_pool2d(x, 1))
        x = x * torch.sigmoid(mean + largest)
        over_channels = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(self.spatial(over_channels))


@network
def block_attention(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, BlockAttention())


class NonLocal(nn.Module):
    """Wang et al. 2017, arXiv 1711.07971."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Conv2d(WIDTH, 8, 1)
        self.key = nn.Conv2d(WIDTH, 8, 1)
        self.value = nn.Conv2d(WIDTH, 8, 1)
        self.out = nn.Conv2d(8, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).transpose(1, 2)
        key = self.key(x).flatten(2)
        value = self.value(x).flatten(2).transpose(1, 2)
        mixed = torch.matmul((torch.matmul(query, key) / 8**0.5).softmax(-1), value)
        return x + self.out(mixed.transpose(1, 2).reshape(x.shape[0], 8, x.shape[2], x.shape[3]))


@network
def non_local(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, NonLocal())


class EinsumAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Conv2d(WIDTH, 8, 1)
        self.key = nn.Conv2d(WIDTH, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)
        key = self.key(x).flatten(2)
        attention = torch.einsum("ncp,ncq->npq", query, key).mul(8**-0.5).softmax(-1)
        return x + torch.einsum("npq,ncq->ncp", attention, x.flatten(2)).view_as(x)


@network
def einsum_attention(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, EinsumAttention())


class TokenAttention(nn.Module):
    """Pixels as the tokens of a transformer's block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=True)[0]
        tokens = tokens + self.mlp(tokens)
        return tokens.transpose(1, 2).reshape_as(x)


@network
def token_attention(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, TokenAttention())


class SplitAttention(nn.Module):
    """The block of ResNeSt with radix 2: Zhang et al. 2020, arXiv 2004.08955."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1, groups=2, bias=False)
        self.bn = nn.BatchNorm2d(2 * WIDTH)
        self.fc1 = nn.Conv2d(WIDTH, 8, 1)
        self.fc2 = nn.Conv2d(8, 2 * WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, columns = x.shape
        splits = functional.relu(self.bn(self.conv(x))).reshape(batch, 2, width, height, columns)
        pooled = splits.sum(1).mean((2, 3), keepdim=True)
        shares = self.fc2(functional.relu(self.fc1(pooled))).view(batch, 2, width, 1, 1).softmax(1)
        return (splits * shares).sum(1)


@network
def split_attention(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, SplitAttention())


# --- normalisation ----------------------------------------------------------------------------------------------------


@network
def group_norm(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(4, WIDTH)))


@network
def instance_norm(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.InstanceNorm2d(WIDTH, affine=True))


@network
def local_response_norm(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.LocalResponseNorm(5))


class LayerNormOverChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@network
def layer_norm(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, LayerNormOverChannels())


class ConvNextBlock(nn.Module):
    """Liu et al. 2022, arXiv 2201.03545: linear layers over channels that stand last, and LayerScale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.fc1 = nn.Linear(WIDTH, 32)
        self.fc2 = nn.Linear(32, WIDTH)
        self.gamma = nn.Parameter(torch.full((WIDTH,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        channels_last = self.norm(self.conv(x).permute(0, 2, 3, 1))
        branch = self.gamma * self.fc2(functional.gelu(self.fc1(channels_last)))
        return x + branch.permute(0, 3, 1, 2)


@network
def convnext(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, ConvNextBlock())


class LayerScale(nn.Module):
    """A learned factor a channel: Touvron et al. 2021, arXiv 2103.17239."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.gamma = nn.Parameter(torch.full((WIDTH, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.conv(x)


@network
def layer_scale(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, LayerScale())


class StandardisedConv(nn.Conv2d):
    """Weight standardisation: Qiao et al. 2019, arXiv 1903.10520."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        spread = self.weight.var((1, 2, 3), keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(spread + 1e-5)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


@network
def weight_standardisation(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.Sequential(StandardisedConv(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(4, WIDTH)))


@network
def weight_norm(classes: int, channels: int) -> nn.Module:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
    return Plain(classes, channels, conv)


@network
def weight_norm_old(classes: int, channels: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch recommends its parametrization
        conv = nn.utils.weight_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
    return Plain(classes, channels, conv)


@network
def spectral_norm(classes: int, channels: int) -> nn.Module:
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
    return Plain(classes, channels, conv)


@network
def norm_of_logits(classes: int, channels: int) -> nn.Module:
    """BatchNorm1d behind linear layers, one with a bias and one without."""
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTH, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, classes, bias=False),
        nn.BatchNorm1d(classes),
    )
    return Plain(classes, channels, head=head)


@network
def norm_without_numbers(classes: int, channels: int) -> nn.Module:
    """A BatchNorm that learns neither factor nor offset."""
    conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
    return Plain(classes, channels, nn.Sequential(conv, nn.BatchNorm2d(WIDTH, affine=False)))


# --- blocks -----------------------------------------------------------------------------------------------------------


@network
def chunk(classes: int, channels: int) -> nn.Module:
    def swapped(x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return torch.cat([second, first], 1)

    return Plain(classes, channels, Function(swapped))


@network
def split(classes: int, channels: int) -> nn.Module:
    def parts(x: Tensor) -> Tensor:
        first, second, third = x.split([8, 8, 16], 1)
        return torch.cat([first + second, first - second, third], 1)

    return Plain(classes, channels, Function(parts))


@network
def sliced(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Function(lambda x: x[:, :, ::2, 1:] + x[:, :, 1::2, :-1]))


@network
def channel_shuffle(classes: int, channels: int) -> nn.Module:
    """Zhang et al. 2018, arXiv 1707.01083."""

    def shuffled(x: Tensor) -> Tensor:
        batch, width, height, columns = x.shape
        return x.view(batch, 4, width // 4, height, columns).transpose(1, 2).reshape(batch, width, height, columns)

    return Plain(classes, channels, nn.Sequential(conv_bn_relu(groups=4), Function(shuffled), conv_bn_relu(groups=4)))


@network
def channel_shuffle_module(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.Sequential(conv_bn_relu(groups=4), nn.ChannelShuffle(4), conv_bn_relu(groups=4)))


@network
def depthwise(classes: int, channels: int) -> nn.Module:
    """The inverted bottleneck of MobileNet: Sandler et al. 2018, arXiv 1801.04381."""
    branch = nn.Sequential(
        conv_bn_relu(WIDTH, 32, 1),
        conv_bn_relu(32, 32, 3, groups=32),
        nn.Conv2d(32, WIDTH, 1, bias=False),
        nn.BatchNorm2d(WIDTH),
    )
    return Plain(classes, channels, Residual(branch))


class Ghost(nn.Module):
    """Han et al. 2019, arXiv 1911.11907: half of the channels are cheap functions of the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = conv_bn_relu(WIDTH, WIDTH // 2, 1)
        self.cheap = conv_bn_relu(WIDTH // 2, WIDTH // 2, 3, groups=WIDTH // 2)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary(x)
        return torch.cat([primary, self.cheap(primary)], 1)


@network
def ghost(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Ghost())


class Res2Net(nn.Module):
    """Gao et al. 2019, arXiv 1904.01169: each part of the channels also sees the part before it."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv_bn_relu(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, 8, 1)
        done = [parts[0]]
        for conv, part in zip(self.convs, parts[1:], strict=True):
            done.append(conv(part + done[-1]))
        return x + torch.cat(done, 1)


@network
def res2net(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Res2Net())


class DenseBlock(nn.Module):
    """Huang et al. 2016, arXiv 1608.06993: BatchNorm and ReLU stand before the convolution, over all that came."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.conv1 = nn.Conv2d(WIDTH, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(WIDTH + 8)
        self.conv2 = nn.Conv2d(WIDTH + 8, 8, 3, padding=1, bias=False)
        self.transition = nn.Conv2d(WIDTH + 16, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(functional.relu(self.bn1(x)))
        two = torch.cat([x, first], 1)
        second = self.conv2(functional.relu(self.bn2(two)))
        return functional.avg_pool2d(self.transition(torch.cat([two, second], 1)), 2)


@network
def dense_block(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, DenseBlock())


@network
def pre_activation(classes: int, channels: int) -> nn.Module:
    """He et al. 2016, arXiv 1603.05027."""
    branch = nn.Sequential(
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
    )
    return Plain(classes, channels, Residual(branch))


class ThreeBranches(nn.Module):
    """RepVGG before its branches are merged: Ding et al. 2021, arXiv 2101.03697."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH))
        self.narrow = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))
        self.identity = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.wide(x) + self.narrow(x) + self.identity(x))


@network
def three_branches(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, ThreeBranches())


class Pyramid(nn.Module):
    """Convolutions with holes, side by side, and the mean of the image: Chen et al. 2017, arXiv 1706.05587."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(WIDTH, 8, 3, padding=1)
        self.far = nn.Conv2d(WIDTH, 8, 3, padding=3, dilation=3)
        self.image = nn.Conv2d(WIDTH, 8, 1)
        self.join = nn.Conv2d(24, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        image = self.image(functional.adaptive_avg_pool2d(x, 1)).expand(-1, -1, x.shape[2], x.shape[3])
        return functional.relu(self.join(torch.cat([self.near(x), self.far(x), image], 1)))


@network
def pyramid(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Pyramid())


class StochasticDepth(nn.Module):
    """Huang et al. 2016, arXiv 1603.09382: in training a branch is left out now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = conv_bn_relu()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.branch(x)
        if self.training:
            kept = torch.empty(len(x), 1, 1, 1).bernoulli_(0.8)
            branch = branch * kept / 0.8
        return x + branch


@network
def stochastic_depth(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, StochasticDepth())


@network
def dropout(classes: int, channels: int) -> nn.Module:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(WIDTH, classes))
    return Plain(classes, channels, nn.Dropout2d(0.1), head)


@network
def dropout_in_eval(classes: int, channels: int) -> nn.Module:
    """A dropout that is asked for in training only, by the function."""
    network = Plain(classes, channels)
    network.middle = Function(lambda x: functional.dropout(x, 0.1, network.training))
    return network


class Twice(nn.Module):
    """One convolution with its BatchNorm, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        once = functional.relu(self.bn(self.conv(x)))
        return functional.relu(self.bn(self.conv(once)))


@network
def twice(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Twice())


class TiedHalves(nn.Module):
    """Two layers that share one weight, but not what stands behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.second.weight = self.first.weight
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.bn2 = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn2(self.second(functional.relu(self.bn1(self.first(x))))))


@network
def tied_weights(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, TiedHalves())


# --- sizes and edges --------------------------------------------------------------------------------------------------


class BlurPool(nn.Module):
    """Zhang 2019, arXiv 1904.11486: a fixed filter before the stride."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = row[:, None] * row[None, :]
        self.mode = mode
        self.register_buffer("kernel", (kernel / kernel.sum()).repeat(WIDTH, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode=self.mode), self.kernel, stride=2, groups=WIDTH)


@network
def blur_pool(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, BlurPool("reflect"))


@network
def blur_pool_zeros(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, BlurPool("constant"))


@network
def blurred_max_pool(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.Sequential(nn.MaxPool2d(2, 1), BlurPool("replicate")))


@network
def space_to_depth(classes: int, channels: int) -> nn.Module:
    """A stem that turns blocks of 2 x 2 pixels into channels."""
    return nn.Sequential(nn.PixelUnshuffle(2), Plain(classes, 4 * channels))


@network
def pixel_shuffle(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, nn.Sequential(nn.Conv2d(WIDTH, 4 * WIDTH, 1), nn.PixelShuffle(2)))


@network
def padded_conv(classes: int, channels: int) -> nn.Module:
    conv = nn.Conv2d(WIDTH, WIDTH, 3, bias=False)
    return Plain(classes, channels, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv, nn.BatchNorm2d(WIDTH)))


@network
def padded_pool(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Function(lambda x: functional.max_pool2d(functional.pad(x, (0, 1, 0, 1)), 3, 2)))


@network
def padded_pool_infinity(classes: int, channels: int) -> nn.Module:
    def pooled(x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)

    return Plain(classes, channels, Function(pooled))


@network
def padded_average(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Function(lambda x: functional.avg_pool2d(functional.pad(x, (1, 0, 1, 0)), 2)))


@network
def same_padding(classes: int, channels: int) -> nn.Module:
    even = nn.Conv2d(WIDTH, WIDTH, 4, padding="same")
    odd = nn.Conv2d(WIDTH, WIDTH, 3, padding="same", dilation=2)
    return Plain(classes, channels, nn.Sequential(even, nn.BatchNorm2d(WIDTH), nn.ReLU(), odd, nn.ReLU()))


@network
def reflected_conv(classes: int, channels: int) -> nn.Module:
    conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, padding_mode="reflect", bias=False)
    return Plain(classes, channels, nn.Sequential(conv, nn.BatchNorm2d(WIDTH), nn.ReLU()))


@network
def ceil_pools(classes: int, channels: int) -> nn.Module:
    average = nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
    return Plain(classes, channels, nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), average))


class Hourglass(nn.Module):
    """Down by a stride, and up again by ``up``."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.down = nn.Conv2d(WIDTH, WIDTH, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTH)
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(functional.relu(self.bn(self.down(x))))


@network
def transposed_conv(classes: int, channels: int) -> nn.Module:
    up = nn.Sequential(nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU())
    return Plain(classes, channels, Hourglass(up))


@network
def transposed_groups(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Hourglass(nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1, groups=4)))


@network
def upsample_nearest(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Hourglass(nn.Upsample(scale_factor=2, mode="nearest")))


@network
def upsample_bilinear(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Hourglass(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)))


@network
def upsample_aligned(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Hourglass(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)))


@network
def upsample_to_size(classes: int, channels: int) -> nn.Module:
    def resized(x: Tensor) -> Tensor:
        half = functional.max_pool2d(x, 2)
        return x + functional.interpolate(half, size=x.shape[2:], mode="nearest")

    return Plain(classes, channels, Function(resized))


class Warp(nn.Module):
    """A spatial transformer that shifts: Jaderberg et al. 2015, arXiv 1506.02025."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        shift = 0.1 * torch.tanh(self.fc(x.mean((2, 3))))
        rows = torch.linspace(-1, 1, x.shape[2])
        columns = torch.linspace(-1, 1, x.shape[3])
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
        return functional.grid_sample(x, grid + shift[:, None, None, :], align_corners=False)


@network
def grid_sample(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, Warp())


class WindowMixer(nn.Module):
    """A linear layer over windows of 4 x 4 pixels, as a Swin Transformer parts them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, columns = x.shape
        windows = x.view(batch, width, height // 4, 4, columns // 4, 4).permute(0, 2, 4, 1, 3, 5)
        mixed = self.fc(windows.reshape(batch, height // 4, columns // 4, width, 16))
        back = mixed.reshape(batch, height // 4, columns // 4, width, 4, 4).permute(0, 3, 1, 4, 2, 5)
        return x + back.reshape(batch, width, height, columns)


@network
def windows(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, WindowMixer())


@network
def unfolded(classes: int, channels: int) -> nn.Module:
    """A convolution written as a product of matrices."""
    return Plain(classes, channels, UnfoldedConv())


class UnfoldedConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(WIDTH, WIDTH * 9))

    def forward(self, x: Tensor) -> Tensor:
        columns = functional.unfold(x, 3, padding=1)
        return functional.relu((self.weight @ columns).view(x.shape[0], WIDTH, x.shape[2], x.shape[3]))


# --- heads ------------------------------------------------------------------------------------------------------------


@network
def spare(classes: int, channels: int) -> nn.Module:
    """A head that forward does not read."""
    network = Plain(classes, channels)
    network.aux = nn.Linear(WIDTH, classes)
    return network


class TwoHeads(Plain):
    """Both heads are computed, one is answered."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__(classes, channels)
        self.other = PooledHead(classes + 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        answers = {"digit": self.head(features), "other": self.other(features)}
        return answers["digit"]


@network
def two_heads(classes: int, channels: int) -> nn.Module:
    return TwoHeads(classes, channels)


class MeanOfHeads(Plain):
    def __init__(self, classes: int, channels: int) -> None:
        super().__init__(classes, channels)
        self.early = PooledHead(classes)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([self.early(self.stem(images)), self.head(self.features(images))]).mean(0)


@network
def mean_of_heads(classes: int, channels: int) -> nn.Module:
    return MeanOfHeads(classes, channels)


def linear_over(pool: Callable[[Tensor], Tensor], classes: int, width: int = WIDTH) -> nn.Module:
    """A linear layer over what ``pool`` makes of the features."""
    return nn.Sequential(Function(pool), nn.Linear(width, classes))


@network
def mean_head(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, head=linear_over(lambda x: x.mean((2, 3)), classes))


@network
def mean_twice(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, head=linear_over(lambda x: x.mean(-1).mean(-1), classes))


@network
def largest_head(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, head=linear_over(lambda x: x.amax((2, 3)) - x.amin((2, 3)), classes))


@network
def sum_head(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, head=linear_over(lambda x: x.sum((2, 3)) / 16, classes))


@network
def spread_head(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, head=linear_over(lambda x: x.var((2, 3)), classes))


@network
def log_sum_exp_head(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, head=linear_over(lambda x: x.logsumexp((2, 3)), classes))


class PowerMean(nn.Module):
    """GeM: Radenović et al. 2017, arXiv 1711.02512."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=1e-6).pow(self.p).mean((2, 3)).pow(1 / self.p)


@network
def power_mean_head(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, head=nn.Sequential(PowerMean(), nn.Linear(WIDTH, classes)))


class CosineHead(nn.Module):
    """Angles between the features and one direction a class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return 16 * functional.linear(functional.normalize(x.mean((2, 3))), functional.normalize(self.weight))


@network
def cosine_head(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, head=CosineHead(classes))


@network
def view_head(classes: int, channels: int) -> nn.Module:
    def flat(x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)

    return Plain(classes, channels, head=linear_over(flat, classes))


@network
def squeezed_head(classes: int, channels: int) -> nn.Module:
    def flat(x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)

    return Plain(classes, channels, head=linear_over(flat, classes))


@network
def pool_of_four(classes: int, channels: int) -> nn.Module:
    def flat(x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(x, 2).flatten(1)

    return Plain(classes, channels, head=linear_over(flat, classes, 4 * WIDTH))


@network
def concatenated_pools(classes: int, channels: int) -> nn.Module:
    def both(x: Tensor) -> Tensor:
        return torch.cat([functional.adaptive_avg_pool2d(x, 1), functional.adaptive_max_pool2d(x, 1)], 1).flatten(1)

    return Plain(classes, channels, head=linear_over(both, classes, 2 * WIDTH))


@network
def conv_head(classes: int, channels: int) -> nn.Module:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(WIDTH, classes, 1), nn.Flatten())
    return Plain(classes, channels, head=head)


@network
def fully_convolutional(classes: int, channels: int) -> nn.Module:
    head = nn.Sequential(nn.Conv2d(WIDTH, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Plain(classes, channels, head=head)


@network
def log_softmax_head(classes: int, channels: int) -> nn.Module:
    return nn.Sequential(Plain(classes, channels), nn.LogSoftmax(1))


@network
def temperature(classes: int, channels: int) -> nn.Module:
    return nn.Sequential(Plain(classes, channels), Temperature())


class Temperature(nn.Module):
    """Guo et al. 2017, arXiv 1706.04599."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1) * 1.5)

    def forward(self, logits: Tensor) -> Tensor:
        return logits / self.temperature


@network
def deep_head(classes: int, channels: int) -> nn.Module:
    head = nn.Sequential(
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * WIDTH, 32),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(32, classes),
    )
    return Plain(classes, channels, head=head)


@network
def perceptron(classes: int, channels: int) -> nn.Module:
    """No convolution at all."""
    pooled = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    return nn.Sequential(pooled, nn.Linear(64 * channels, 32), nn.ReLU(), nn.Linear(32, classes))


# --- networks ported from other frameworks ------------------------------------------------------------------------


class Affine(nn.Module):
    """A frozen BatchNorm as dlib writes it: one factor and one offset for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, channels).reshape(channels, 1, 1))
        self.offset = nn.Parameter(torch.linspace(0, 0.4, channels).reshape(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.offset


class DlibBlock(nn.Module):
    """A shortcut without weights: averaged, padded with channels, and then with pads of no width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2)
        self.affine1 = Affine(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.affine2 = Affine(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.affine2(self.conv2(functional.relu(self.affine1(self.conv1(x)))))
        x = functional.avg_pool2d(x, 2)
        x = functional.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        height, width = max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3])
        x = functional.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))
        y = functional.pad(y, (0, width - y.shape[3], 0, height - y.shape[2]))
        return functional.relu(y + x)


@network
def dlib(classes: int, channels: int) -> nn.Module:
    stem = [nn.Conv2d(channels, 16, 5, 2), Affine(16), nn.ReLU()]
    return nn.Sequential(*stem, DlibBlock(16, 32), DlibBlock(32, 64), PooledHead(classes, 64))


class CaffeBlock(nn.Module):
    """Caffe's bottleneck: the stride in the first 1x1, BatchNorm without numbers of its own, and a Scale behind it."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *self.layer(inputs, inner, 1, stride),
            nn.ReLU(),
            *self.layer(inner, inner, 3),
            nn.ReLU(),
            *self.layer(inner, outputs, 1),
        )
        self.shortcut = nn.Sequential(*self.layer(inputs, outputs, 1, stride))

    @staticmethod
    def layer(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        return [conv, nn.BatchNorm2d(outputs, affine=False), Affine(outputs)]

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.branch(x) + self.shortcut(x))


@network
def caffe(classes: int, channels: int) -> nn.Module:
    """As open_nsfw: a wide stem, a pool that rounds up, logits by a convolution over the last 4 x 4 pixels."""
    stem = [*CaffeBlock.layer(channels, 48, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
    blocks = [CaffeBlock(48, 8, 32, 1), CaffeBlock(32, 16, 64, 2)]
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(4), nn.Conv2d(64, classes, 1), nn.Flatten())


@network
def caffe_pool(classes: int, channels: int) -> nn.Module:
    """A pool padded on the right and below alone, as a converter writes one that rounds up."""
    pool = nn.Sequential(Function(lambda x: functional.pad(x, (0, 1, 0, 1))), nn.MaxPool2d(3, 2))
    return Plain(classes, channels, pool)


class CaffeMean(nn.Module):
    """Pixels 0..255 again, BGR, minus a mean of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([104.0, 117.0, 123.0])[:channels].reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images * 255).flip(1) - self.mean


@network
def caffe_mean(classes: int, channels: int) -> nn.Module:
    return nn.Sequential(CaffeMean(channels), nn.BatchNorm2d(channels), Plain(classes, channels))


@network
def darknet(classes: int, channels: int) -> nn.Module:
    """YOLO's first layers: LeakyReLU of 0.1, a pool of stride 1 padded on one side, a classifier without Linear."""

    def layer(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)]

    one_sided = [nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1)]
    head = [nn.Conv2d(64, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)]
    return nn.Sequential(
        *layer(channels, 16), nn.MaxPool2d(2), *layer(16, 32), nn.MaxPool2d(2), *layer(32, 64), *one_sided,
        *layer(64, 32, 1), *layer(32, 64), *head,
    )  # fmt: skip


class SlimBlock(nn.Module):
    """TF-Slim: pixels padded before a convolution with a stride, which itself pads nothing."""

    def __init__(self, inputs: int, outputs: int, size: int = 3) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(inputs, outputs, size, 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        before = (self.size - 1) // 2
        behind = self.size - 1 - before
        x = functional.pad(x, [before, behind, before, behind])
        return functional.relu6(self.norm(self.conv(x)))


@network
def slim(classes: int, channels: int) -> nn.Module:
    """Pixels from -1 to 1, one class of nothing before all others that is cut off, logits of 1 x 1 pixels squeezed."""
    scaled = Function(lambda images: (images - 0.5) * 2.0)
    blocks = [SlimBlock(channels, 16, 7), SlimBlock(16, 32), SlimBlock(32, 64)]
    logits = [Function(lambda x: x.mean((2, 3), keepdim=True)), nn.Conv2d(64, classes + 1, 1)]
    return nn.Sequential(scaled, *blocks, *logits, Function(lambda x: x.squeeze(3).squeeze(2)[:, 1:]))


@network
def keras(classes: int, channels: int) -> nn.Module:
    """Its ResNet-50 begins so, and ends in a softmax."""
    return nn.Sequential(
        nn.ZeroPad2d(3), nn.Conv2d(channels, 32, 7, 2), nn.BatchNorm2d(32, eps=1.001e-5), nn.ReLU(),
        nn.ZeroPad2d(1), nn.MaxPool2d(3, 2), *conv_bn_relu(), Residual(conv_bn_relu()), PooledHead(classes),
        nn.Softmax(-1),
    )  # fmt: skip


class CifarShortcut(nn.Module):
    """He et al. 2015, section 4.2, option A: every second pixel, and channels of zeros on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, 2 * WIDTH, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, WIDTH // 2, WIDTH // 2), "constant", 0)
        return functional.relu(self.bn1(self.conv1(x)) + shortcut)


@network
def cifar(classes: int, channels: int) -> nn.Module:
    stem = conv_bn_relu(channels, WIDTH)
    pooled = Function(lambda x: functional.avg_pool2d(x, x.size()[3]).view(x.size(0), -1))
    return nn.Sequential(stem, CifarShortcut(), pooled, nn.Linear(2 * WIDTH, classes))


@network
def pads_of_all_kinds(classes: int, channels: int) -> nn.Module:
    """Of no width, one behind another, of another number, and cut away again."""
    middle = nn.Sequential(
        nn.ZeroPad2d(0), nn.ConstantPad2d((1, 0, 0, 2), 0.5), nn.ConstantPad2d((0, 1, 1, 0), 0.5), nn.ZeroPad2d(1),
        nn.Conv2d(WIDTH, WIDTH, 3), nn.ZeroPad2d((-1, -1, -1, 0)), nn.ZeroPad2d((0, 1, 2, 0)), nn.ReflectionPad2d(1),
        nn.ZeroPad2d(1), nn.AvgPool2d(3, 1), nn.ReplicationPad2d(1), nn.ReplicationPad2d(0),
    )  # fmt: skip
    return Plain(classes, channels, middle)


class Scalars(nn.Module):
    """Numbers without dimensions: a mean and a deviation that are buffers, a gain and an offset that were learned."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.13))
        self.register_buffer("deviation", torch.tensor(0.31))
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.offset = nn.Parameter(torch.tensor(-0.2))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation * self.gain + self.offset


class FixupBlock(nn.Module):
    """Zhang et al. 2019, arXiv 1901.09321: no normalisation, one number added before each layer, one gain."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.biases = nn.Parameter(torch.tensor([0.1, -0.1, 0.05, 0.02]))
        self.gain = nn.Parameter(torch.ones(1) * 0.7)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.conv1(x + self.biases[0]) + self.biases[1])
        y = self.conv2(y + self.biases[2]) * self.gain + self.biases[3]
        return functional.relu(y + x)


@network
def scalars(classes: int, channels: int) -> nn.Module:
    return nn.Sequential(Scalars(), Plain(classes, channels, nn.Sequential(FixupBlock(), Scalars())))


class OffsetHead(PooledHead):
    """Logits by their prior: every class has an offset of its own, and all of them a large one."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("prior", torch.linspace(-3, 3, classes))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.prior + 5


@network
def logit_offset(classes: int, channels: int) -> nn.Module:
    return Plain(classes, channels, head=OffsetHead(classes))


@network
def faces(classes: int, channels: int) -> nn.Module:
    """As MXNet's networks for faces: pixels of -1 to 1 by a factor, norms of the input and of the answers, PReLU."""
    scaled = Function(lambda images: (images * 255 - 127.5) * 0.0078125)
    body = [nn.Conv2d(channels, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH, eps=2e-5), nn.PReLU(WIDTH)]
    block = nn.Sequential(nn.BatchNorm2d(WIDTH), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.PReLU(WIDTH))
    head = [nn.BatchNorm2d(WIDTH), nn.Dropout(0.4), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16 * WIDTH, classes)]
    return nn.Sequential(scaled, nn.BatchNorm2d(channels), *body, Residual(block), *head, nn.BatchNorm1d(classes))
