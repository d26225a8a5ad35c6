"""A network as a picture, by matplotlib: one column a stage, its first block and one of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.models.resnet_spec import ResNetSpec
    from pipeline.models.summary import Summary


# All in units of the axes: a column is 1 wide, a line of text 0.45 high.
LINE_HEIGHT = 0.45
GAP = 0.8
LOWEST = -6


def network(name: str, spec: ResNetSpec, summary: Summary, path: Path) -> None:
    """Draw the network into ``path``; data flows down each column and on to the next."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * len(summary.parts), 4), layout="constrained")
    axes = figure.subplots()
    for column, part in enumerate(summary.parts):
        # The shape of one image, without the batch.
        shape = " × ".join(str(size) for size in part.shape[1:])
        axes.text(column, 0, f"{part.name}\n{shape}", ha="center", weight="bold")
        top = -0.5
        for text, shortcut in _boxes(spec, part.name):
            top = _draw_box(axes, column, top, text, shortcut)
        if column > 0:
            arrow = {"arrowstyle": "->"}
            axes.annotate("", (column - 0.4, 0.2), (column - 0.6, 0.2), arrowprops=arrow, annotation_clip=False)

    axes.set_xlim(-0.6, len(summary.parts) - 0.4)
    axes.set_ylim(LOWEST, 1)
    axes.set_axis_off()
    axes.set_title(f"{name}: {summary.parameters:,} parameters, {summary.macs / 1e9:.2f} G MACs of an image")
    figure.savefig(path)


def _draw_box(axes: Any, column: float, top: float, text: str, shortcut: str | None) -> float:
    """A box with its text, and its shortcut beside it: dashed where it is a projection; the top of the next box."""
    height = LINE_HEIGHT * (1 + text.count("\n"))
    middle = top - height / 2
    color = "whitesmoke" if shortcut is None else "aliceblue"
    box = {"boxstyle": "round,pad=0.3", "facecolor": color}
    axes.text(column, middle, text, ha="center", va="center", bbox=box, fontsize=8)

    if shortcut is not None:
        line = "--" if shortcut else "-"
        arrow = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.5", "linestyle": line}
        axes.annotate("", (column + 0.3, top - height - 0.2), (column + 0.3, top + 0.2), arrowprops=arrow)
        axes.text(column + 0.48, middle, shortcut, ha="center", va="center", fontsize=6, rotation=90)
    return top - height - GAP


def _boxes(spec: ResNetSpec, part: str) -> Iterator[tuple[str, str | None]]:
    """The text of each box and what its shortcut does: nothing (""), a projection, or None where there is none."""
    if part == "pool":
        yield "mean over space", None
    elif part == "fc":
        yield "linear", None
    elif part == "stem":
        yield _stem(spec), None
    else:
        yield from _stage_boxes(spec, int(part.removeprefix("layer")) - 1)


def _stage_boxes(spec: ResNetSpec, stage: int) -> Iterator[tuple[str, str]]:
    """The first block of ``stage``, counted from 0, and one box for all others: they are alike."""
    # What the stage reads: the first one the stem's channels, each other those of the stage before.
    inputs = (spec.stem_outputs, *spec.outputs)[stage]
    inner = spec.inner[stage]
    outputs = spec.outputs[stage]
    stride = spec.first_strides[stage]

    # The shortcut must bring its input to the shape of the output, where that is another.
    shortcut = ""
    if stride > 1 or inputs != outputs:
        shortcut = _projection(spec, stride)
    yield _block(spec, inner, outputs, stride), shortcut

    others = spec.depths[stage] - 1
    if others > 0:
        yield f"{others} ×\n{_block(spec, inner, outputs, 1)}", ""


def _projection(spec: ResNetSpec, stride: int) -> str:
    words = []
    if spec.shortcut_pool and stride > 1:
        words.append("mean")
    words.append("1×1")
    if spec.norm and spec.shortcut_norm:
        words.append("norm")
    return ", ".join(words)


def _stem(spec: ResNetSpec) -> str:
    width = spec.stem_outputs
    half = width // 2
    if spec.stem == "plain":
        lines = [f"{spec.first_kernel_size}×{spec.first_kernel_size}, {width}"]
    else:
        lines = [f"3×3, {half}", f"3×3, {half}", f"3×3, {width}"]
    lines[0] += _divided_by(spec.first_stride)
    if spec.max_pool:
        lines.append("max-pool 3×3, /2")
    return "\n".join(lines)


def _block(spec: ResNetSpec, inner: int, outputs: int, stride: int) -> str:
    """The convolutions of a block, one a line, from its input to its output."""
    if spec.block == "basic":
        return f"3×3, {inner}{_divided_by(stride)}\n3×3, {outputs}"

    reduce = f"1×1, {inner}"
    middle = f"3×3, {inner}"
    if spec.groups > 1:
        middle += f", {spec.groups} groups"
    if spec.stride_in == "1x1":
        reduce += _divided_by(stride)
    else:
        middle += _divided_by(stride)
    return f"{reduce}\n{middle}\n1×1, {outputs}"


def _divided_by(stride: int) -> str:
    return f", /{stride}" if stride > 1 else ""
