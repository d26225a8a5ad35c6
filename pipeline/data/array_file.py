"""Images in an .npy or .npz file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.part import NO_CLASS, Part
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def from_array(path: Path) -> Part:
    """The images in an .npy file, or in an .npz file under ``images`` or alone: (N, C, H, W) pixels 0..255."""
    try:
        array = _array(path)
    except BadRequest:
        raise
    except Exception as error:  # a damaged archive ends in any error there is
        raise BadRequest(f"{path} is no readable array of numbers ({error}); write it with numpy.save") from error
    if array.ndim != 4 or array.dtype.kind not in "uif" or array.shape[1] not in {1, 3} or not array.size:
        raise BadRequest(
            f"{path} holds {array.dtype} {array.shape}; "
            "calibration images are pixels 0..255 of shape (N, C, H, W) with C 1 or 3"
        )
    _refuse_range(array, path)

    # Without a copy of the whole: an .npy file is mapped into memory, and only the image that is asked for is read.
    def image(index: int) -> NDArray[np.generic]:
        return np.asarray(array[index])

    return Part(np.full(len(array), NO_CLASS), image, lambda index: f"{path}[{index}]", image)


def _refuse_range(array: NDArray[np.generic], path: Path) -> None:
    """Raise BadRequest where pixels are no numbers, or where most images are not of pixels 0..255.

    Most and not any: a dark image has no pixel above 1 either.
    """
    # Image by image, since the file may be larger than memory.
    lows = np.empty(len(array))
    highs = np.empty(len(array))
    for index, image in enumerate(array):
        lows[index] = image.min()
        highs[index] = image.max()
    if not np.isfinite([lows, highs]).all():  # the minimum of NaN is NaN
        raise BadRequest(f"{path} holds NaN or infinite pixels; remove those images")
    for is_odd, what in (
        (highs <= 1, "no pixel above 1"),
        (lows < 0, "pixels below 0"),
        (highs > 255, "pixels above 255"),
    ):
        if 2 * is_odd.sum() > len(array):
            raise BadRequest(
                f"{path}: {is_odd.sum()} of {len(array)} images have {what}; give pixels 0..255 as they are before "
                "normalisation, which is in the network"
            )


def _array(path: Path) -> NDArray[np.generic]:
    # An .npz file cannot be mapped: its arrays are compressed.
    loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return np.asanyarray(loaded)
    names = list(loaded)
    if "images" in names:
        return np.asarray(loaded["images"])
    if len(names) != 1:
        raise BadRequest(f"{path} holds {', '.join(names) or 'nothing'}; name the array of pixels 'images'")
    return np.asarray(loaded[names[0]])
