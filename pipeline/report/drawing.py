"""A network as a picture, by matplotlib: one column a stage, its first block and one of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.models.resnet_spec import ResNetSpec
    from pipeline.models.summary import Summary


def network(name: str, spec: ResNetSpec, found: Summary, path: Path) -> None:
    """Draw the network into ``path``; data flows down each column and on to the next."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * len(found.parts), 4), layout="constrained")
    axes = figure.subplots()
    for place, part in enumerate(found.parts):
        axes.text(place, 0, f"{part.name}\n{' × '.join(map(str, part.shape[1:]))}", ha="center", weight="bold")
        depth = -0.5
        for text, skip in _boxes(spec, part.name):
            depth = _box(axes, place, depth, text, skip)
        if place:
            axes.annotate(
                "", (place - 0.4, 0.2), (place - 0.6, 0.2), arrowprops={"arrowstyle": "->"}, annotation_clip=False
            )
    axes.set_xlim(-0.6, len(found.parts) - 0.4)
    axes.set_ylim(-6, 1)
    axes.set_axis_off()
    axes.set_title(f"{name}: {found.parameters:,} parameters, {found.macs / 1e9:.2f} G MACs of an image")
    figure.savefig(path)


def _box(axes: Any, place: float, top: float, text: str, skip: str | None) -> float:
    """A box with its text, and its shortcut beside it: dashed where it is a projection; the top of the next box."""
    height = 0.45 * (1 + text.count("\n"))
    drawn = {"boxstyle": "round,pad=0.3", "facecolor": "aliceblue" if skip is not None else "whitesmoke"}
    axes.text(place, top - height / 2, text, ha="center", va="center", bbox=drawn, fontsize=8)
    if skip is not None:
        arrow = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.5", "linestyle": "--" if skip else "-"}
        axes.annotate("", (place + 0.3, top - height - 0.2), (place + 0.3, top + 0.2), arrowprops=arrow)
        axes.text(place + 0.48, top - height / 2, skip, ha="center", va="center", fontsize=6, rotation=90)
    return top - height - 0.8


def _boxes(spec: ResNetSpec, part: str) -> Iterator[tuple[str, str | None]]:
    """The text of each box and what its shortcut does: nothing (""), a projection, or None where there is none."""
    ends = {"pool": "mean over space", "fc": "linear"}
    if part in ends:
        yield ends[part], None
    elif part == "stem":
        yield _stem(spec), None
    else:
        stage = int(part.removeprefix("layer")) - 1
        inputs = (spec.widths[0], *spec.outputs)[stage]
        inner, outputs, stride = spec.inner[stage], spec.outputs[stage], spec.first_strides[stage]
        changes = stride > 1 or inputs != outputs
        projection = ("mean, " if spec.shortcut_pool and stride > 1 else "") + "1×1" + (", norm" * spec.shortcut_norm)
        yield _block(spec, inner, outputs, stride), projection if changes else ""
        if others := spec.depths[stage] - 1:
            yield f"{others} ×\n{_block(spec, inner, outputs, 1)}", ""


def _stem(spec: ResNetSpec) -> str:
    width, size = spec.widths[0], spec.first_kernel_size
    half = width // 2
    kernels = [f"{size}×{size}, {width}"] if spec.stem == "plain" else [f"3×3, {half}", f"3×3, {half}", f"3×3, {width}"]
    kernels[0] += f", /{spec.first_stride}" * (spec.first_stride > 1)
    return "\n".join([*kernels, *["max-pool 3×3, /2"] * spec.max_pool])


def _block(spec: ResNetSpec, inner: int, outputs: int, stride: int) -> str:
    by = f", /{stride}" * (stride > 1)
    if spec.block == "basic":
        return f"3×3, {inner}{by}\n3×3, {outputs}"
    first, second = (by, "") if spec.stride_in == "1x1" else ("", by)
    grouped = f", {spec.groups} groups" * (spec.groups > 1)
    return f"1×1, {inner}{first}\n3×3, {inner}{grouped}{second}\n1×1, {outputs}"
