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

    own_images = np.arange(team.rank, len(images), team.count)
    # The loss and the right answers, each summed over the images of this process.
    sums = torch.zeros(2, dtype=torch.float64)
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for start in range(0, len(own_images), images.batch_size):
            chosen = own_images[start : start + images.batch_size]
            logits = network(pixels(images.select(chosen))).double().cpu()
            labels = torch.from_numpy(images.labels[chosen])
            loss = cross_entropy(logits, labels, reduction="sum")
            right = (logits.argmax(1) == labels).double().sum()
            sums += torch.stack([loss, right])
    network.train(was_training)

    mean_loss, top1 = (team.sum(sums) / len(images)).tolist()
    return {"loss": mean_loss, "top1": top1}
