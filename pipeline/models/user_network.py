"""A network of the user's own: the function that makes it, and the hash of the file that holds this function.

A frozen file of such a network has weights and a name; its code stays where it is. Who reads the file runs that code,
so it runs only where the user named the function on the command line, and only while its file is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import user_function
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

WANTED = "it takes classes and channels and answers a torch.nn.Module for normalised images (N, channels, H, W)"
# The functions that the command line named.
TRUSTED: set[str] = set()


@dataclass(frozen=True)
class UserSpec:
    """``function`` as module:function, and ``source``, the SHA-256 of the file that it is written in."""

    function: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def build(spec: UserSpec, classes: int, channels: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """What the function of ``spec`` answers, for pixels 0..255: they are normalised before it sees them.

    Raises BadRequest where nobody named the function, its file is another one now, or it answers no network.
    """
    if spec.function not in TRUSTED:
        raise BadRequest(
            f"the network is code of someone's own, {spec.function}, and runs only where it is named: "
            f"add --trust {spec.function} if you know it"
        )
    function = _import(spec.function)
    sentence = f"--arch {spec.function}"
    if _source(function, sentence) != spec.source:
        raise BadRequest(f"{sentence}: its file changed since it was frozen; restore it or build again")
    try:
        # What it prints must not get between the lines of a command whose output a program reads.
        with contextlib.redirect_stdout(sys.stderr):
            network = function(classes=classes, channels=channels)
    except (Exception, SystemExit) as error:
        raise BadRequest(f"{sentence} raised {user_function.said(error)}; {WANTED}") from error
    return _on_pixels(network, mean, std, sentence)


def named(function: str) -> UserSpec:
    """The spec of a function that the user named; raises BadRequest where there is none."""
    TRUSTED.add(function)
    return UserSpec(function, _source(_import(function), f"--arch {function}"))


def refuse(network: nn.Module, function: str, classes: int, shape: tuple[int, int, int], opset: int) -> None:
    """Raise BadRequest where ``network`` cannot be frozen, or not be written as a graph of ``opset`` that runs.

    Its answer has to be (N, classes).
    """
    import torch

    network.eval()
    # Two of them: torch.export takes a size of 1 for a fixed one.
    images = torch.zeros(2, *shape)
    open_batch = ({0: torch.export.Dim("batch")},)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            torch.export.export(network, (images,), dynamic_shapes=open_batch)
            answer = network(images)
    except (Exception, SystemExit) as error:
        reason = user_function.said(error)[:300]
        raise BadRequest(
            f"--arch {function}: torch.export cannot freeze it for images {shape} ({reason}); what it does may depend "
            "on shapes alone, and not on the size of the batch"
        ) from error

    answered = type(answer).__name__
    if isinstance(answer, torch.Tensor):
        answered = f"{answer.dtype} {tuple(answer.shape)}"
    if answered != f"torch.float32 {(2, classes)}":
        raise BadRequest(f"--arch {function} answers {answered} to 2 images, and must answer float32 (2, {classes})")
    _refuse_graph(network, function, shape, opset)


def ends_in_softmax(network: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether ``network`` answers shares of one to any images of this shape, pixels 0..255, and no logits."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(4, *shape, generator=generator)
    with contextlib.redirect_stdout(sys.stderr), torch.inference_mode():
        answers = network.eval()(images)
    sums = answers.sum(1)
    return bool((answers >= 0).all() and torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-3))


def _refuse_graph(network: nn.Module, function: str, shape: tuple[int, int, int], opset: int) -> None:
    """Raise BadRequest with the name of an operator that the exporter, ``opset`` or ONNX Runtime does not take.

    Written with the weights as they are: what an operator is does not depend on them.
    """
    import numpy as np

    from exporters import export, onnx_file, reference
    from exporters.raise_opset import raise_opset

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "untrained.onnx")
        try:
            with contextlib.redirect_stdout(sys.stderr):
                export.export(network, path, shape, {})
            # Another number of images than the one that it was written with.
            reference.session(path).run(None, {"images": np.zeros((3, *shape), np.float32)})
            raise_opset(onnx_file.read(path), opset)
        except Exception as error:
            reason = user_function.said(error)[:300]
            raise BadRequest(
                f"--arch {function} cannot be written as an ONNX graph of opset {opset} that ONNX Runtime runs "
                f"({reason}); write it with another operator"
            ) from error


def _import(function: str) -> Callable[..., Any]:
    return user_function.find(function, f"--arch {function}", WANTED)


def _source(function: Callable[..., Any], sentence: str) -> str:
    """The SHA-256 of the file that ``function`` is written in; raises BadRequest where it is in none."""
    path = getattr(sys.modules[function.__module__], "__file__", None)
    if path is None or not Path(path).is_file():
        raise BadRequest(f"{sentence} is in no file of its own; write it into one")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _on_pixels(network: Any, mean: Sequence[float], std: Sequence[float], sentence: str) -> nn.Module:
    """``network`` itself, so that its parameters keep their names, with a hook before it that normalises."""
    import torch

    if not isinstance(network, torch.nn.Module):
        raise BadRequest(f"{sentence} answers a {type(network).__name__}; {WANTED}")
    for name, values in (("pixel_mean", mean), ("pixel_std", std)):
        if hasattr(network, name):
            raise BadRequest(f"{sentence}: the name {name} is taken for the pixels; call yours something else")
        network.register_buffer(name, 255 * torch.tensor(values).reshape(1, -1, 1, 1))

    def normalise(module: Any, images: tuple[Tensor, ...]) -> tuple[Tensor]:
        return ((images[0] - module.pixel_mean) / module.pixel_std,)

    network.register_forward_pre_hook(normalise)
    return network
