"""Loss and accuracy on images that are not trained on, each process asking its share of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from pipeline.data.images import Images
    from pipeline.train.distributed import Team


def score(network: nn.Module, images: Images, pixels: Callable[[Any], Tensor], team: Team) -> dict[str, float]:
    """Mean ``loss`` (cross-entropy in nats, not smoothed) and ``top1`` over ``images``; ``network`` keeps its mode."""
    import torch
    from torch.nn.functional import cross_entropy

    mine = np.arange(team.rank, len(images), team.count)
    seen = torch.zeros(2, dtype=torch.float64)
    training = network.training
    network.eval()
    with torch.no_grad():
        for start in range(0, len(mine), images.batch_size):
            chosen = mine[start : start + images.batch_size]
            logits = network(pixels(images.select(chosen))).double().cpu()
            labels = torch.from_numpy(images.labels[chosen])
            right = (logits.argmax(1) == labels).double().sum()
            seen += torch.stack([cross_entropy(logits, labels, reduction="sum"), right])
    network.train(training)
    loss, top1 = (team.sum(seen) / len(images)).tolist()
    return {"loss": loss, "top1": top1}
