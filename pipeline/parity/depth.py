"""Finds where along its depth one ONNX file leaves another.

Both are run in pieces, batch by batch, in bounded memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from exporters.portable.sqnr import CAP_DB, capped_sqnr_db

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx
    from numpy.typing import NDArray

    from exporters.subgraphs import Run, Subgraph, Subgraphs

    Tensors = dict[str, NDArray[np.float32]]

# Of the first images, so many tell which tensors have a row for each.
TELLING = 2
# What holds weights whose shapes are those of the network.
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"}
# So much of what a runtime says of a piece that it cannot run is shown.
MOST_SAID = 200


@dataclass
class Step:
    """One tensor that both files compute, and how far they are apart there.

    Each figure is an SQNR in dB for each image. ``accumulated`` compares the files each on its own road from the
    images. ``own`` runs the later file's piece on the earlier file's inputs, so it shows only what this piece adds.
    ``beyond`` compares the same two pieces with the rounding of both taken out, so it shows what rounding does not
    explain; it is empty where the later piece rounds nothing, or where that cannot be told from the rest.
    ``broken`` says why the later file's piece has no answer that could be compared, on any image.
    """

    tensor: str
    module: str
    operator: str
    accumulated: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)
    broken: str | None = None


@dataclass
class Unrounded:
    """The two pieces without their rounding, as models and ready to run."""

    models: tuple[onnx.ModelProto, onnx.ModelProto]
    run_good: Run
    run_bad: Run


@dataclass
class Pair:
    """The two pieces that end at one tensor, ready to run; ``run_bad`` is None where no runtime takes the later one."""

    good: Subgraph
    bad: Subgraph
    step: Step
    run_good: Run
    run_bad: Run | None
    unrounded: Unrounded | None

    @property
    def kind(self) -> str:
        """The narrowest kind of number that passes the later piece: int8, float16 or float32."""
        return self.bad.narrowest

    @property
    def modules(self) -> list[str]:
        """The PyTorch modules of both pieces, those of the earlier file first."""
        return list(dict.fromkeys((*self.good.modules, *self.bad.modules)))


def walk(
    good: Subgraphs, bad: Subgraphs, batches: Iterable[NDArray[np.float32]]
) -> tuple[list[Pair], list[NDArray[np.float32]]]:
    """A pair for every tensor that both files compute, in order, and the answers of ``bad`` run in pieces.

    ``batches`` are images (n, C, H, W) as the earlier file takes them. At any moment only the tensors that a later
    piece still reads are in memory. Raises ValueError where the files cannot be compared.
    """
    from exporters.subgraphs import cuts

    waiting = iter(batches)
    first = next(waiting)
    telling = first if good.batch else first[:TELLING]
    names = cuts(good, bad, telling)
    pairs = []
    for good_piece, bad_piece in zip(good.at(names), bad.at(names), strict=True):
        pairs.append(_pair(good, bad, good_piece, bad_piece))

    last_reader: dict[str, int] = {}
    for index, pair in enumerate(pairs):
        for name in (*pair.good.inputs, *pair.bad.inputs):
            last_reader[name] = index

    answers = []
    for images in chain([first], waiting):
        # Tensor by tensor what each file computes on its own road from the images.
        trusted = {good.sources[0]: images}
        accused = {good.sources[0]: images}
        for index, pair in enumerate(pairs):
            _advance(pair, trusted, accused)
            # Behind the last pair nothing reads the answers, and still they are wanted.
            if index + 1 < len(pairs):
                _forget_read(trusted, accused, last_reader, index)
        answers.append(accused[pairs[-1].step.tensor])
    return pairs, answers


def _forget_read(trusted: Tensors, accused: Tensors, last_reader: dict[str, int], index: int) -> None:
    """Drop the tensors that no pair behind the one at ``index`` reads."""
    for name in list(trusted):
        if last_reader.get(name, -1) <= index:
            del trusted[name]
            del accused[name]


def _advance(pair: Pair, trusted: Tensors, accused: Tensors) -> None:
    """Run both files one piece further, and the later file's piece on the earlier one's inputs as well.

    ``trusted`` and ``accused`` hold the tensors of the earlier and the later file by name, and get one more each.
    """
    step = pair.step
    expected = pair.run_good(trusted)[0]
    if not np.isfinite(expected).all():
        raise ValueError(f"{step.module} answers NaN or infinity in the earlier file already")

    own, why_none = _answered(pair, trusted)
    answered, _ = _answered(pair, accused)
    step.broken = step.broken or why_none or _unlike(own, expected)
    step.accumulated += _sqnr_db(expected, answered)
    step.own += _sqnr_db(expected, own)
    if not step.broken:
        step.beyond += _beyond_db(pair, trusted)

    trusted[step.tensor] = expected
    # Behind what has no answer, or one of another shape, nothing else could run; its module is named for that.
    if answered is None or answered.shape != expected.shape:
        answered = expected
    accused[step.tensor] = answered


def _answered(pair: Pair, tensors: Tensors) -> tuple[NDArray[np.float32] | None, str | None]:
    """What the later piece answers to ``tensors``, or why it does not."""
    from exporters import reference

    if pair.run_bad is None:
        return None, pair.step.broken
    not_yet_computed = [name for name in pair.bad.inputs if name not in tensors]
    if not_yet_computed:
        return None, f"it reads {not_yet_computed[0]}, which the earlier file computes only later"
    try:
        return pair.run_bad(tensors)[0], None
    except reference.refusals() as error:
        return None, _refused(error)


def _refused(error: Exception) -> str:
    """What the runtime says of a piece that it cannot run."""
    said = str(error).strip().splitlines()[0].rpartition(" : ")[2]
    return f"the runtime cannot run it: {said[:MOST_SAID]}"


def _unlike(own: NDArray[np.float32] | None, expected: NDArray[np.float32]) -> str | None:
    """Why ``own`` cannot be compared with what is ``expected``; None where it can."""
    if own is None:
        return None
    if own.shape != expected.shape:
        return f"it answers {own.shape[1:]}, not {expected.shape[1:]}"
    return None if np.isfinite(own).all() else "it answers NaN or infinity"


def _sqnr_db(expected: NDArray[np.float32], answered: NDArray[np.float32] | None) -> list[float]:
    """The SQNR of each image; the least there is where there is no answer."""
    return [-CAP_DB] * len(expected) if answered is None else capped_sqnr_db(expected, answered)


def _beyond_db(pair: Pair, trusted: Tensors) -> list[float]:
    """The SQNR of each image with the rounding taken out; nothing where that cannot be told."""
    from exporters import reference

    if pair.unrounded is None:
        return []
    try:
        exact = pair.unrounded.run_good(trusted)[0]
        return capped_sqnr_db(exact, pair.unrounded.run_bad(trusted)[0])
    except reference.refusals():
        pair.unrounded = None
        return []


def _pair(good: Subgraphs, bad: Subgraphs, good_piece: Subgraph, bad_piece: Subgraph) -> Pair:
    """Load the two pieces that end at one tensor."""
    from exporters import reference

    step = Step(good_piece.output, _module(good_piece, bad_piece), bad_piece.worker.op_type)
    run_good = good.runner(good.model(good_piece), good_piece.inputs)
    run_bad = None
    step.broken = _weights_of_other_shapes((good, bad), (good_piece.worker, bad_piece.worker))
    try:
        run_bad = bad.runner(bad.model(bad_piece), bad_piece.inputs)
    except reference.refusals() as error:
        step.broken = step.broken or _refused(error)
    return Pair(good_piece, bad_piece, step, run_good, run_bad, _unrounded((good, bad), (good_piece, bad_piece)))


def _module(good_piece: Subgraph, bad_piece: Subgraph) -> str:
    """The module that both pieces end in; where the later one ends in a node of its own, that of the earlier one."""
    last_of_bad = next(iter(bad_piece.modules), None)
    if last_of_bad in good_piece.modules:
        return str(last_of_bad)
    last_of_good = next(iter(good_piece.modules), None)
    return last_of_good or last_of_bad or good_piece.worker.name or good_piece.output


def _weights_of_other_shapes(
    files: tuple[Subgraphs, Subgraphs], workers: tuple[onnx.NodeProto, onnx.NodeProto]
) -> str | None:
    """That the last nodes of two pieces, of one operator, hold weights of different shapes; None where not."""
    from exporters.subgraphs import stored_shape

    good, bad = files
    old, new = workers
    if old.op_type != new.op_type or old.op_type not in WEIGHTED:
        return None
    for old_name, new_name in zip(old.input[1:], new.input[1:], strict=False):
        was = stored_shape(good, old_name)
        now = stored_shape(bad, new_name)
        if was is not None and now is not None and _lengths(was) != _lengths(now):
            return f"it has a weight of shape {now}, not {was}"
    return None


def _lengths(shape: Sequence[int]) -> list[int]:
    """The axes of a weight, turned and stretched or not."""
    return sorted(length for length in shape if length > 1)


def _unrounded(files: tuple[Subgraphs, Subgraphs], pieces: tuple[Subgraph, Subgraph]) -> Unrounded | None:
    """The pieces without their rounding; None where the later one rounds nothing, or nobody knows what without is."""
    from exporters import reference
    from exporters.unrounded import unrounded

    if any(file.compiled for file in files):
        return None
    refusals: tuple[type[Exception], ...] = (ValueError, *reference.refusals())
    try:
        models = unrounded(files, pieces)
        if models is None:
            return None
        good, bad = files
        return Unrounded(models, good.runner(models[0], pieces[0].inputs), bad.runner(models[1], pieces[1].inputs))
    except refusals:
        return None
