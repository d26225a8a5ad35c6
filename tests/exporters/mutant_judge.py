"""How a mutant is made and judged.

A wrong mutant counts where the answers move by more than float rounding explains, or where it is another file to its
callers: then its certificate must refute it. A harmless one must be proven, and its answers must stay.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from graph_edits import Absent
from stage_pairs import images
from wrong_graphs import IMAGES

from exporters import reference
from exporters.certify import certify

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from stage_pairs import StagePair

# The largest relative difference of logits that float rounding explains. Where a runtime computes float16 in float32, a
# node more or less decides where it rounds, and so which level a quantised activation gets.
ROUNDING = 1e-4
ROUNDING16 = 0.1
# Stages that bring float16.
HALVING = {"fp16", "halve", "halve of fp8"}


@dataclass(frozen=True)
class Kind:
    """One kind of mutant.

    ``change`` changes the file ``where`` it says, or both at once. ``not_in`` are stages that may do just this: there
    it is no fault that a certificate could know of.
    """

    name: str
    change: Any
    verdict: Literal["wrong", "harmless"]
    where: Literal["after", "before", "both"] = "after"
    not_in: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Judged:
    """What came of one mutant: ``moved`` by which relative difference; ``refused`` where no runtime takes it."""

    kind: Kind
    network: str
    stage: str
    proven: bool
    moved: float
    refused: str = ""
    found: str = ""

    @property
    def rounding(self) -> float:
        """How far a harmless one may move."""
        return ROUNDING16 if self.stage in HALVING else ROUNDING

    @property
    def fault(self) -> str:
        """What is wrong with its certificate; empty where it is as it must be."""
        if self.refused:
            return ""
        if self.kind.verdict == "wrong":
            return "proven and moved" if self.proven and self.moved > ROUNDING else ""
        return "" if self.proven else "harmless and refuted"


class Judge:
    """Makes mutants of one honest pair in ``folder``, runs them and certifies them.

    ``told``: the certificate is told which stage it judges; else it guesses.
    """

    def __init__(self, pair: StagePair, folder: Path, *, told: bool = True) -> None:
        self.pair = pair
        self.folder = folder
        self.pixels = images(99, IMAGES)
        self.honest = answers(pair.after, self.pixels)
        self.certify = partial(certify, **({"stage": pair.certified_as} if told else {}))

    def judge(self, kind: Kind, seed: int = 0) -> Judged | None:
        """None where the pair has nothing for this kind, or may differ in it."""
        if self.pair.stage in kind.not_in:
            return None
        generator = np.random.default_rng([seed, *map(zlib.crc32, (kind.name.encode(), self.pair.stage.encode()))])
        before = _copy(self.pair.before)
        after = _copy(self.pair.after)
        try:
            honest = change(kind, before, after, generator)
        except Absent:
            return None
        if kind.verdict == "wrong":
            # A tool infers the shapes anew: those that were there are no part of the fault.
            del after.graph.value_info[:]

        try:
            moved = self._moved(kind, before, after, honest)
        except Refused as reason:
            return Judged(kind, self.pair.network, self.pair.stage, proven=False, moved=0.0, refused=str(reason))
        proven, found = self._certified(before, after)
        return Judged(kind, self.pair.network, self.pair.stage, proven, moved, found=found)

    def _moved(
        self, kind: Kind, before: onnx.ModelProto, after: onnx.ModelProto, honest: onnx.ModelProto | None
    ) -> float:
        """How far the answers are from those of the honest file; infinite where it is another one to its callers."""
        if kind.where == "before":
            return difference(checked_answers(self.pair.before, self.pixels), checked_answers(before, self.pixels))
        found = checked_answers(after, self.pixels)
        if kind.verdict == "wrong" and _face(honest or self.pair.after) != _face(after):
            return np.inf
        if honest is not None:
            return difference(checked_answers(honest, self.pixels), found)
        expected = checked_answers(before, self.pixels) if kind.where == "both" else self.honest
        return difference(expected, found)

    def _certified(self, before: onnx.ModelProto, after: onnx.ModelProto) -> tuple[bool, str]:
        """Whether it is proven, and the first refutation."""
        paths = [self.folder / "before.onnx", self.folder / "after.onnx"]
        for path, model in zip(paths, (before, after), strict=True):
            path.write_bytes(model.SerializeToString())
        try:
            certificate = self.certify(*paths)
        except ValueError as error:
            return False, str(error)
        if certificate.proven:
            return True, ""
        return False, f"{certificate.refuted[0].module}: {certificate.refuted[0].found}"


def change(
    kind: Kind, before: onnx.ModelProto, after: onnx.ModelProto, generator: np.random.Generator
) -> onnx.ModelProto | None:
    """Make the mutant in place; raises Absent where these files have nothing for it.

    Returns the honest file after where that is another one than before.
    """
    if kind.where == "both":
        honest: onnx.ModelProto | None = kind.change(before, after, generator)
        return honest
    kind.change(before if kind.where == "before" else after, generator)
    return None


class Refused(Exception):
    """ONNX or its runtime does not take the model."""


def checked_answers(model: onnx.ModelProto, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The answers of a whole model; raises Refused where it is none."""
    try:
        onnx.checker.check_model(model.SerializeToString(), full_check=True)
        return answers(model, pixels)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, *reference.refusals()) as error:
        raise Refused(f"{type(error).__name__}: {error}".splitlines()[0]) from error


def answers(model: onnx.ModelProto, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """All outputs of the model, one row an image."""
    session = reference.session(model.SerializeToString())
    # By the model: the session does not list an input with a default.
    read = model.graph.input[0]
    is_bytes = read.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    outputs = session.run(None, {read.name: pixels.astype(np.uint8) if is_bytes else pixels})
    return np.concatenate([np.asarray(output, np.float64).reshape(len(pixels), -1) for output in outputs], 1)


def difference(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """The largest relative difference of an image's answers; infinite where they are no numbers or not as many."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return np.inf
    size = np.linalg.norm(expected, axis=1)
    return float((np.linalg.norm(found - expected, axis=1) / np.maximum(size, 1e-30)).max())


def _face(model: onnx.ModelProto) -> list[Any]:
    """What a caller sees: the metadata, and names, types and shapes of inputs and outputs."""
    stored = {tensor.name for tensor in model.graph.initializer}
    ends = [value for value in (*model.graph.input, *model.graph.output) if value.name not in stored]
    metadata = sorted((entry.key, entry.value) for entry in model.metadata_props)
    return [metadata, *((value.name, value.type.SerializeToString(deterministic=True)) for value in ends)]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())
