"""How far one set of answers lies from another, and how many of them are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.stage import Accuracy, Drift

if TYPE_CHECKING:
    from numpy.typing import NDArray


def drift(reference: NDArray[np.float32], answers: NDArray[np.float32]) -> Drift:
    """The drift of ``answers`` (N, classes) from ``reference``; raises ValueError where any is missing or no number."""
    if reference.shape != answers.shape:
        raise ValueError(f"answers have shape {answers.shape} where the reference has {reference.shape}")
    if not len(answers):
        raise ValueError("there are no answers to compare: no image was given")
    bad = int((~np.isfinite(answers)).any(axis=1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(answers)} images are answered with NaN or infinity")
    wide, other = reference.astype(np.float64), answers.astype(np.float64)
    error = other - wide
    signal, noise = (wide**2).sum(1), (error**2).sum(1)
    norms = np.sqrt(signal * (other**2).sum(1))
    cosine = np.where(norms > 0, (wide * other).sum(1) / np.where(norms > 0, norms, 1), (noise == 0) * 1.0)
    # Null in the report means the same bits. Where most images have them, the median is above the best of the others.
    ratios = sqnr_db(reference, answers)
    median = min(np.median(ratios), ratios[noise > 0].max()) if noise.any() else np.inf
    return Drift(
        max_abs=float(np.abs(error).max()),
        max_rel=float(np.abs(error).max() / max(np.abs(wide).max(), 1e-300)),
        cosine=float(min(1.0, cosine.min())),
        sqnr_db=float(median) if noise.any() else None,
        top1_agreement=float((wide.argmax(1) == other.argmax(1)).mean()),
    )


def sqnr_db(reference: NDArray[np.float32], answers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each image, (N,): 10 log10(sum reference^2 / sum (answers - reference)^2) over its logits, in dB.

    Infinity where both (N, classes) are the same.
    """
    wide = reference.astype(np.float64)
    signal, noise = (wide**2).sum(1), ((answers.astype(np.float64) - wide) ** 2).sum(1)
    ratios = np.full(len(wide), np.inf)
    differing = noise > 0
    ratios[differing] = 10 * np.log10(np.maximum(signal[differing], 1e-300) / noise[differing])
    return ratios


def accuracy(answers: NDArray[np.float32], labels: NDArray[np.int64]) -> Accuracy:
    """Top-1 and top-5 of ``answers`` (N, classes) against ``labels`` (N,)."""
    ranked = np.argsort(-answers, axis=1, kind="stable")[:, :5]
    hits = ranked == labels[:, None]
    return Accuracy(top1=float(hits[:, 0].mean()), top5=float(hits.any(axis=1).mean()), n=len(labels))
