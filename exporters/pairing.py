"""Which tensors of two files are the same one: by their names, else by their place in the graph, else by their values.

Files that the stages of one build write share their names. Another exporter has names of its own, and of its file only
the structure tells: both graphs are walked together from their outputs, as certify walks them. What the walk does not
reach is compared by its values on an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters import reference
from exporters.portable.sqnr import capped_sqnr_db
from exporters.subgraphs import HANDED_ON, reads

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from exporters.subgraphs import Subgraphs

    Tensors = dict[str, NDArray[np.float32]]

# The share of the tensors of the smaller file that has to be the same in both.
LEAST_SHARED = 0.5
LEAST_PAIRED = 0.3
LEAST_PAIRS = 2
# Of tensors that share a name, the share that has to come from the same operator: tensors that are numbered in each
# file for itself share names by accident.
LEAST_ALIKE = 0.6
# What stands where another operator stood once a stage has folded that one away.
FOLDED = {("BatchNormalization", "Conv"), ("BatchNormalization", "Gemm")}
# Operators whose operands may stand in either order.
EITHER_ORDER = {"Add", "Mul", "Max", "Min", "Sum"}
# How many nodes may stand in one file alone between two that stand in both.
MOST_ALONE = 4
# How far up a tensor is told from another that the same node reads.
SIGNATURE = 8
# The SQNR in dB from which on two tensors are taken for the same one.
SAME_VALUES_DB = 20.0


def aligned(good: Subgraphs, bad: Subgraphs, images: NDArray[np.float32]) -> Subgraphs:
    """``bad`` with the names that its tensors have in ``good``; ``images`` (n, C, H, W) tell tensors apart.

    Raises ValueError where the two share too little to be compared piece by piece.
    """
    names: dict[str, str] = {}
    if len(good.sources) == len(bad.sources):
        names.update(zip(bad.sources, good.sources, strict=True))
    if _named_alike(good, bad):
        names.update(_answers(good, bad))
        different = {old: new for old, new in names.items() if old != new}
        return bad.renamed(different) if different else bad

    pairs = _by_values(good, bad, _by_structure(good, bad), images)
    workers = min(len(_workers(good)), len(_workers(bad)))
    if len(pairs) < max(LEAST_PAIRS, LEAST_PAIRED * workers):
        raise ValueError(
            f"{good.name} and {bad.name} share no tensors, by their names, their place in the graph or their values; "
            "give two files of one network"
        )
    names.update({bad_name: good_name for good_name, bad_name in pairs.items()})
    # The answers are the files' own, with what stands on their way out.
    for good_name, bad_name in zip(good.answers, bad.answers, strict=False):
        names = {old: new for old, new in names.items() if new != good_name}
        names[bad_name] = good_name
    return bad.renamed(names, apart_from=good)


def _named_alike(good: Subgraphs, bad: Subgraphs) -> bool:
    """Whether a name means the same tensor in both files."""
    good_workers = _workers(good)
    bad_workers = _workers(bad)
    shared = good_workers.keys() & bad_workers.keys()
    if good.compiled or bad.compiled:
        return bool(shared)

    alike = 0
    for name in shared:
        operators = (good_workers[name].op_type, bad_workers[name].op_type)
        alike += operators[0] == operators[1] or operators in FOLDED or operators[::-1] in FOLDED
    smaller = min(len(good_workers), len(bad_workers))
    return len(shared) >= LEAST_SHARED * smaller and alike >= LEAST_ALIKE * len(shared)


def _workers(file: Subgraphs) -> dict[str, onnx.NodeProto]:
    """The nodes that compute something from the images, by the tensor that they make."""
    comparable = file.moving & file.types.keys()
    made = {name: node for name, node in file.made.items() if name in comparable}
    return {name: node for name, node in made.items() if node.op_type not in HANDED_ON}


def _answers(good: Subgraphs, bad: Subgraphs) -> dict[str, str]:
    """The answers of ``bad`` that have another name in ``good``, by their place."""
    if len(good.answers) != len(bad.answers):
        return {}
    by_place = zip(bad.answers, good.answers, strict=True)
    return {bad_name: good_name for bad_name, good_name in by_place if good_name not in bad.made}


def _by_structure(good: Subgraphs, bad: Subgraphs) -> dict[str, str]:
    """The tensors of ``good`` and those of ``bad`` at the same place, walked from the outputs."""
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    todo = list(zip(good.answers, bad.answers, strict=False))
    while todo:
        good_end, bad_end = todo.pop()
        good_name = _behind(good, good_end)
        bad_name = _behind(bad, bad_end)
        if good_name in pairs or bad_name in taken:
            continue
        if good_name not in good.made or bad_name not in bad.made:
            continue
        pairs[good_name] = bad_name
        taken.add(bad_name)

        below = _same_operator(good, bad, good_name, bad_name)
        if below is None:
            continue
        if good_name != below[0] and bad_name != below[1]:
            todo.append(below)
            continue
        todo += _operands(good, bad, below)
    return pairs


def _behind(file: Subgraphs, name: str) -> str:
    """The tensor that is ``name`` but for its rounding."""
    while name in file.made and file.made[name].op_type in HANDED_ON:
        operands = _moving(file, file.made[name])
        if not operands:
            break
        name = operands[0]
    return name


def _moving(file: Subgraphs, node: onnx.NodeProto) -> list[str]:
    """What ``node`` reads that depends on the images."""
    return [name for name in reads(node) if name in file.moving]


def _upwards(file: Subgraphs, name: str) -> Iterator[str]:
    """``name``, and the first tensor that its node reads, and so on up to the images."""
    while name in file.made:
        yield name
        operands = _moving(file, file.made[name])
        if not operands:
            return
        name = _behind(file, operands[0])


def _same_operator(good: Subgraphs, bad: Subgraphs, good_name: str, bad_name: str) -> tuple[str, str] | None:
    """The next tensors up from these that come from one operator, as few nodes left out as can be; None without."""
    good_names = [name for name, _ in zip(_upwards(good, good_name), range(MOST_ALONE), strict=False)]
    bad_names = [name for name, _ in zip(_upwards(bad, bad_name), range(MOST_ALONE), strict=False)]
    found = None
    fewest = 2 * MOST_ALONE
    for good_steps, good_above in enumerate(good_names):
        for bad_steps, bad_above in enumerate(bad_names):
            same = good.made[good_above].op_type == bad.made[bad_above].op_type
            if same and good_steps + bad_steps < fewest:
                found = good_above, bad_above
                fewest = good_steps + bad_steps
    return found


def _operands(good: Subgraphs, bad: Subgraphs, names: tuple[str, str]) -> list[tuple[str, str]]:
    """What the nodes that make ``names`` read at the same place."""
    node = good.made[names[0]]
    good_operands = _moving(good, node)
    bad_operands = _moving(bad, bad.made[names[1]])
    if node.op_type in EITHER_ORDER and len(good_operands) == len(bad_operands) == 2:
        good_signatures = [_signature(good, name) for name in good_operands]
        bad_signatures = [_signature(bad, name) for name in bad_operands]
        if good_signatures != bad_signatures and good_signatures[0] == bad_signatures[1]:
            bad_operands.reverse()
    return list(zip(good_operands, bad_operands, strict=False))


def _signature(file: Subgraphs, name: str) -> list[object]:
    """By what a tensor is known: the operators above it and the shapes of their weights."""
    signature: list[object] = []
    for _, above in zip(range(SIGNATURE), _upwards(file, _behind(file, name)), strict=False):
        node = file.made[above]
        if node.op_type == "BatchNormalization":
            continue
        signature.append(node.op_type)
        for operand in node.input[1:2]:
            weight = file.weights.get(operand)
            if weight is not None:
                signature.append(tuple(weight.dims))
    return signature


def _by_values(good: Subgraphs, bad: Subgraphs, pairs: dict[str, str], images: NDArray[np.float32]) -> dict[str, str]:
    """``pairs`` without those of other shapes, and with the tensors that have nearly the same values on ``images``."""
    good_names = list(_workers(good))
    bad_names = list(_workers(bad))
    good_values = good.values(good_names, images)
    try:
        bad_values = bad.values(bad_names, images)
    except reference.refusals():
        # It cannot be run as a whole, and its place in the graph is all that is known of a tensor.
        return pairs

    kept = {}
    for good_name, bad_name in pairs.items():
        if good_name in good_values and bad_name in bad_values:
            same_shape = good_values[good_name].shape == bad_values[bad_name].shape
            if same_shape or good_name in good.answers:
                kept[good_name] = bad_name

    left = [name for name in bad_names if name not in kept.values()]
    for good_name in good_names:
        if good_name in kept:
            continue
        nearest = _nearest(good_values[good_name], {name: bad_values[name] for name in left})
        if nearest is not None:
            kept[good_name] = nearest
            left.remove(nearest)
    return kept


def _nearest(values: NDArray[np.float32], candidates: Tensors) -> str | None:
    """The candidate that has nearly the same ``values``; None where none has."""
    nearest, nearest_db = None, SAME_VALUES_DB
    for name, candidate in candidates.items():
        if candidate.shape != values.shape:
            continue
        distance_db = min(capped_sqnr_db(values, candidate), default=0.0)
        if distance_db > nearest_db:
            nearest, nearest_db = name, distance_db
    return nearest
