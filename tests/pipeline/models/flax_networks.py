"""Run as a process of its own: document 004's networks in Flax, with checkpoints and answers into a folder.

``python flax_networks.py FOLDER``: reads ``images.npz`` there (``probe`` and ``train`` (N, H, W, 1) normalised,
``labels``), trains one small network on it, and saves every network by flax.serialization and by Orbax.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import serialization


class Residual(nn.Module):
    """Two 3x3 and a 1x1 beside them where the size changes."""

    channels: int
    project: bool
    train: bool

    def setup(self) -> None:
        strides = (2, 2) if self.project else (1, 1)
        self.conv1 = nn.Conv(self.channels, (3, 3), strides=strides, padding="same")
        self.conv2 = nn.Conv(self.channels, (3, 3), padding="same")
        self.conv3 = nn.Conv(self.channels, (1, 1), strides=strides) if self.project else None
        self.bn1, self.bn2 = nn.BatchNorm(not self.train), nn.BatchNorm(not self.train)

    def __call__(self, x: Any) -> Any:
        y = self.bn2(self.conv2(nn.relu(self.bn1(self.conv1(x)))))
        return nn.relu(y + (self.conv3(x) if self.conv3 else x))


class Grouped(nn.Module):
    """1x1, 3x3 in 16 groups, 1x1; the shortcut has its normalisation."""

    channels: int
    project: bool
    train: bool

    def setup(self) -> None:
        strides = (2, 2) if self.project else (1, 1)
        self.conv1 = nn.Conv(self.channels, (1, 1))
        self.conv2 = nn.Conv(self.channels, (3, 3), strides=strides, padding="same", feature_group_count=16)
        self.conv3 = nn.Conv(self.channels, (1, 1))
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm(not self.train) for _ in range(3))
        self.conv4 = nn.Conv(self.channels, (1, 1), strides=strides) if self.project else None
        self.bn4 = nn.BatchNorm(not self.train) if self.project else None

    def __call__(self, x: Any) -> Any:
        y = nn.relu(self.bn2(self.conv2(nn.relu(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        return nn.relu(y + (self.bn4(self.conv4(x)) if self.conv4 else x))


def averaged(x: Any) -> Any:
    """Over all pixels, as a pooling whose window is the image."""
    return nn.avg_pool(x, window_shape=x.shape[1:3], strides=x.shape[1:3], padding="valid")


class ResNet(nn.Module):
    """A Sequential ``net`` of Sequentials: stem, stages of (blocks, channels), head."""

    arch: tuple[tuple[int, int], ...]
    block: type[nn.Module] = Residual
    train: bool = False

    def setup(self) -> None:
        pool = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding="same")
        first = nn.Conv(self.arch[0][1], (7, 7), strides=(2, 2), padding="same")
        layers = [nn.Sequential([first, nn.BatchNorm(not self.train), nn.relu, pool])]
        for stage, (count, channels) in enumerate(self.arch):
            projects = [stage > 0 and index == 0 for index in range(count)]
            layers.append(nn.Sequential([self.block(channels, project, self.train) for project in projects]))
        layers.append(nn.Sequential([averaged, lambda x: x.reshape((x.shape[0], -1)), nn.Dense(10)]))
        self.net = nn.Sequential(layers)

    def __call__(self, x: Any) -> Any:
        return self.net(x)


RESNET18 = ((2, 64), (2, 128), (2, 256), (2, 512))
NETWORKS = {"resnet18": ResNet(RESNET18), "resnext26": ResNet(RESNET18, Grouped)}
SMALL = ((1, 16), (1, 32))


def random(network: ResNet, images: Any) -> Any:
    """Variables, with statistics that no fresh network has; nothing is compiled for them."""
    generator = np.random.default_rng(0)

    def drawn(path: Any, value: Any) -> Any:
        if path[-1].key == "kernel":
            spread = (-1.0, 1.0) / np.sqrt(np.prod(value.shape[:-1]) / 6)
        else:
            spread = {"scale": (0.5, 1.5), "var": (0.5, 1.5), "mean": (-0.1, 0.1), "bias": (-0.1, 0.1)}[path[-1].key]
        return jnp.asarray(generator.uniform(*spread, value.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(drawn, jax.eval_shape(network.init, jax.random.key(0), images))


def trained(images: Any, labels: Any) -> dict[str, Any]:
    """All that a training keeps: weights, statistics, the optimiser's state, and the step."""
    network = ResNet(SMALL, train=True)
    variables = network.init(jax.random.key(0), images[:1])
    steps = 300
    optimiser = optax.adam(optax.cosine_decay_schedule(4e-3, steps))

    @jax.jit
    def step(params: Any, statistics: Any, state: Any, batch: Any, target: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, new = network.apply({"params": params, "batch_stats": statistics}, batch, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean(), new["batch_stats"]

        (_, statistics), slopes = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimiser.update(slopes, state)
        return optax.apply_updates(params, updates), statistics, state

    params, statistics, state = variables["params"], variables["batch_stats"], optimiser.init(variables["params"])
    generator = np.random.default_rng(0)
    for _ in range(steps):
        chosen = generator.choice(len(images), 100, replace=False)
        params, statistics, state = step(params, statistics, state, images[chosen], labels[chosen])
    return {"step": steps, "params": params, "batch_stats": statistics, "opt_state": state}


def main(folder: Path) -> None:
    """Everything into ``folder``."""
    with np.load(folder / "images.npz") as file:
        probe, images, labels = file["probe"], file["train"], file["labels"]
    kept = {name: (network, random(network, probe)) for name, network in NETWORKS.items()}
    kept["small"] = ResNet(SMALL), trained(images, labels)
    for name, (network, tree) in kept.items():
        variables = {"params": tree["params"], "batch_stats": tree["batch_stats"]}
        np.save(folder / f"{name}.npy", jax.jit(network.apply)(variables, probe))
        (folder / f"{name}.msgpack").write_bytes(serialization.to_bytes(tree))
        with ocp.CheckpointManager(folder.resolve() / name) as manager:
            manager.save(3, args=ocp.args.StandardSave(serialization.to_state_dict(tree)))
    one = kept["small"][1]
    for zarr3 in (False, True):
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=zarr3, use_zarr3=zarr3)
        saved = {"params": one["params"], "batch_stats": one["batch_stats"]}
        ocp.Checkpointer(handler).save(folder.resolve() / ("zarr3" if zarr3 else "files"), saved)


def restore(folder: Path) -> None:
    """The answers of ``small`` from the variables in ``back.msgpack``, as flax.serialization reads it."""
    with np.load(folder / "images.npz") as file:
        probe = file["probe"]
    network = ResNet(SMALL)
    fresh = network.init(jax.random.key(1), probe)
    variables = serialization.from_bytes(fresh, (folder / "back.msgpack").read_bytes())
    np.save(folder / "back.npy", jax.jit(network.apply)(variables, probe))


if __name__ == "__main__":
    (restore if sys.argv[2:] == ["restore"] else main)(Path(sys.argv[1]))
