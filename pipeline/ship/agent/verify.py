"""Whether the engine that was built here is the network that was judged: goldens, itself, its pace, another loader."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Tuple

import numpy as np

from . import build, child, container, contents, disk
from .errors import Failed, Refused
from .store import VERIFIED

if TYPE_CHECKING:
    from .container import Bundle
    from .store import Store

Run = Callable[[Any], Any]
# Decibels by which one image may lie below what the median keeps; a row of another image lies 30 below.
WORST = 10.0
WARM_UP, RUNS, LONGEST = 10, 200, 30.0


def verify(
    store: Store, version: str, device: Dict[str, Any], loader: str, seconds: float, heard: Callable[[str], None]
) -> Dict[str, Any]:
    """What was measured, noted beside the engine; raises Failed, and notes nothing, where a bound is not kept."""
    with store.building():
        bundle, built = store.whole(version), store.built(version)
        if built["device"] != device:
            raise Refused(f"{version} was built for another device or TensorRT; build the bundle again")
        pixels = conformance(bundle, loader) if loader else None
        found = measured(store, version, seconds, heard, latency=True)
        found["loader"] = pixels
        note = {"sha256": built["sha256"], "device": device, "at": int(time.time()), **found}
        disk.replace(store.path(version, VERIFIED), json.dumps(note, indent=1).encode())
    return found


def measured(store: Store, version: str, seconds: float, heard: Callable[[str], None], latency: bool) -> Dict[str, Any]:
    """The engine asked in a child process; raises Failed with every bound that it does not keep."""
    job = dict(store.job(version), latency=latency)
    found: Dict[str, Any] = child.call("verify:examine", job, seconds, heard)
    if found["broken"]:
        raise Failed(f"{version}: {'; '.join(found['broken'])}; it is not activated")
    return found


def examine(job: Dict[str, Any]) -> Dict[str, Any]:
    """In the child: load the engine, ask it the goldens, and compare."""
    bundle, run = loaded(job)
    bounds, images = bundle.manifest["bounds"], contents.golden_images(bundle)
    least, most = bundle.manifest["model"]["batches"][::2]
    answers = in_batches(run, images, most)
    broken = list(_drifted(bundle, answers, bounds))
    reference, judged = (contents.array(bundle, f"golden-{name}.npy") for name in ("reference", "judged"))
    found: Dict[str, Any] = {
        "goldens": len(images),
        "sqnr_db": float(np.median(ratios(reference, answers))),
        "judged_db": float(np.median(ratios(judged, answers))),
        "agreement": float((answers.argmax(1) == reference.argmax(1)).mean()),
    }
    if job["latency"] and not broken:
        broken += _contradictions(run, images[:most], least, bounds["judged_db"])
        found["latency"] = percentiles(timed(run, images[:1].repeat(least, axis=0)))
        if bounds["latency_ms"] is not None and found["latency"]["p99_ms"] > bounds["latency_ms"]:
            found_ms, asked = found["latency"]["p99_ms"], bounds["latency_ms"]
            broken.append(f"99 % of its runs take up to {found_ms:.3f} ms, {asked:g} are allowed")
    return dict(found, broken=broken)


def loaded(job: Dict[str, Any]) -> Tuple[Bundle, Run]:
    """The bundle and the engine of a version."""
    keys = {name: bytes.fromhex(key) for name, key in job["keys"].items()}
    bundle = container.opened(job["folder"], keys)
    engine = importlib.import_module(f"{__package__}.{job['module']}")
    return bundle, engine.load(build.job_of(bundle, os.path.join(job["folder"], job["file"])))


def _drifted(bundle: Bundle, answers: Any, bounds: Dict[str, Any]) -> Iterator[str]:
    reference, judged = (contents.array(bundle, f"golden-{name}.npy") for name in ("reference", "judged"))
    if answers.shape != judged.shape:
        yield f"it answers {answers.shape} to the goldens, not {judged.shape}"
        return
    if not np.isfinite(answers).all():
        yield f"{int((~np.isfinite(answers)).any(1).sum())} goldens are answered with NaN or infinity"
        return
    for name, other, bound in (("PyTorch", reference, "sqnr_db"), ("the file that was judged", judged, "judged_db")):
        found = float(np.median(ratios(other, answers)))
        if not found >= bounds[bound]:
            yield f"the goldens keep {found:.1f} dB of {name}, {bounds[bound]:g} are asked for"
    agreement = float((answers.argmax(1) == reference.argmax(1)).mean())
    if not agreement >= bounds["agreement"]:
        asked = f"{100 * bounds['agreement']:.2f} are asked for"
        yield f"{100 * agreement:.2f} % of the goldens have PyTorch's answer, {asked}"


def _contradictions(run: Run, images: Any, least: int, least_db: float) -> Iterator[str]:
    """Each way in which the engine contradicts itself: one image has one answer, wherever it stands in a batch."""
    whole, last = run(images), len(images) - 1
    if not np.array_equal(whole, run(images)):
        yield "the same batch twice gives two answers"
    order = np.roll(np.arange(len(images)), 1)
    pairs = [("permuted rows", whole[order], run(images[order]))]
    sizes = sorted({size for size in (least, 3, len(images) // 2) if least <= size < len(images)})
    pairs += [(f"a batch of {size}", whole[-size:], run(images[-size:])) for size in sizes]
    same = run(np.repeat(images[last:], len(images), axis=0))
    pairs.append(("one image in every row", np.repeat(whole[last:], len(images), axis=0), same))
    for name, expected, answered in pairs:
        agree = ratios(expected, answered)
        if not (np.median(agree) >= least_db and agree.min() >= least_db - WORST):
            yield f"{name}: answers agree to {np.median(agree):.1f} dB, at worst {agree.min():.1f}, not {least_db:g}"


def in_batches(run: Run, images: Any, most: int) -> Any:
    """The answers to all images, at most ``most`` at a time."""
    return np.concatenate([run(images[start : start + most]) for start in range(0, len(images), most)])


def ratios(reference: Any, answers: Any) -> Any:
    """The SQNR of each image in dB, 10 log10(sum reference^2 / sum (answers - reference)^2), at most 300."""
    wide = reference.astype(np.float64)
    noise = ((answers.astype(np.float64) - wide) ** 2).sum(1)
    signal = (wide**2).sum(1)
    return np.minimum(300.0, 10 * np.log10(np.maximum(signal, 1e-300) / np.maximum(noise, 1e-300)))


def timed(run: Run, images: Any, runs: int = RUNS, longest: float = LONGEST) -> List[float]:
    """Seconds of each of at most ``runs`` runs, after a warm-up, within ``longest`` seconds."""
    for _ in range(WARM_UP):
        run(images)
    found: List[float] = []
    took = 0.0
    while len(found) < runs and took < longest:
        started = time.perf_counter()
        run(images)
        found.append(time.perf_counter() - started)
        took += found[-1]
    return found


def percentiles(seconds: List[float]) -> Dict[str, float]:
    """Milliseconds that half, 90 and 99 of a hundred runs take at most, and how many runs there were."""
    ranked = np.sort(np.asarray(seconds)) * 1e3
    places = {f"p{share}_ms": float(ranked[min(len(ranked) - 1, len(ranked) * share // 100)]) for share in (50, 90, 99)}
    return dict(places, runs=len(seconds))


def conformance(bundle: Bundle, loader: str) -> Dict[str, Any]:
    """How far ``module:function`` of the user's own is from the pixels of the contract; raises Failed where too far."""
    module, _, name = loader.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is not what this agent answers
            load = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Refused(f"--loader {loader}: there is no such function ({error}); run from its folder") from error
    record = contents.parsed(bundle, "conformance.json")
    bound = record["conforms"]
    far: Dict[str, Any] = {}
    for vector in sorted(name for name in bundle.places if name.startswith("vector-") and name.endswith(".png")):
        expected = contents.array(bundle, vector[: -len(".png")] + ".npy")
        with contextlib.redirect_stdout(sys.stderr):
            pixels = np.squeeze(np.asarray(load(os.path.join(bundle.origin, vector)), np.float64))
        if pixels.shape != np.squeeze(expected).shape:
            raise Failed(f"--loader {loader}: {vector} becomes {pixels.shape}, not {expected.shape}")
        apart = np.abs(pixels - np.squeeze(expected))
        far[vector] = {"largest": float(apart.max()), "mean": float(apart.mean())}
        if not (apart.max() <= bound["largest"] and apart.mean() <= bound["mean"]):
            raise Failed(
                f"--loader {loader}: {vector} is {apart.max():.2f} levels away, {apart.mean():.3f} in the mean; "
                f"{bound['largest']:g} and {bound['mean']:g} are allowed; python -m pipeline conform names the fault"
            )
    return far
