"""A network in training and everything that a step changes in it."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pipeline.train import schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from pipeline.train.distributed import Team
    from pipeline.train.feed import Shard
    from pipeline.train.knobs import Training


class Learner:
    """``network`` under an optimiser; ``average`` is what is judged and kept, the network itself without --ema.

    Between two steps all processes of the team hold the same values, BatchNorm's statistics included: those are the
    mean over the shards, so that it does not matter which process has which shard.
    """

    def __init__(self, network: nn.Module, training: Training, steps: int, device: str, team: Team) -> None:
        import torch

        arithmetic = _arithmetic(training.arithmetic, device)
        self.dtype = torch.float64 if arithmetic == "float64" else torch.float32
        # channels_last is the layout of the fast CPU and GPU convolutions; it changes no value.
        network.to(device=device, dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network, self.training, self.steps, self.device, self.team = network.train(), training, steps, device, team
        self.average = copy.deepcopy(network).eval() if training.ema else network
        self.optimizer = _optimizer(network, training)
        self.scaler = torch.amp.GradScaler(device, enabled=arithmetic == "float16")
        reduced = arithmetic in {"bfloat16", "float16"}
        self.cast: Any = torch.autocast(device, getattr(torch, arithmetic)) if reduced else nullcontext()
        self.forward: Any = torch.compile(network) if training.compile else network
        if team.count > 1:
            # BatchNorm's statistics are averaged below, over shards, not taken from the first process.
            self.forward = torch.nn.parallel.DistributedDataParallel(self.forward, broadcast_buffers=False)

    def step(self, number: int, shards: Sequence[Shard]) -> tuple[float, float]:
        """Loss and share of right answers over the batch of step ``number``, of which this process has ``shards``.

        Raises FloatingPointError where the loss is no finite number; the weights are then those of the step before.
        """
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = schedule.rate(self.training, number, self.steps)
        self.optimizer.zero_grad()
        several = len(shards) * self.team.count > 1
        before = [value.clone() for value in self.network.buffers()] if several else []
        moved = [torch.zeros_like(value) for value in before]
        seen = torch.zeros(2, dtype=torch.float64, device=self.device)
        for shard in shards:
            for value, start in zip(self.network.buffers(), before, strict=False):
                value.copy_(start)
            # Only the last backward of a step waits for the other processes.
            alone = self.team.count > 1 and shard is not shards[-1]
            with self.forward.no_sync() if alone else nullcontext():
                loss, right = self._loss(shard)
                self.scaler.scale(loss / len(shards)).backward()  # type: ignore[no-untyped-call]
            seen += torch.stack([loss.detach().double(), right.double()])
            for delta, value, start in zip(moved, self.network.buffers(), before, strict=False):
                delta.add_(value - start)
        count = len(shards) * self.team.count
        mean, right = (self.team.sum(seen) / count).tolist()
        self._settle(before, moved, count)
        if not torch.isfinite(torch.tensor(mean)):
            raise FloatingPointError(mean)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._follow(number)
        return mean, right

    def _loss(self, shard: Shard) -> tuple[Tensor, Tensor]:
        import torch
        from torch.nn.functional import cross_entropy

        torch.manual_seed(shard.seed)  # for dropout and its like
        pixels = self.pixels(shard.pixels)
        labels, others = (torch.from_numpy(each).to(self.device) for each in (shard.labels, shard.others))
        smoothing = self.training.label_smoothing
        with self.cast:
            logits = self.forward(pixels)
            loss = cross_entropy(logits, labels, label_smoothing=smoothing)
            if shard.share < 1:
                other = cross_entropy(logits, others, label_smoothing=smoothing)
                loss = shard.share * loss + (1 - shard.share) * other
        return loss, (logits.detach().argmax(1) == labels).double().mean()

    def pixels(self, array: Any) -> Tensor:
        """``array`` (n, C, H, W) where and as the network wants it."""
        import torch

        return torch.from_numpy(array).to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)

    def _settle(self, before: Sequence[Tensor], moved: Sequence[Tensor], count: int) -> None:
        """Every buffer of fractions to its value before the step plus the mean of how far the shards moved it."""
        import torch

        every = zip(self.network.buffers(), before, moved, strict=False)
        floats = [(value, start, delta) for value, start, delta in every if start.is_floating_point()]
        if not floats:
            return
        total = self.team.sum(torch.cat([delta.flatten() for *_, delta in floats])) / count
        parts = torch.split(total, [delta.numel() for *_, delta in floats])
        for (value, start, _), part in zip(floats, parts, strict=True):
            value.copy_(start + part.view_as(start))

    def _follow(self, number: int) -> None:
        """Draw the average after the network: (1 + t) / (10 + t) at first, so that it forgets how it began."""
        import torch

        if self.average is self.network:
            return
        keep = min(self.training.ema, (1 + number) / (10 + number))
        with torch.no_grad():
            ours, theirs = self.average.state_dict().values(), self.network.state_dict().values()
            for mean, value in zip(ours, theirs, strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - keep)
                else:
                    mean.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on."""
        found = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        if self.average is not self.network:
            found |= {f"average.{key}": value for key, value in self.average.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{number}.{key}": value for key, value in state.items() if value is not None}
        return found

    def restore(self, tensors: Mapping[str, Tensor], scaler: dict[str, Any]) -> None:
        """Take all that :meth:`tensors` said; raises KeyError or RuntimeError where it is of another network."""
        import torch

        for name, module in (("network", self.network), ("average", self.average)):
            if name == "network" or module is not self.network:
                module.load_state_dict(_under(name, tensors))
        parameters = [value for group in self.optimizer.param_groups for value in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("optimizer", tensors).items():
            number, name = key.split(".", 1)
            like = parameters[int(number)]
            # In the layout of its weight: other strides may mean other kernels, and those other last bits.
            taken = torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(number), {})[name] = taken
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.scaler.load_state_dict(scaler)


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _arithmetic(asked: str, device: str) -> str:
    import torch

    if asked != "auto":
        return asked
    if device == "cpu":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def _optimizer(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101).

    Biases and BatchNorm do not decay (He et al. 2018, arXiv 1812.01187, section 3.1).
    """
    import torch

    values = [value for value in network.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in values if value.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [value for value in values if value.ndim <= 1], "weight_decay": 0.0},
    ]
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=training.learning_rate)
    return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)
