"""The learning rate of a step, from its number alone: a resumed training needs no state for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.train.knobs import Training


def rate(training: Training, step: int, steps: int) -> float:
    """The learning rate of ``step``, counted from 0, of ``steps``.

    A line up in the warm-up (Goyal et al. 2017, arXiv 1706.02677, section 2.2), then half a cosine down to 0
    (Loshchilov and Hutter 2016, arXiv 1608.03983, equation 5), or the peak throughout.
    """
    warmup_steps = round(training.warmup * steps)
    if step < warmup_steps:
        # Above 0 already in step 0: a step at rate 0 would learn nothing.
        return training.learning_rate * (step + 1) / warmup_steps
    if training.schedule == "constant":
        return training.learning_rate
    return training.learning_rate * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps))) / 2
