"""Finds where along its depth one ONNX file leaves another.

Both are run in pieces, batch by batch, in bounded memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.parity.sqnr import sqnr_db

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from exporters.subgraphs import Run, Subgraph, Subgraphs

    Tensors = dict[str, NDArray[np.float32]]

# The largest SQNR that is told apart from identical answers, in dB. Its negative stands for answers that are none.
IDENTICAL_DB = 300.0


@dataclass
class Step:
    """One tensor that both files compute, and how far they are apart there.

    Each figure is an SQNR in dB for each image. ``accumulated`` compares the files each on its own road from the
    images. ``own`` runs the later file's piece on the earlier file's inputs, so it shows only what this piece adds.
    ``beyond`` compares that, before a pair behind it, with the earlier file's piece on the later file's rounded
    operands, so it shows what rounding does not explain; it is empty where the pieces have no such operands.
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
class Pair:
    """The two pieces that end at one tensor, ready to run."""

    good: Subgraph
    bad: Subgraph
    step: Step
    run_good: Run
    outputs: tuple[str, ...]
    run_bad: Run
    run_rounded: Run | None

    def accused(self, inputs: Tensors) -> tuple[NDArray[np.float32], NDArray[np.float32], Tensors]:
        """What the later piece answers to ``inputs``.

        Returned are its answer, its answer before a pair behind it, and its operands after rounding, by the name that
        they have before.
        """
        computed = dict(zip(self.outputs, self.run_bad(inputs), strict=True))
        operands = {name: computed[rounded_name] for name, rounded_name in self.bad.dequantised.items()}
        return computed[self.bad.output], computed[self.bad.worker.output[0]], operands

    @property
    def kind(self) -> str:
        """The narrowest kind of number that passes the later piece: int8, float16 or float32."""
        return self.bad.narrowest


def walk(
    good: Subgraphs, bad: Subgraphs, batches: Iterable[NDArray[np.float32]]
) -> tuple[list[Pair], list[NDArray[np.float32]]]:
    """A pair for every tensor that both files compute, in order, and the logits of ``bad`` run in pieces.

    ``batches`` are images (n, C, H, W) float32 0..255. At any moment only the tensors that a later piece still reads
    are in memory. Raises ValueError where the files cannot be compared.
    """
    from exporters.subgraphs import cuts

    names = cuts(good, bad)
    pairs = []
    for good_piece, bad_piece in zip(good.at(names), bad.at(names), strict=True):
        pairs.append(_pair(good, bad, good_piece, bad_piece))

    last_reader: dict[str, int] = {}
    for index, pair in enumerate(pairs):
        for name in (*pair.good.inputs, *pair.bad.inputs):
            last_reader[name] = index

    logits = []
    for images in batches:
        # Tensor by tensor what each file computes on its own road from the images.
        trusted = {good.sources[0]: images}
        accused = {good.sources[0]: images}
        for index, pair in enumerate(pairs):
            _advance(pair, trusted, accused)
            # Behind the last pair nothing reads the logits, and still they are wanted.
            if index + 1 < len(pairs):
                _forget_read(trusted, accused, last_reader, index)
        logits.append(accused[pairs[-1].step.tensor])
    return pairs, logits


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
    not_yet_computed = [name for name in pair.bad.inputs if name not in accused]
    if not_yet_computed:
        raise ValueError(f"{step.module} reads {not_yet_computed[0]}, which the other file computes only later")

    expected = pair.run_good(trusted)[0]
    answered = pair.run_bad(accused)[0]
    own, unrounded, operands = pair.accused(trusted)
    if not np.isfinite(expected).all():
        raise ValueError(f"{step.module} answers NaN or infinity in the earlier file already")
    if own.shape != expected.shape:
        step.broken = f"it answers {own.shape[1:]}, not {expected.shape[1:]}"
    elif not np.isfinite(own).all():
        step.broken = "it answers NaN or infinity"

    step.accumulated += capped_sqnr_db(expected, answered)
    step.own += capped_sqnr_db(expected, own)
    if pair.run_rounded is not None:
        expected_of_rounded = pair.run_rounded({**trusted, **operands})[0]
        step.beyond += capped_sqnr_db(expected_of_rounded, unrounded)

    trusted[step.tensor] = expected
    # Behind an answer of another shape nothing else could run; its module is named for that.
    accused[step.tensor] = answered if answered.shape == expected.shape else expected


def capped_sqnr_db(expected: NDArray[np.float32], answered: NDArray[np.float32]) -> list[float]:
    """SQNR of each image in dB, between -IDENTICAL_DB and IDENTICAL_DB.

    The lowest stands for answers of another shape, or with a number that is none. So every figure is finite.
    """
    if expected.shape != answered.shape:
        return [-IDENTICAL_DB] * len(expected)
    ratios_db = np.nan_to_num(sqnr_db(expected, answered), nan=-IDENTICAL_DB)
    return [float(ratio_db) for ratio_db in np.clip(ratios_db, -IDENTICAL_DB, IDENTICAL_DB)]


def _pair(good: Subgraphs, bad: Subgraphs, good_piece: Subgraph, bad_piece: Subgraph) -> Pair:
    """Load the two pieces that end at one tensor."""
    # The answer of its last node that computes as well: onnxruntime's quantiser puts a pair behind the logits.
    wanted = (bad_piece.output, bad_piece.worker.output[0], *bad_piece.dequantised.values())
    outputs = tuple(dict.fromkeys(wanted))
    return Pair(
        good=good_piece,
        bad=bad_piece,
        step=Step(good_piece.output, bad_piece.module, bad_piece.worker.op_type),
        run_good=good.runner(good.model(good_piece), good_piece.inputs),
        outputs=outputs,
        run_bad=bad.runner(bad.model(bad_piece, outputs[1:]), bad_piece.inputs),
        run_rounded=_run_rounded(good, bad, good_piece, bad_piece),
    )


def _run_rounded(good: Subgraphs, bad: Subgraphs, good_piece: Subgraph, bad_piece: Subgraph) -> Run | None:
    """The earlier file's piece with the weights that the later one has after rounding; None where it rounds nothing."""
    same_operator = good_piece.worker.op_type == bad_piece.worker.op_type
    is_quantised = len(bad_piece.nodes) > 1
    if len(good_piece.nodes) != 1 or not same_operator or not is_quantised:
        return None

    weights = {}
    # The weight alone: a bias in INT32, as onnxruntime's quantiser writes it, is as near as float32.
    for good_name, bad_name in zip(good_piece.worker.input[1:2], bad_piece.worker.input[1:2], strict=False):
        # A weight that is stored as it is was not rounded.
        if good_name not in good.weights or bad_name in bad.weights:
            continue
        rounded_weight = bad.constant_array(bad_piece, bad_name)
        if rounded_weight is not None:
            weights[good_name] = rounded_weight
    return good.runner(good.model(good_piece, weights=weights), good_piece.inputs)
