"""Which method's ranges serve the network best, on images that none of them has seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporters import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

DEFAULT = "mse"
CONFIDENCE = 0.95
LEAST = 1e-12  # an error that is none: 120 dB below the logits


@dataclass(frozen=True)
class Outcome:
    """``error_db`` is each method's mean over images of the squared error of the logits over their square, in dB.

    ``rival`` is the other method in question, worse than ``winner`` by ``worse_db`` with the interval ``lower_db`` to
    ``upper_db``.
    """

    winner: str
    error_db: dict[str, float]
    rival: str
    worse_db: float
    lower_db: float
    upper_db: float

    @property
    def sentence(self) -> str:
        """``mse, next best entropy 0.4 dB worse (0.1 … 0.7)``."""
        if self.worse_db < 0:
            chance = (
                f"{-self.worse_db:.1f} dB better, which may be chance ({-self.upper_db:.1f} … {-self.lower_db:.1f})"
            )
            return f"{self.winner}, since {self.rival} is {chance}"
        rival = f"{self.rival} {self.worse_db:.1f} dB worse ({self.lower_db:.1f} … {self.upper_db:.1f})"
        return f"{self.winner}, next best {rival}"


def errors_db(src: Path, quantised: Path, batches: Iterable[NDArray[np.float32]]) -> NDArray[np.float64]:
    """The error of the logits of ``quantised`` against ``src`` for each image, squared, relative, in dB.

    Raises ValueError where they are no finite numbers.
    """
    one, other = reference.session(src, "ORT_ENABLE_ALL"), reference.session(quantised)
    found = []
    for images in batches:
        wanted, got = (session.run(None, {"images": images})[0].astype(np.float64) for session in (one, other))
        found.append(np.sum((got - wanted) ** 2, axis=1) / np.sum(wanted**2, axis=1))
    errors = np.concatenate(found)
    if not np.isfinite(errors).all():
        raise ValueError(f"logits of {quantised.name} are no finite numbers")
    return np.asarray(10 * np.log10(np.maximum(errors, LEAST)))


def play(errors: Mapping[str, NDArray[np.float64]]) -> Outcome:
    """The winner by the mean error in dB of each image; ``errors`` are those of :func:`errors_db` of each method.

    :data:`DEFAULT` stays where it is not beaten beyond the interval of the paired difference (Student's t over images).
    """
    means = {method: float(each.mean()) for method, each in errors.items()}
    first, second = sorted(means, key=means.__getitem__)[:2]
    if first != DEFAULT and _interval(errors[DEFAULT] - errors[first])[0] <= 0:
        first, second = DEFAULT, first
    worse = errors[second] - errors[first]
    return Outcome(first, means, second, float(worse.mean()), *_interval(worse))


def _interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    from scipy import stats

    count = len(differences)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * float(differences.std(ddof=1)) / count**0.5
    return float(differences.mean()) - half, float(differences.mean()) + half


def compete(
    src: Path,
    quantise: Callable[[str, Path], object],
    methods: Iterable[str],
    scratch: Path,
    batches: Callable[[], Iterable[NDArray[np.float32]]],
) -> Outcome:
    """The outcome for ``methods``; ``quantise(method, path)`` writes a method's graph, ``scratch`` is a file for it."""
    errors = {}
    for method in methods:
        quantise(method, scratch)
        errors[method] = errors_db(src, scratch, batches())
        scratch.unlink()
    return play(errors)
