"""Whether the engine that was built here is the network that was judged: goldens, itself, its pace, another loader."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Tuple

import numpy as np

from exporters.portable import consistency
from exporters.portable.sqnr import capped_sqnr_db

from . import build, child, container, contents, disk
from .errors import Failed, Refused
from .store import VERIFIED

if TYPE_CHECKING:
    from .container import Bundle
    from .store import Store

Run = Callable[[Any], Any]
WARM_UP = 10  # runs that are not timed
RUNS = 200
LONGEST = 30.0  # seconds that they may take together
SHARES = (50, 90, 99)  # of a hundred runs
RAGGED = 3  # a batch of a size that no profile is tuned for


def verify(
    store: Store, version: str, device: Dict[str, Any], loader: str, seconds: float, heard: Callable[[str], None]
) -> Dict[str, Any]:
    """What was measured, noted beside the engine; raises Failed, and notes nothing, where a bound is not kept."""
    with store.building():
        bundle = store.whole(version)
        built = store.built(version)
        if built["device"] != device:
            raise Refused(f"{version} was built for another device or TensorRT; build the bundle again")

        loader_distances = conformance(bundle, loader) if loader else None
        figures = measured(store, version, seconds, heard, latency=True)
        figures["loader"] = loader_distances
        note = {"sha256": built["sha256"], "device": device, "at": int(time.time()), **figures}
        disk.replace(store.path(version, VERIFIED), json.dumps(note, indent=1).encode())
    return figures


def measured(store: Store, version: str, seconds: float, heard: Callable[[str], None], latency: bool) -> Dict[str, Any]:
    """The engine asked in a child process; raises Failed with every bound that it does not keep."""
    job = dict(store.job(version), latency=latency)
    figures: Dict[str, Any] = child.call("verify:examine", job, seconds, heard)
    if figures["broken"]:
        raise Failed(f"{version}: {'; '.join(figures['broken'])}; it is not activated")
    return figures


@dataclass(frozen=True)
class Goldens:
    """The answers to the golden images, each (n, classes): of PyTorch, of the file that was judged, of the engine."""

    reference: Any
    judged: Any
    answers: Any

    @property
    def fit(self) -> bool:
        """Whether the engine answers in the shape of the others."""
        return bool(self.answers.shape == self.judged.shape)

    @property
    def sqnr_db(self) -> float:
        """What half of the goldens keep of PyTorch's answers."""
        return float(np.median(capped_sqnr_db(self.reference, self.answers)))

    @property
    def judged_db(self) -> float:
        """What half of the goldens keep of the judged file's answers."""
        return float(np.median(capped_sqnr_db(self.judged, self.answers)))

    @property
    def agreement(self) -> float:
        """The share of goldens whose top-1 is that of PyTorch."""
        if not self.fit:
            return 0.0
        return float((self.answers.argmax(1) == self.reference.argmax(1)).mean())


def examine(job: Dict[str, Any]) -> Dict[str, Any]:
    """In the child: load the engine, ask it the goldens, and compare."""
    bundle, run = loaded(job)
    bounds = bundle.manifest["bounds"]
    images = contents.golden_images(bundle)
    least, _, most = bundle.manifest["model"]["batches"]

    goldens = Goldens(
        reference=contents.array(bundle, "golden-reference.npy"),
        judged=contents.array(bundle, "golden-judged.npy"),
        answers=in_batches(run, images, most),
    )
    broken = list(_drifted(goldens, bounds))
    figures: Dict[str, Any] = {
        "goldens": len(images),
        "sqnr_db": goldens.sqnr_db,
        "judged_db": goldens.judged_db,
        "agreement": goldens.agreement,
    }
    # Of an engine that answers something else nobody needs to know more.
    if job["latency"] and not broken:
        broken += _contradictions(run, images[:most], least, bounds["judged_db"])
        figures["latency"] = percentiles(timed(run, images[:1].repeat(least, axis=0)))
        broken += _slower(figures["latency"]["p99_ms"], bounds["latency_ms"])
    return dict(figures, broken=broken)


def loaded(job: Dict[str, Any]) -> Tuple[Bundle, Run]:
    """The bundle and the engine of a version."""
    keys = {name: bytes.fromhex(key) for name, key in job["keys"].items()}
    bundle = container.opened(job["folder"], keys)
    runtime = importlib.import_module(f"{__package__}.{job['runtime']}_engine")
    engine_path = os.path.join(job["folder"], job["file"])
    return bundle, runtime.load(build.job_of(bundle, engine_path))


def worst_class(bundle: Bundle) -> List[str]:
    """What became of the class that lost most for certain, where it was judged; nothing where the bundle has none."""
    worst = bundle.manifest["bounds"].get("worst_class")
    if worst is None:
        return []
    lost = 100 * (worst["lost"] - worst["gained"]) / worst["images"]
    counts = f"{worst['lost']} lost, {worst['gained']} gained of {worst['images']} images"
    found = f"{worst['name']} lost {lost:.2f} points ({counts})"
    return [f"worst class where it was judged: {found}; no class lost more than {100 * worst['at_most']:.2f}"]


def _drifted(goldens: Goldens, bounds: Dict[str, Any]) -> Iterator[str]:
    """Each bound on the answers to the goldens that is not kept, as a sentence."""
    answers = goldens.answers
    if not goldens.fit:
        yield f"it answers {answers.shape} to the goldens, not {goldens.judged.shape}"
        return
    finite = np.isfinite(answers)
    if not finite.all():
        yield f"{int((~finite).any(1).sum())} goldens are answered with NaN or infinity"
        return

    # "not >=" and not "<": NaN keeps no bound.
    if not goldens.sqnr_db >= bounds["sqnr_db"]:
        yield f"the goldens keep {goldens.sqnr_db:.1f} dB of PyTorch, {bounds['sqnr_db']:g} are asked for"
    if not goldens.judged_db >= bounds["judged_db"]:
        kept = f"the goldens keep {goldens.judged_db:.1f} dB of the file that was judged"
        yield f"{kept}, {bounds['judged_db']:g} are asked for"
    if not goldens.agreement >= bounds["agreement"]:
        wanted = f"{100 * bounds['agreement']:.2f} are asked for"
        yield f"{100 * goldens.agreement:.2f} % of the goldens have PyTorch's answer, {wanted}"


def _contradictions(run: Run, images: Any, least: int, least_db: float) -> Iterator[str]:
    """Each way in which the engine contradicts itself: one image has one answer, wherever it stands in a batch."""
    logits = run(images)
    if not np.array_equal(logits, run(images)):
        yield "the same batch twice gives two answers"

    half = len(images) // 2
    sizes = sorted({size for size in (least, RAGGED, half) if least <= size < len(images)})
    for name, agreement_db in consistency.comparisons(run, images, logits, sizes):
        median_db = np.median(agreement_db)
        worst_db = min(agreement_db)
        if not (median_db >= least_db and worst_db >= least_db - consistency.WORST_DB):
            yield f"{name}: answers agree to {median_db:.1f} dB, at worst {worst_db:.1f}, not {least_db:g}"


def _slower(p99_ms: float, allowed_ms: Any) -> Iterator[str]:
    if allowed_ms is not None and p99_ms > allowed_ms:
        yield f"99 % of its runs take up to {p99_ms:.3f} ms, {allowed_ms:g} are allowed"


def in_batches(run: Run, images: Any, most: int) -> Any:
    """The answers to all images, at most ``most`` at a time."""
    answers = []
    for start in range(0, len(images), most):
        batch = images[start : start + most]
        answers.append(run(batch))
    return np.concatenate(answers)


def timed(run: Run, images: Any, runs: int = RUNS, longest: float = LONGEST) -> List[float]:
    """Seconds of each of at most ``runs`` runs, after a warm-up, within ``longest`` seconds."""
    for _ in range(WARM_UP):
        run(images)
    seconds: List[float] = []
    total = 0.0
    while len(seconds) < runs and total < longest:
        started = time.perf_counter()
        run(images)
        seconds.append(time.perf_counter() - started)
        total += seconds[-1]
    return seconds


def percentiles(seconds: List[float]) -> Dict[str, float]:
    """Milliseconds that half, 90 and 99 of a hundred runs take at most, and how many runs there were."""
    ranked_ms = np.sort(np.asarray(seconds)) * 1e3
    last = len(ranked_ms) - 1
    figures: Dict[str, float] = {}
    for share in SHARES:
        place = min(last, len(ranked_ms) * share // 100)
        figures[f"p{share}_ms"] = float(ranked_ms[place])
    return dict(figures, runs=len(seconds))


def conformance(bundle: Bundle, loader: str) -> Dict[str, Any]:
    """How far ``module:function`` of the user's own is from the pixels of the contract; raises Failed where too far."""
    load = _function(loader)
    bound = contents.parsed(bundle, "conformance.json")["conforms"]
    vectors = [name for name in bundle.places if name.startswith("vector-") and name.endswith(".png")]

    distances: Dict[str, Any] = {}
    for vector in sorted(vectors):
        expected = contents.array(bundle, vector[: -len(".png")] + ".npy")
        with _quiet():
            pixels = np.squeeze(np.asarray(load(os.path.join(bundle.origin, vector)), np.float64))
        if pixels.shape != np.squeeze(expected).shape:
            raise Failed(f"--loader {loader}: {vector} becomes {pixels.shape}, not {expected.shape}")

        apart = np.abs(pixels - np.squeeze(expected))
        largest = float(apart.max())
        mean = float(apart.mean())
        distances[vector] = {"largest": largest, "mean": mean}
        if not (largest <= bound["largest"] and mean <= bound["mean"]):
            raise Failed(
                f"--loader {loader}: {vector} is {largest:.2f} levels away, {mean:.3f} in the mean; "
                f"{bound['largest']:g} and {bound['mean']:g} are allowed; python -m pipeline conform names the fault"
            )
    return distances


def _function(loader: str) -> Callable[[str], Any]:
    """``module:function`` imported, from the folder that the agent was called in too."""
    module, _, name = loader.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        with _quiet():
            function: Callable[[str], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Refused(f"--loader {loader}: there is no such function ({error}); run from its folder") from error
    return function


def _quiet() -> Any:
    """What is printed goes to the error stream: it is not what this agent answers."""
    return contextlib.redirect_stdout(sys.stderr)
