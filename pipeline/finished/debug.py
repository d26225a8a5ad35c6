"""Two files, some images: where they part, whose fault it is, and the smallest case that shows it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.portable.sqnr import capped_sqnr_db
from pipeline.errors import BadRequest
from pipeline.parity import answers, case
from pipeline.parity.depth import walk
from pipeline.parity.fault import excess_noise_on, faults, median, small_batches

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.subgraphs import Subgraphs
    from pipeline.data.images import Images
    from pipeline.parity.depth import Pair
    from pipeline.parity.fault import Fault


def diagnose(good: Path, bad: Path, images: Images, place: Path | None = None) -> dict[str, Any]:
    """What is at fault in ``bad`` next to ``good``, on ``images``; the case goes to ``place``, by default beside it.

    Raises BadRequest where the two cannot be compared piece by piece.
    """
    from exporters import reference
    from exporters.subgraphs import Subgraphs

    _refuse(good, bad)
    # What glibc would keep of freed activations nearly doubles the memory of a ResNeXt-50.
    reference.give_back_memory()
    refusals: tuple[type[Exception], ...] = (ValueError, *reference.refusals())
    try:
        files = Subgraphs(good), Subgraphs(bad)
        pairs, logits = walk(*files, small_batches(images))
        found = faults(pairs, excess_noise_on(good, bad, images))
    except refusals as error:
        raise BadRequest(f"{good.name} and {bad.name} cannot be compared: {error}") from error

    diagnosis = {
        "good": good.name,
        "bad": bad.name,
        "images": len(images),
        "verdict": "fail" if found else "pass",
        "first": asdict(found[0]) if found else None,
        "faults": [asdict(fault) for fault in found],
        "steps": [_step(pair) for pair in pairs],
        "observing_db": _whole_next_to_pieces(bad, images, pairs, logits),
        "case": None,
    }
    if found:
        first = found[0]
        if place is None:
            place = bad.with_name(f"case-{first.module.replace('/', '_').strip('_')}")
        diagnosis["case"] = _write_case(place, first, pairs, files, images)
    return diagnosis


def _refuse(good: Path, bad: Path) -> None:
    """Raise BadRequest where the two are no ONNX files, or one and the same."""
    for path in (good, bad):
        if path.suffix != ".onnx" or not path.is_file():
            raise BadRequest(f"{path} is gone or no ONNX file, and only those can be compared piece by piece")
    if good.samefile(bad):
        raise BadRequest(f"{good} and {bad} are the same file; give two that could differ")


def _write_case(
    place: Path, fault: Fault, pairs: list[Pair], files: tuple[Subgraphs, Subgraphs], images: Images
) -> dict[str, Any]:
    """The case of ``fault`` in the folder ``place``, on the one image that shows it best."""
    pair = next(pair for pair in pairs if pair.step.tensor == fault.tensor)
    decibels = pair.step.beyond if fault.kind == "beyond" else pair.step.own
    worst_image = images[int(np.argmin(decibels))]
    return {"directory": str(place), **case.write(place, fault, pair, files, worst_image[None])}


def _whole_next_to_pieces(
    bad: Path, images: Images, pairs: list[Pair], logits: list[NDArray[np.float32]]
) -> float | None:
    """The SQNR in dB between ``bad`` as a whole and in pieces; None where they are identical, or it cannot run."""
    if any(pair.step.broken for pair in pairs):
        return None
    whole = answers.of_file(bad)
    ratios_db: list[float] = []
    for batch, logits_in_pieces in zip(small_batches(images), logits, strict=True):
        ratios_db += capped_sqnr_db(whole.run(batch), logits_in_pieces)
    return median(ratios_db)


def _step(pair: Pair) -> dict[str, Any]:
    """One module in both files: its noise by itself, beyond rounding, and all so far, in dB."""
    step = pair.step
    return {
        "module": step.module,
        "operator": step.operator,
        "tensor": step.tensor,
        "kind": pair.kind,
        "own_db": median(step.own),
        "beyond_rounding_db": median(step.beyond),
        "accumulated_db": median(step.accumulated),
    }
