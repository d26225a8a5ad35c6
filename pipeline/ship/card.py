"""The model card of a bundle, from the report alone."""

from __future__ import annotations

from typing import Any


def card(report: dict[str, Any], said: dict[str, Any], row: dict[str, Any]) -> str:
    """What it is, where it comes from, how it was judged and what nobody proved, as Markdown."""
    model, bounds, accuracy = said["model"], said["bounds"], row["accuracy"]
    drop = row["drop"]
    takes = f"images (N, {', '.join(map(str, model['input']))}) {model['dtype']} 0..255"
    lost = f"{100 * drop['value']:.2f} points (95 % bounds {100 * drop['lower']:.2f} to {100 * drop['upper']:.2f})"
    least, _, most = model["batches"]
    lines = [
        f"# {model['arch']} in {model['precision']}",
        "",
        f"- Takes `{takes}`, {least} to {most} a run; answers logits of {model['classes']} classes.",
        "- How an image becomes these pixels: conformance.json, and images with their pixels beside it.",
        f"- Data: {report['sources']['data']}.",
        f"- Weights: {report['sources']['weights'].split(' and kept in ')[0]}.",
        f"- Top-1 {100 * accuracy['top1']:.2f} % and top-5 {100 * accuracy['top5']:.2f} % of {accuracy['n']} images.",
        f"- Top-1 lost against float32: {lost}.",
        f"- Median SQNR that an engine keeps on the goldens: {bounds['sqnr_db']:g} dB against PyTorch,",
        f"  {bounds['judged_db']:g} dB against the file that was judged.",
        f"- Made by edge-resnet {report['environment']['pipeline']}.",
        "",
        "Not proven:",
        "",
        *(f"- {sentence}" for sentence in report["not_proven"]),
    ]
    return "\n".join(lines) + "\n"
