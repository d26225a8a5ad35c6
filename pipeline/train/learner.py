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
        self.network = network.train()
        self.training = training
        self.steps = steps
        self.device = device
        self.team = team
        self.average = copy.deepcopy(network).eval() if training.ema else network
        self.optimizer = _optimizer(network, training)

        # Only float16 needs its loss scaled: its gradients would underflow, and bfloat16 has the range of float32.
        self.scaler = torch.amp.GradScaler(device, enabled=arithmetic == "float16")
        self.cast: Any = nullcontext()
        if arithmetic in {"bfloat16", "float16"}:
            self.cast = torch.autocast(device, getattr(torch, arithmetic))

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

        shard_count = len(shards) * self.team.count
        before: list[Tensor] = []
        # A single shard moves BatchNorm's buffers itself, and there is nothing to average.
        if shard_count > 1:
            before = [buffer.clone() for buffer in self.network.buffers()]
        moved = [torch.zeros_like(buffer) for buffer in before]

        # The loss and the share of right answers, each summed over the shards.
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for shard in shards:
            # Every shard begins at the buffers of the step before, whichever shards this process had first.
            for buffer, start in zip(self.network.buffers(), before, strict=False):
                buffer.copy_(start)
            # Only the last backward of a step waits for the other processes.
            is_local = self.team.count > 1 and shard is not shards[-1]
            with self.forward.no_sync() if is_local else nullcontext():
                loss, right = self._loss(shard)
                self.scaler.scale(loss / len(shards)).backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([loss.detach().double(), right.double()])
            for delta, buffer, start in zip(moved, self.network.buffers(), before, strict=False):
                delta.add_(buffer - start)

        mean_loss, mean_right = (self.team.sum(sums) / shard_count).tolist()
        self._average_buffers(before, moved, shard_count)
        if not torch.isfinite(torch.tensor(mean_loss)):
            raise FloatingPointError(mean_loss)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._move_average(number)
        return mean_loss, mean_right

    def _loss(self, shard: Shard) -> tuple[Tensor, Tensor]:
        """The loss of ``shard`` to go backward from, and its share of right answers."""
        import torch
        from torch.nn.functional import cross_entropy

        torch.manual_seed(shard.seed)  # for dropout and its like
        pixels = self.pixels(shard.pixels)
        labels = torch.from_numpy(shard.labels).to(self.device)
        others = torch.from_numpy(shard.others).to(self.device)
        smoothing = self.training.label_smoothing
        with self.cast:
            logits = self.forward(pixels)
            loss = cross_entropy(logits, labels, label_smoothing=smoothing)
            # Mixup: the loss is mixed as the pixels are.
            if shard.share < 1:
                other_loss = cross_entropy(logits, others, label_smoothing=smoothing)
                loss = shard.share * loss + (1 - shard.share) * other_loss
        is_right = logits.detach().argmax(1) == labels
        return loss, is_right.double().mean()

    def pixels(self, array: Any) -> Tensor:
        """``array`` (n, C, H, W) where and as the network wants it."""
        import torch

        return torch.from_numpy(array).to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)

    def _average_buffers(self, before: Sequence[Tensor], moved: Sequence[Tensor], shard_count: int) -> None:
        """Every buffer of fractions to its value before the step plus the mean of how far the shards moved it."""
        import torch

        buffers: list[Tensor] = []
        starts: list[Tensor] = []
        deltas: list[Tensor] = []
        for buffer, start, delta in zip(self.network.buffers(), before, moved, strict=False):
            # Counters are whole numbers, and every shard counts the same.
            if start.is_floating_point():
                buffers.append(buffer)
                starts.append(start)
                deltas.append(delta)
        if not buffers:
            return

        # One sum for all buffers together: every sum waits for all processes.
        flat = torch.cat([delta.flatten() for delta in deltas])
        mean_delta = self.team.sum(flat) / shard_count
        parts = torch.split(mean_delta, [delta.numel() for delta in deltas])
        for buffer, start, part in zip(buffers, starts, parts, strict=True):
            buffer.copy_(start + part.view_as(start))

    def _move_average(self, number: int) -> None:
        """Draw the average after the network: (1 + t) / (10 + t) at first, so that it forgets how it began."""
        import torch

        if self.average is self.network:
            return
        keep = min(self.training.ema, (1 + number) / (10 + number))
        with torch.no_grad():
            averages = self.average.state_dict().values()
            values = self.network.state_dict().values()
            for average, value in zip(averages, values, strict=True):
                if average.is_floating_point():
                    average.lerp_(value, 1 - keep)
                else:
                    average.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on."""
        named_tensors: dict[str, Tensor] = {}
        for key, value in self.network.state_dict().items():
            named_tensors[f"network.{key}"] = value
        if self.average is not self.network:
            for key, value in self.average.state_dict().items():
                named_tensors[f"average.{key}"] = value
        for number, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                # An optimiser may hold None in place of a buffer that it does not use.
                if value is not None:
                    named_tensors[f"optimizer.{number}.{key}"] = value
        return named_tensors

    def restore(self, tensors: Mapping[str, Tensor], scaler: dict[str, Any]) -> None:
        """Take all that :meth:`tensors` said; raises KeyError or RuntimeError where it is of another network."""
        self.network.load_state_dict(_under("network", tensors))
        if self.average is not self.network:
            self.average.load_state_dict(_under("average", tensors))

        # Optimisers number their parameters from 0, group by group.
        parameters = []
        for group in self.optimizer.param_groups:
            parameters.extend(group["params"])
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("optimizer", tensors).items():
            number, name = key.split(".", 1)
            states.setdefault(int(number), {})[name] = _in_layout_of(parameters[int(number)], value)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
        self.scaler.load_state_dict(scaler)


def _in_layout_of(parameter: Tensor, value: Tensor) -> Tensor:
    """``value`` in the layout of its weight: other strides may mean other kernels, and those other last bits."""
    import torch

    if value.shape != parameter.shape:
        return value  # the count of steps
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose keys begin with ``name`` and a point, without that."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _arithmetic(name: str, device: str) -> str:
    """What ``--arithmetic`` means on ``device``."""
    import torch

    if name != "auto":
        return name
    if device == "cpu":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def _optimizer(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101).

    Biases and BatchNorm do not decay (He et al. 2018, arXiv 1812.01187, section 3.1).
    """
    import torch

    # Biases and the parameters of BatchNorm have one axis, kernels and matrices have more.
    decaying = []
    constant = []
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim > 1:
            decaying.append(parameter)
        else:
            constant.append(parameter)
    groups = [
        {"params": decaying, "weight_decay": training.weight_decay},
        {"params": constant, "weight_decay": 0.0},
    ]
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=training.learning_rate)
    return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)
