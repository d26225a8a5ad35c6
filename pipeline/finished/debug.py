"""Two files, some images: where they part, whose fault it is, and the smallest case that shows it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import BadRequest
from pipeline.parity import answers, case
from pipeline.parity.depth import capped_sqnr_db, walk
from pipeline.parity.fault import excess_noise_on, faults, median, small_batches

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.parity.depth import Pair


def diagnose(good: Path, bad: Path, images: Images, place: Path | None = None) -> dict[str, Any]:
    """What is at fault in ``bad`` next to ``good``, on ``images``; the case goes to ``place``, by default beside it.

    Raises BadRequest where the two cannot be compared piece by piece.
    """
    from exporters import reference
    from exporters.subgraphs import Subgraphs

    reference.give_back_memory()
    for path in (good, bad):
        if path.suffix != ".onnx" or not path.is_file():
            raise BadRequest(f"{path} is gone or no ONNX file, and only those can be compared piece by piece")
    if good.samefile(bad):
        raise BadRequest(f"{good} and {bad} are the same file; give two that could differ")
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
        "observing_db": _apart(bad, images, pairs, logits),
        "case": None,
    }
    if found:
        pair = next(pair for pair in pairs if pair.step.tensor == found[0].tensor)
        place = place or bad.with_name(f"case-{found[0].module.replace('/', '_').strip('_')}")
        worst = int(np.argmin(pair.step.beyond if found[0].kind == "beyond" else pair.step.own))
        diagnosis["case"] = {"directory": str(place), **case.write(place, found[0], pair, files, images[worst][None])}
    return diagnosis


def _apart(bad: Path, images: Images, pairs: list[Pair], logits: list[NDArray[np.float32]]) -> float | None:
    """The SQNR in dB between ``bad`` as a whole and in pieces; None where they are identical, or it cannot run."""
    if any(pair.step.broken for pair in pairs):
        return None
    whole = answers.of_file(bad)
    ratios_db: list[float] = []
    for batch, logits_in_pieces in zip(small_batches(images), logits, strict=True):
        ratios_db += capped_sqnr_db(whole.run(batch), logits_in_pieces)
    return median(ratios_db)


def _step(pair: Pair) -> dict[str, Any]:
    step = pair.step
    figures = {"own_db": step.own, "beyond_rounding_db": step.beyond, "accumulated_db": step.accumulated}
    return {
        "module": step.module,
        "operator": step.operator,
        "tensor": step.tensor,
        "kind": pair.kind,
        **{name: median(values) for name, values in figures.items()},
    }
