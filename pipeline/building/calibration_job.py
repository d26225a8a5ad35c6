"""What is asked of calibration: the images, the method, and which of the images are set aside."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporters.number_formats import INT8
from pipeline import workspace
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from exporters.number_formats import NumberFormat
    from pipeline.data.images import Images

# Images that only compare methods and judge the file: a fifth, at most 64, and no fewer than make an interval.
HELD_SHARE = 5
MOST_HELD = 64
LEAST_HELD = 8
# Fewer calibration images than this leave too few to set aside.
LEAST_IMAGES = LEAST_HELD * HELD_SHARE


@dataclass(frozen=True)
class CalibrationJob:
    """Images to calibrate on, the method, and what the pairs will be.

    ``placement`` is a row of qdq.PLACEMENTS. ``cache`` is the user's own file.
    ``settle`` says that fewer images may do. ``hold`` says that some are set aside whatever the method, where there are
    enough.
    """

    images: Images
    method: str
    seed: int = 0
    cache: Path | None = None
    settle: bool = False
    hold: bool = False
    placement: str = "tensorrt"
    number_format: NumberFormat = INT8

    def parameters(self) -> dict[str, Any]:
        """What the ranges depend on, for the note of the stage."""
        parameters = {
            "images": self.images.digest,
            "method": self.method,
            "held": self.held,
            "seed": self.seed,
            "settle": self.settle,
            "placement": self.placement,
            "number_format": self.number_format.name,
        }
        if self.cache is not None:
            # A file that is not there yet is to be written: no earlier stage may stand in for that.
            parameters["cache"] = workspace.sha256(self.cache) if self.cache.is_file() else time.time_ns()
        return parameters

    @property
    def is_table(self) -> bool:
        """Whether ``cache`` is TensorRT's text."""
        from calibration.table import SUFFIXES

        return self.cache is not None and self.cache.suffix in SUFFIXES

    @property
    def held(self) -> int:
        """How many images are set aside: they give no statistics."""
        count = min(MOST_HELD, len(self.images) // HELD_SHARE)
        if self.method == "auto":
            # The tournament cannot be held without them.
            if count < LEAST_HELD:
                raise BadRequest(
                    f"--calib-method auto sets a fifth of the {len(self.images)} calibration images aside and needs "
                    f"{LEAST_HELD} there; give {LEAST_IMAGES} or name a method"
                )
            return count
        return count if self.hold and count >= LEAST_HELD else 0

    @property
    def split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The indices of the images that give statistics, in their order, and of those set aside."""
        from pipeline.data.part import queue

        order = queue(self.images.labels, self.seed)
        # From the end, so that those that come first, and may be enough, are the same whether some are held or not.
        count = len(order) - self.held
        return order[:count], order[count:]
