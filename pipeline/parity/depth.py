"""Where along its depth does one ONNX file leave another? Both in pieces, batch by batch, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from exporters.subgraphs import Run, Subgraph, Subgraphs

    Tensors = dict[str, NDArray[np.float32]]

# The largest SQNR that is told apart from identical answers, in dB.
SAME = 300.0


@dataclass
class Step:
    """One tensor that both files compute, and how far they are apart there: SQNR in dB for each image.

    ``accumulated``: each file on its own road from the images. ``own``: the later file's piece on the earlier file's
    inputs, so only what this piece adds. ``beyond``: that, before a pair behind it, against the earlier file's piece
    with the later file's rounded operands, so what rounding does not explain; empty where the pieces have no such
    operands. ``broken`` is why the later file's piece has no answer that could be compared, on any image.
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
        """What the later piece answers, what it answers before a pair behind it, and its operands after rounding."""
        found = dict(zip(self.outputs, self.run_bad(inputs), strict=True))
        operands = {name: found[behind] for name, behind in self.bad.dequantised.items()}
        return found[self.bad.output], found[self.bad.worker.output[0]], operands

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
    pairs = [_pair(good, bad, *pieces) for pieces in zip(good.at(names), bad.at(names), strict=True)]
    last = {name: index for index, pair in enumerate(pairs) for name in (*pair.good.inputs, *pair.bad.inputs)}
    logits = []
    for images in batches:
        trusted, accused = ({good.sources[0]: images} for _ in range(2))
        for index, pair in enumerate(pairs):
            _advance(pair, trusted, accused)
            for name in [name for name in trusted if last.get(name, -1) <= index]:
                if index + 1 < len(pairs):
                    del trusted[name], accused[name]
        logits.append(accused[pairs[-1].step.tensor])
    return pairs, logits


def _advance(pair: Pair, trusted: Tensors, accused: Tensors) -> None:
    """Both files one piece further, and the later file's piece on the earlier one's inputs."""
    late = [name for name in pair.bad.inputs if name not in accused]
    if late:
        raise ValueError(f"{pair.step.module} reads {late[0]}, which the other file computes only later")
    expected = pair.run_good(trusted)[0]
    answered = pair.run_bad(accused)[0]
    own, unrounded, operands = pair.accused(trusted)
    step, name = pair.step, pair.step.tensor
    if not np.isfinite(expected).all():
        raise ValueError(f"{step.module} answers NaN or infinity in the earlier file already")
    if own.shape != expected.shape:
        step.broken = f"it answers {own.shape[1:]}, not {expected.shape[1:]}"
    elif not np.isfinite(own).all():
        step.broken = "it answers NaN or infinity"
    step.accumulated += ratios(expected, answered)
    step.own += ratios(expected, own)
    if pair.run_rounded is not None:
        step.beyond += ratios(pair.run_rounded({**trusted, **operands})[0], unrounded)
    # Behind an answer of another shape nothing else could run; its module is named for that.
    trusted[name], accused[name] = expected, answered if answered.shape == expected.shape else expected


def ratios(expected: NDArray[np.float32], answered: NDArray[np.float32]) -> list[float]:
    """SQNR of each image in dB, from -SAME where an answer is no number to SAME where they are identical."""
    if expected.shape != answered.shape:
        return [-SAME] * len(expected)
    wide = expected.astype(np.float64).reshape(len(expected), -1)
    signal = (wide**2).sum(1)
    noise = ((answered.astype(np.float64).reshape(wide.shape) - wide) ** 2).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(noise == 0, SAME, 10 * np.log10(signal / noise))
    return [float(value) for value in np.clip(np.nan_to_num(found, nan=-SAME), -SAME, SAME)]


def _pair(good: Subgraphs, bad: Subgraphs, one: Subgraph, other: Subgraph) -> Pair:
    step = Step(one.output, other.module, other.worker.op_type)
    # What its last node that computes says as well: onnxruntime's quantiser puts a pair behind the logits.
    outputs = tuple(dict.fromkeys((other.output, other.worker.output[0], *other.dequantised.values())))
    return Pair(
        one,
        other,
        step,
        good.runner(good.model(one), one.inputs),
        outputs,
        bad.runner(bad.model(other, outputs[1:]), other.inputs),
        _rounded(good, bad, one, other),
    )


def _rounded(good: Subgraphs, bad: Subgraphs, one: Subgraph, other: Subgraph) -> Run | None:
    """The earlier file's piece with the weights that the later one has after rounding; None where nothing is."""
    if len(one.nodes) != 1 or one.worker.op_type != other.worker.op_type or len(other.nodes) == 1:
        return None
    weights = {}
    # The weight alone: a bias in INT32, as onnxruntime's quantiser writes it, is as near as float32.
    for name, changed in zip(one.worker.input[1:2], other.worker.input[1:2], strict=False):
        value = bad.constant_array(other, changed) if name in good.weights and changed not in bad.weights else None
        if value is not None:
            weights[name] = value
    return good.runner(good.model(one, weights=weights), one.inputs)
