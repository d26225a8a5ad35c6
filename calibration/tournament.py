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
# An error that is none: 120 dB below the logits.
LEAST_ERROR = 1e-12


@dataclass(frozen=True)
class Outcome:
    """Which method won, and by how much.

    ``error_db`` is each method's mean over images of the squared error of the logits over their square, in dB.
    ``rival`` is the other method in question. It is worse than ``winner`` by ``worse_db``, with the interval
    ``lower_db`` to ``upper_db``.
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
        if self.worse_db >= 0:
            interval = f"({self.lower_db:.1f} … {self.upper_db:.1f})"
            return f"{self.winner}, next best {self.rival} {self.worse_db:.1f} dB worse {interval}"

        # The default stays though another has the lower mean: by how much that one is better, so with the signs turned.
        interval = f"({-self.upper_db:.1f} … {-self.lower_db:.1f})"
        return f"{self.winner}, since {self.rival} is {-self.worse_db:.1f} dB better, which may be chance {interval}"


def errors_db(src: Path, quantised: Path, batches: Iterable[NDArray[np.float32]]) -> NDArray[np.float64]:
    """For each image the squared error of the logits of ``quantised``, relative to those of ``src``, in dB, (N,).

    Raises ValueError where they are no finite numbers.
    """
    float_session = reference.session(src, "ORT_ENABLE_ALL")
    quantised_session = reference.session(quantised)
    batch_errors = []
    for images in batches:
        expected = float_session.run(None, {"images": images})[0].astype(np.float64)
        answered = quantised_session.run(None, {"images": images})[0].astype(np.float64)
        batch_errors.append(np.sum((answered - expected) ** 2, axis=1) / np.sum(expected**2, axis=1))
    errors = np.concatenate(batch_errors)
    if not np.isfinite(errors).all():
        raise ValueError(f"logits of {quantised.name} are no finite numbers")
    return np.asarray(10 * np.log10(np.maximum(errors, LEAST_ERROR)))


def play(errors: Mapping[str, NDArray[np.float64]]) -> Outcome:
    """The winner by the mean of the images' errors in dB; ``errors`` has for each method what :func:`errors_db` gave.

    :data:`DEFAULT` wins unless another is better beyond the interval of the paired difference (Student's t over
    images).
    """
    means = {method: float(method_errors.mean()) for method, method_errors in errors.items()}
    winner, rival = sorted(means, key=means.__getitem__)[:2]
    if winner != DEFAULT:
        lower_gain, _ = _interval(errors[DEFAULT] - errors[winner])
        if lower_gain <= 0:
            winner, rival = DEFAULT, winner

    worse = errors[rival] - errors[winner]
    lower, upper = _interval(worse)
    return Outcome(winner, means, rival, float(worse.mean()), lower, upper)


def _interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The interval of the mean of ``differences``, by Student's t."""
    from scipy import stats

    count = len(differences)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
    half_width = quantile * float(differences.std(ddof=1)) / count**0.5
    mean = float(differences.mean())
    return mean - half_width, mean + half_width


def compete(
    src: Path,
    quantise: Callable[[str, Path], object],
    methods: Iterable[str],
    scratch: Path,
    batches: Callable[[], Iterable[NDArray[np.float32]]],
) -> Outcome:
    """The outcome for ``methods``.

    ``quantise(method, path)`` writes a method's graph, for which ``scratch`` is the path. ``batches()`` gives the
    images (n, C, H, W) 0..255, the same at every call.
    """
    errors = {}
    for method in methods:
        quantise(method, scratch)
        errors[method] = errors_db(src, scratch, batches())
        scratch.unlink()
    return play(errors)
