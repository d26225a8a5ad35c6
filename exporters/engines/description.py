"""What an engine is made of after fusion, in one shape for every backend."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EIGHT_BITS = {"int8", "uint8", "float8"}
# What each library calls the types; others keep their own name in small letters.
TYPES = {
    **dict.fromkeys(("float", "fp32"), "float32"),
    **dict.fromkeys(("half", "fp16"), "float16"),
    **dict.fromkeys(("fp8", "float8e4m3fn"), "float8"),
    "bf16": "bfloat16",
}
# A description is kept in a note: no more layers than this, and no longer names.
MOST = 2000
LONGEST = 160


@dataclass(frozen=True)
class Layer:
    """One layer after fusion: the backend's ``kind``, the ``modules`` in it, the types it reads and hands on."""

    name: str
    kind: str
    modules: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reformat: bool = False


@dataclass(frozen=True)
class Operation:
    """A convolution or residual Add of the network, by its module, and the types that its layer reads and hands on.

    Of several layers (one for each profile) the one that does the least in 8 bits; no types where none is listed.
    ``fused``: an Add is in the layer of a convolution.
    """

    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fused: bool = False

    @property
    def reads_8_bits(self) -> bool:
        """Whether an input has 8 bits."""
        return bool(EIGHT_BITS & {*self.inputs})

    @property
    def in_8_bits(self) -> bool:
        """Whether all inputs and outputs have 8 bits."""
        # Of one that no layer is listed for nothing is known.
        if not self.inputs or not self.outputs:
            return False
        return {*self.inputs, *self.outputs} <= EIGHT_BITS


@dataclass(frozen=True)
class EngineDescription:
    """The layers of an engine, as ``source`` tells them; ``weights`` and ``activations`` in bytes.

    ``dla``: how many layers run on a DLA. None where something is not known.
    """

    backend: str
    source: str
    layers: tuple[Layer, ...]
    convolutions: tuple[Operation, ...]
    adds: tuple[Operation, ...]
    reformats: int
    left_out: int  # layers beyond the MOST that are kept
    weights: int | None = None
    activations: int | None = None
    dla: int | None = None

    def counts(self) -> dict[str, int]:
        """How many layers, reformats, convolutions and residual Adds there are, and how many in 8 bits."""
        return {
            "layers": len(self.layers) + self.left_out,
            "reformats": self.reformats,
            "convolutions": len(self.convolutions),
            "convolutions_that_read_8_bits": sum(operation.reads_8_bits for operation in self.convolutions),
            "convolutions_in_8_bits": sum(operation.in_8_bits for operation in self.convolutions),
            "adds": len(self.adds),
            "adds_in_8_bits": sum(operation.in_8_bits for operation in self.adds),
            "adds_fused": sum(operation.fused for operation in self.adds),
        }

    def remarks(self) -> Iterator[tuple[str, str]]:
        """Modules of an engine with 8-bit tensors that are not in 8 bits throughout, each with what it does."""
        # Of an engine in float there is nothing to remark.
        types: set[str] = set()
        for layer in self.layers:
            types.update(layer.inputs, layer.outputs)
        if not EIGHT_BITS & types:
            return

        for operation in self.convolutions:
            yield from _remarks("convolution", operation)
        for operation in self.adds:
            yield from _remarks("residual Add", operation)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON keeps it."""
        return asdict(self)


def _remarks(what: str, operation: Operation) -> Iterator[tuple[str, str]]:
    """The module of ``operation``, which is a ``what``, and what it does in more than 8 bits, if anything."""
    if not operation.inputs:
        yield operation.module, f"no layer is listed for the {what}"
    elif not operation.in_8_bits:
        yield operation.module, f"{what} reads {joined(operation.inputs)}, hands on {joined(operation.outputs)}"


def of_layers(
    backend: str,
    source: str,
    layers: Sequence[Layer],
    convolutions: Sequence[Operation],
    adds: Sequence[Operation],
    *,
    weights: int | None,
    activations: int | None = None,
    dla: int | None,
) -> EngineDescription:
    """The description, with no more than MOST of its ``layers``."""
    return EngineDescription(
        backend=backend,
        source=source,
        layers=tuple(layers[:MOST]),
        convolutions=tuple(convolutions),
        adds=tuple(adds),
        reformats=sum(layer.reformat for layer in layers),
        left_out=len(layers[MOST:]),
        weights=weights,
        activations=activations,
        dla=dla,
    )


def from_json(kept: Mapping[str, Any]) -> EngineDescription:
    """The description that ``to_json`` gave; raises ValueError where it is not whole."""
    try:
        layers = tuple(Layer(**_tuples(layer)) for layer in kept["layers"])
        convolutions = _operations(kept["convolutions"])
        adds = _operations(kept["adds"])
        return EngineDescription(**{**kept, "layers": layers, "convolutions": convolutions, "adds": adds})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the description that was kept is not whole ({error!r}); build again") from error


def reading_8_bits(kept: Mapping[str, Any]) -> int | None:
    """How many convolutions of the description that ``to_json`` gave read 8 bits; None where no layers are listed."""
    if not kept["layers"]:
        return None
    return from_json(kept).counts()["convolutions_that_read_8_bits"]


def _operations(kept: Sequence[Mapping[str, Any]]) -> tuple[Operation, ...]:
    return tuple(Operation(**_tuples(operation)) for operation in kept)


def _tuples(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a layer or an operation, whose types and modules JSON has as lists."""
    fields = {}
    for name, value in kept.items():
        fields[name] = tuple(map(str, value)) if isinstance(value, list | tuple) else value
    return fields


def type_name(text: str) -> str:
    """The name of a type, of whatever library: ``Half``, ``FLOAT16`` and ``FP16`` are ``float16``."""
    return TYPES.get(text.lower(), text.lower())


def joined(types: tuple[str, ...]) -> str:
    """Each type once, in order."""
    return " + ".join(dict.fromkeys(types)) or "–"


def printable(name: str) -> str:
    """A name out of a file or log, without what a terminal would obey, and not longer than is kept."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:LONGEST])
