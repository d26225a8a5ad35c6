"""How a training went, as a picture by matplotlib: loss and accuracy over the epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PANELS = (("loss", "loss, nats", 1), ("top1", "top-1, %", 100))
PARTS = (("train", "training images, augmented", "tab:blue"), ("validation", "validation images", "tab:orange"))


def training(history: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw the rows of history.jsonl into ``path``, and the epoch whose weights were kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    kept = [row["epoch"] for row in history if row["best"]][-1]
    for axes, (figure_name, label, factor) in zip(figure.subplots(1, 2), PANELS, strict=True):
        for part, name, color in PARTS:
            rows = [row for row in history if row[part]]
            values = [factor * row[part][figure_name] for row in rows]
            axes.plot([row["epoch"] for row in rows], values, marker=".", color=color, label=name)
        axes.axvline(kept, color="tab:gray", linestyle=":", label="weights kept")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(title)
    figure.savefig(path, metadata={"Date": None})
