"""How a training went, as a picture by matplotlib: loss and accuracy over the epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Figure of history.jsonl, label of its axis, and the factor to that unit.
PANELS = (("loss", "loss, nats", 1), ("top1", "top-1, %", 100))
# Part of a row of history.jsonl, its name in the legend, and its colour.
PARTS = (("train", "training images, augmented", "tab:blue"), ("validation", "validation images", "tab:orange"))


def training(history: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw the rows of history.jsonl into ``path``, and the epoch whose weights were kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    best_epochs = [row["epoch"] for row in history if row["best"]]
    for axes, (figure_name, label, factor) in zip(figure.subplots(1, 2), PANELS, strict=True):
        for part, name, color in PARTS:
            epochs = []
            values = []
            for row in history:
                # Without validation images there is no such part.
                if row[part]:
                    epochs.append(row["epoch"])
                    values.append(factor * row[part][figure_name])
            axes.plot(epochs, values, marker=".", color=color, label=name)
        # The best until then, so the last one of all.
        axes.axvline(best_epochs[-1], color="tab:gray", linestyle=":", label="weights kept")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    # One legend for both panels, in the last.
    axes.legend()
    figure.suptitle(title)
    # Without its date the same training draws the same file.
    figure.savefig(path, metadata={"Date": None})
