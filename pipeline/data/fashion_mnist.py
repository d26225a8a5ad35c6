"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): 60 000 + 10 000 grey images of 28x28."""

from __future__ import annotations

import hashlib
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline import fetch
from pipeline.data.dataset import Dataset
from pipeline.data.part import Part, part_of
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
MOST_BYTES = 64 * 2**20
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
# SHA-256 of the unzipped content, so that every packaging of the same images is accepted and no other.
CONTENT = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def read(root: Path | None) -> Dataset:
    """The four files from ``root``, from Debian's package, or downloaded once; refused where the content differs."""
    if root is not None:
        folder = root
    elif DEBIAN.is_dir():
        folder = DEBIAN
    else:
        folder = download(fetch.cache("fashion-mnist"))
    train = _part(folder, "train")
    test = _part(folder, "t10k")
    return Dataset(
        source=f"Fashion-MNIST from {folder} (60 000 + 10 000 real images of 28x28, shown at 32x32)",
        classes=CLASSES,
        train=train,
        calibration=train,
        test=test,
        preprocessing=Preprocessing(32, 32, "bilinear", 1, (0.286,), (0.353,)),
        epochs=3,
        mirrored=True,
    )


def download(folder: Path, url: str = URL) -> Path:
    """Fetch what ``folder`` lacks; a file appears there only once its content is proven."""
    cure = "install Debian's package dataset-fashion-mnist or point --data-root to the four files"
    for name in CONTENT:
        path = folder / f"{name}.gz"
        if not path.exists():
            proven = partial(_proven, path)
            fetch.fetch(url + path.name, path, MOST_BYTES, proven, f"--data fashion-mnist: {cure}")
    return folder


def _proven(path: Path, part: Path) -> None:
    _unpacked(part.read_bytes(), path)


def _unpacked(packed: bytes, path: Path) -> bytes:
    """The content of a file, gzipped or not; raises BadRequest where it is not what was published."""
    content = packed
    try:
        if packed[:2] == b"\x1f\x8b":  # gzip
            # Bounded, so that no small file grows into all memory before its hash is looked at.
            content = zlib.decompressobj(31).decompress(packed, MOST_BYTES)
    except zlib.error as error:
        raise BadRequest(f"{path} is damaged ({error}); delete it, or point --data-root to whole files") from error
    if hashlib.sha256(content).hexdigest() != CONTENT[path.name.removesuffix(".gz")]:
        raise BadRequest(f"{path} is not the published Fashion-MNIST file (its hash differs); fetch it anew")
    return content


def _content(folder: Path, name: str) -> bytes:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return _unpacked(path.read_bytes(), path)
    raise BadRequest(f"--data fashion-mnist: {folder} has no {name}.gz; point --data-root to the four files")


def _part(folder: Path, kind: str) -> Part:
    # Behind 16 bytes of header are images, behind 8 are labels.
    images = np.frombuffer(_content(folder, f"{kind}-images-idx3-ubyte"), np.uint8, offset=16).reshape(-1, 28, 28)
    labels: NDArray[np.uint8] = np.frombuffer(_content(folder, f"{kind}-labels-idx1-ubyte"), np.uint8, offset=8)
    return part_of(images, labels.astype(np.int64), f"Fashion-MNIST {kind}")
