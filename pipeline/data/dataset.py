"""What every reader of images answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.data.part import Part
    from pipeline.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Dataset:
    """What a reader answers; ``source`` is the sentence that tells a person where the images come from."""

    source: str
    classes: tuple[str, ...]
    train: Part
    calibration: Part
    test: Part
    preprocessing: Preprocessing
    epochs: int
    mirrored: bool = False  # whether a mirrored image still shows its class
