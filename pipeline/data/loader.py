"""A user's own loader of images, and the pixels that it or another program made."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import user_function
from pipeline.errors import BadRequest
from pipeline.workspace import explain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.conformance import Vector
    from pipeline.data.preprocessing import Preprocessing

    Load = Callable[[str], NDArray[np.float32]]

WANTED = "it takes the path of an image file and answers its pixels (C, H, W) 0..255"


def find(asked: str, record: Preprocessing) -> Load:
    """The function that ``asked`` names as module:function; what it answers comes as float32, CHW or HWC.

    Raises BadRequest where there is none, and later where it raises or answers what is no image of that size.
    """
    sentence = f"--loader {asked}"
    function = user_function.find(asked, sentence, WANTED)

    def load(path: str) -> NDArray[np.float32]:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                array = np.asarray(function(path))
        except (Exception, SystemExit) as error:
            raise BadRequest(f"{sentence} raised {user_function.said(error)} for {path}; {WANTED}") from error
        return checked(array, record, f"{sentence} for {path}")

    return load


def tensors(path: Path, record: Preprocessing, vectors: list[Vector]) -> dict[str, NDArray[np.float32]]:
    """The arrays in the .npz file at ``path``, one for the name of each image of ``vectors``."""
    names = [vector.name for vector in vectors]
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in names if name in archive}
    except Exception as error:  # a damaged archive ends in any error there is
        raise BadRequest(
            f"--tensors {path} is no readable .npz ({explain(error)}); write it with numpy.savez"
        ) from error
    lacking = [name for name in names if name not in arrays]
    if lacking:
        raise BadRequest(f"--tensors {path} has no array {lacking[0]}; it needs one for each of {', '.join(names)}")
    return {name: checked(array, record, f"--tensors {path}, {name}") for name, array in arrays.items()}


def checked(array: NDArray[Any], record: Preprocessing, what: str) -> NDArray[np.float32]:
    """``array`` as float32 (C, H, W), or (H, W, C) where it is that; raises BadRequest where it is no such image."""
    side = record.input_size
    channels = record.channels
    plain = array[0] if array.ndim == 4 and len(array) == 1 else array  # a batch of one
    if plain.dtype.kind not in "uif" or plain.shape not in {(channels, side, side), (side, side, channels)}:
        raise BadRequest(
            f"{what}: found {array.dtype} {array.shape}; it must be numbers of shape ({channels}, {side}, {side})"
        )
    result = plain.astype(np.float32)
    if not np.isfinite(result).all():
        raise BadRequest(f"{what}: found NaN or infinity; pixels are 0..255")
    return result
