"""The model card of a bundle, from the report alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.report import markdown, subsets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.stage import StageRow


def card(build: FinishedBuild, manifest: Mapping[str, Any], row: StageRow) -> str:
    """What it is, where it comes from, how it was judged and what nobody proved, as Markdown.

    ``row`` is that of the graph in the bundle, which was judged.
    """
    assert row.accuracy is not None
    assert row.drop is not None
    model, bounds = manifest["model"], manifest["bounds"]
    accuracy, drop = row.accuracy, row.drop
    takes = f"images (N, {', '.join(map(str, model['input']))}) {model['dtype']} 0..255"
    least, _, most = model["batches"]
    confidence = 100 * build.confidence
    lost = f"{100 * drop.value:.2f} points ({confidence:g} % bounds {100 * drop.lower:.2f} to {100 * drop.upper:.2f})"
    # Where the weights are kept is a folder of whoever built it.
    weights = build.sources.weights.split(" and kept in ")[0]
    lines = [
        f"# {model['arch']} in {model['precision']}",
        "",
        f"- Takes `{takes}`, {least} to {most} a run; answers logits of {model['classes']} classes.",
        "- How an image becomes these pixels: conformance.json, and images with their pixels beside it.",
        f"- Data: {build.sources.data}.",
        f"- Weights: {weights}.",
        f"- Top-1 {100 * accuracy.top1:.2f} % and top-5 {100 * accuracy.top5:.2f} % of {accuracy.n} images.",
        f"- Top-1 lost against float32: {lost}.",
        *_by_class(row),
        f"- Median SQNR that an engine keeps on the goldens: {bounds['sqnr_db']:g} dB against PyTorch,",
        f"  {bounds['judged_db']:g} dB against the file that was judged.",
        f"- Made by edge-resnet {build.environment.pipeline}.",
        "",
        "Not proven:",
        "",
        *(f"- {sentence}" for sentence in build.not_proven),
    ]
    return "\n".join(lines) + "\n"


def _by_class(row: StageRow) -> Iterator[str]:
    """The worst class, the worst groups, and what their images cannot show."""
    if not row.subsets:
        yield "- Of single classes nothing is known: the build kept no answers by class."
    for sentence in subsets.sentences(row.subsets):
        yield f"- {markdown.plain(sentence)}."
