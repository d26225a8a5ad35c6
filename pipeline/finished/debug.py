"""Two files, some images: where they part, whose fault it is, and the smallest case that shows it."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.portable.sqnr import capped_sqnr_db
from pipeline.errors import BadRequest
from pipeline.parity import answers, case
from pipeline.parity.depth import TELLING, walk
from pipeline.parity.fault import excess_noise_on, faults, median, refuted, small_batches, worst_tenth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from calibration.excess_noise import ExcessNoise
    from exporters.certify import Certificate
    from exporters.subgraphs import Subgraphs
    from pipeline.data.arrays import Pixels
    from pipeline.parity.depth import Pair
    from pipeline.parity.fault import Fault

    Files = tuple[Subgraphs, Subgraphs]

RESCALED = "channels are rescaled by powers of two: no tensor is compared with another, what certify finds is all"


def diagnose(good: Path, bad: Path, images: Pixels, place: Path | None = None) -> dict[str, Any]:
    """What is at fault in ``bad`` next to ``good``, on ``images``; the case goes to ``place``, by default beside it.

    Raises BadRequest where the two cannot be compared piece by piece.
    """
    from exporters import reference

    _refuse(good, bad)
    # What glibc would keep of freed activations nearly doubles the memory of a ResNeXt-50.
    reference.give_back_memory()
    refusals: tuple[type[Exception], ...] = (ValueError, *reference.refusals())
    try:
        files = _opened(good, bad, images)
        batch = _fixed_batch(files, images)
        pairs, answered = walk(*files, small_batches(images, batch))
        with _written(files, (good, bad)) as paths:
            excess_noises = _excess_noises(paths, images, batch, pairs)
            certificate, note = _certified(files, paths)
        observing_db = _whole_next_to_pieces(bad, files[1], small_batches(images, batch), pairs, answered)
    except refusals as error:
        said = str(error).strip().splitlines()[0]
        raise BadRequest(f"{good.name} and {bad.name} cannot be compared: {said}") from error

    found = faults(pairs, excess_noises)
    rescaled = certificate is not None and _rescaled(certificate, found)
    if rescaled:
        found = []
        note = RESCALED
    if certificate is not None and not found:
        found = refuted(certificate, pairs)
    diagnosis: dict[str, Any] = {
        "good": good.name,
        "bad": bad.name,
        "images": len(images),
        "verdict": "fail" if found else "pass",
        "first": asdict(found[0]) if found else None,
        "faults": [asdict(fault) for fault in found],
        "proven": None if certificate is None else certificate.proven,
        "note": note,
        "steps": [] if rescaled else [_step(pair) for pair in pairs],
        "observing_db": observing_db,
        "case": None,
    }
    if found:
        directory = place or bad.with_name(f"case-{_file_name(found[0].module)}")
        diagnosis["case"] = _write_case(directory, found[0], pairs, files, small_batches(images, batch))
    return diagnosis


def _refuse(good: Path, bad: Path) -> None:
    """Raise BadRequest where the two are no ONNX files, or one and the same."""
    for path in (good, bad):
        if path.suffix != ".onnx" or not path.is_file():
            raise BadRequest(f"{path} is gone or no ONNX file, and only those can be compared piece by piece")
    if good.samefile(bad):
        raise BadRequest(f"{good} and {bad} are the same file; give two that could differ")


def _certified(files: Files, paths: tuple[Path, Path]) -> tuple[Certificate | None, str | None]:
    """The certificate of the later file, or why there is none."""
    from pipeline.parity.proof import certify

    if any(file.compiled for file in files):
        return None, None
    try:
        return certify(*paths), None
    except ValueError as error:
        return None, f"certify has no word on it: {error}"


def _rescaled(certificate: Certificate, found: Sequence[Fault]) -> bool:
    """Whether it is for rescaled channels that tensors differ, and for no fault that was ``found``.

    What writes a rescaled channel and what reads it differ both, and certify refutes neither. Where one module differs,
    or none but those that it refutes, it took a fault for a factor.
    """
    if certificate.rescaled == 0:
        return False
    wrong = {refutation.module for refutation in certificate.refuted}
    differing = {fault.module for fault in found}
    return certificate.proven or (len(differing) > 1 and not differing <= wrong)


def _opened(good: Path, bad: Path, images: Pixels) -> Files:
    """Both files, the tensors of the later one under the names that they have in the earlier one."""
    from exporters.pairing import aligned
    from exporters.subgraphs import Subgraphs

    trusted = Subgraphs(good)
    accused = Subgraphs(bad)
    accused.take_record(trusted)
    telling = next(images.batches(trusted.batch or accused.batch or TELLING))
    return trusted, aligned(trusted, accused, telling)


def _fixed_batch(files: Files, images: Pixels) -> int | None:
    """How many images both files take at a time; None where that is any."""
    sizes = {file.batch for file in files if file.batch is not None}
    if len(sizes) > 1:
        raise ValueError(f"one takes {files[0].batch} images at a time and the other {files[1].batch}")
    batch = next(iter(sizes), None)
    if batch is not None and len(images) < batch:
        raise ValueError(f"they take {batch} images at a time, and there are {len(images)}")
    return batch


@contextmanager
def _written(files: Files, paths: tuple[Path, Path]) -> Iterator[tuple[Path, Path]]:
    """The files as they are compared: where that is not what stands in the file given, a copy of them for now."""
    with tempfile.TemporaryDirectory() as folder:
        written = []
        for number, (file, path) in enumerate(zip(files, paths, strict=True)):
            copy = Path(folder, f"{number}-{path.name}")
            if file.changed:
                copy.write_bytes(file.proto.SerializeToString())
            written.append(copy if file.changed else path)
        yield written[0], written[1]


def _excess_noises(
    paths: tuple[Path, Path], images: Pixels, batch: int | None, pairs: Sequence[Pair]
) -> list[ExcessNoise]:
    """The excess noise of the Q/DQ pairs; none where a piece is broken and they cannot be read for that."""
    try:
        return excess_noise_on(*paths, images, batch)
    except ValueError:
        if any(pair.step.broken for pair in pairs):
            return []
        raise


def _file_name(module: str) -> str:
    """``module`` as the name of a folder."""
    kept = [letter if letter.isalnum() or letter in "._-" else "_" for letter in module]
    return "".join(kept).strip("_.") or "graph"


def _write_case(
    place: Path, fault: Fault, pairs: Sequence[Pair], files: Files, batches: Iterator[NDArray[np.float32]]
) -> dict[str, Any]:
    """The case of ``fault`` in the folder ``place``; without a directory it says why there is none."""
    pair = next((pair for pair in pairs if pair.step.tensor == fault.tensor), None)
    if pair is None:
        return {"directory": None, "missing": "no piece of both files ends at what is refuted"}
    step = pair.step
    ratios_db = step.beyond if fault.kind == "beyond" else step.own
    worst = min(range(len(ratios_db)), key=ratios_db.__getitem__)
    first = 0
    for batch in batches:
        if worst < first + len(batch):
            # The image alone where that shows it, else with those that it was computed with.
            alone = batch[worst - first][None]
            tries = [batch] if files[0].batch or files[1].batch else [alone, batch]
            about = case.write(place, fault, pair, files, tries)
            if about is None:
                return {"directory": None, "missing": "by itself its piece keeps every bound on these images"}
            return {"directory": str(place), "missing": None, **about}
        first += len(batch)
    raise AssertionError("the worst image is one of the images")


def _whole_next_to_pieces(
    path: Path,
    bad: Subgraphs,
    batches: Iterator[NDArray[np.float32]],
    pairs: Sequence[Pair],
    answered: Sequence[NDArray[np.float32]],
) -> float | None:
    """The SQNR in dB between ``bad`` as a whole and in pieces; None where they are identical, or it cannot run."""
    if any(pair.step.broken for pair in pairs):
        return None
    last = pairs[-1].step.tensor

    def in_one(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return bad.values([last], images)[last]

    # What ONNX Runtime compiled runs as its backend runs it.
    whole: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    whole = answers.of_file(path).run if bad.compiled else in_one
    ratios_db: list[float] = []
    for batch, in_pieces in zip(batches, answered, strict=True):
        ratios_db += capped_sqnr_db(whole(batch), in_pieces)
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
        "own_worst_tenth_db": worst_tenth(step.own),
        "beyond_rounding_db": median(step.beyond),
        "beyond_rounding_worst_tenth_db": worst_tenth(step.beyond) if step.beyond else None,
        "accumulated_db": median(step.accumulated),
    }
