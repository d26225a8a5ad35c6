"""Every knob once: type, default, unit and help. A new field is a new flag by itself."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.precisions import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pipeline.precisions import Precision


def _knob(default: Any, text: str, **options: Any) -> Any:
    """A field of Recipe; ``options`` go to argparse as they are. ``group`` is the title over it and all that follow."""
    return field(default=default, metadata={"help": text, **options})


def whole(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` to ``most``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is no whole number from {least} to {most}")
        return value

    return parse


def size(text: str) -> int:
    """A number of bytes, as in 2G, 512M, 64K or 1048576."""
    parts = re.fullmatch(r"([1-9]\d{0,14})([KMG]?)", text.upper())
    if parts is None:
        raise argparse.ArgumentTypeError(f"{text} is no size; give one as in 2G or 512M")
    number, unit = parts.groups()
    return int(number) << {"": 0, "K": 10, "M": 20, "G": 30}[unit]


def number(text: str) -> float:
    """A number, or one over another, as in 123/255."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no number; give one as in 0.485 or 123/255") from error


# What may mend the accuracy of INT8, the cheapest first; `auto` is all that leaves the weights what they are.
RECOVERIES = ("equalise", "mixed", "qat")
AUTO = ("equalise", "mixed")
# A deviation of pixels is below 0.5 in units of 0..1, and above 20 in those of 0..255. Some networks divide by 256, a
# little more than 1.
LARGEST = {"mean": 1.0, "std": 4.0}
UNITS = "--mean and --std are in 0..1 units, as torchvision prints them"
# The data sets that are read from a folder of the user's.
ROOTED = ("fashion-mnist", "cifar10")

_count = whole(1, 10**9)
_pixels = whole(1, 4096)
_batches = {"type": whole(1, 2**16), "nargs": "+", "metavar": "N"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to build, from what, and how it is judged."""

    arch: str = _knob(
        None,
        "the network, e.g. resnet18, resnet50, resnext50 (short for resnext50_32x4d), a .toml file of its fields, or "
        "module:function for one of your own, imported from here",
        required=True,
        group="what is built, for what",
    )
    precision: str = _knob("fp32", "arithmetic of the engine")
    target: str | None = _knob(
        None,
        "where it will run, which decides engine, placement and the form of INT8: cpu, gpu, rtx, or a Jetson as in "
        "jetson-orin-nx@jp6.2, for which a recipe is written and the same graph built here by TensorRT-RTX",
    )
    tensorrt: str | None = _knob(
        None, "TensorRT on that Jetson (default: the one that its JetPack brings)", metavar="VERSION"
    )
    engine: str = _knob(
        "auto", "what runs it; auto: the best that this machine can build",
    )  # fmt: skip
    beside: str = _knob(
        "fp16",
        "what is built beside 8-bit engines of the TensorRT family, since some networks are faster in it",
        choices=("fp16", "none"),
    )
    rtx_sm: list[str] | None = _knob(
        None,
        "GPUs that TensorRT-RTX builds for, by SM without its point, as in 86 89 120 (default: its portable choice)",
        nargs="+",
        metavar="SM",
    )
    min_batch: list[int] | None = _knob(
        None,
        "images per run that the engine takes at least (default: 1); several make several profiles",
        group="the engine (docs/engines.md says which backend takes what)",
        **_batches,
    )
    opt_batch: list[int] | None = _knob(None, "images per run that it is built for (default: 8)", **_batches)
    max_batch: list[int] | None = _knob(None, "images per run that it takes at most (default: 16)", **_batches)
    input_dtype: str = _knob(
        "float32", "of the pixels that the engine takes; uint8 is a quarter to copy", choices=("float32", "uint8")
    )
    workspace: int | None = _knob(
        None, "memory that a layer may take while it runs, as in 2G or 512M (default: all)", type=size, metavar="SIZE"
    )
    timing_cache: Path | None = _knob(None, "how fast each kernel was: read there, and written", type=Path)
    error_on_timing_cache_miss: bool = _knob(False, "fail rather than time a kernel", action="store_true")
    builder_optimization_level: int | None = _knob(
        None, "how long TensorRT looks for fast kernels, 0 to 5 (default: 3)", type=whole(0, 5), metavar="LEVEL"
    )
    dla_core: int | None = _knob(None, "DLA that runs what it can", type=whole(0, 1), metavar="CORE")
    no_gpu_fallback: bool = _knob(False, "fail where the DLA cannot run a layer", action="store_true")
    version_compatible: bool = _knob(False, "an engine that newer versions of TensorRT load too", action="store_true")
    hardware_compatibility: str | None = _knob(
        None, "other GPUs that the engine loads on too", choices=("ampere-plus", "same-compute-capability")
    )
    data: str = _knob(
        "digits",
        "digits, fashion-mnist, cifar10, or a folder with train/CLASS/ and val/CLASS/ images",
        group="images and weights",
    )
    data_root: Path | None = _knob(None, "folder that holds the files of --data fashion-mnist or cifar10", type=Path)
    weights: str | Path | None = _knob(
        None,
        "a checkpoint of torchvision, timm, d2l, labml or Flax (.safetensors, .pth, .ckpt, .msgpack, a folder of "
        "Orbax), hf:OWNER/NAME[@REVISION][/FILE], or torchvision:IMAGENET1K_V2 (default: train here)",
    )
    epochs: int | None = _knob(
        None, "passes over the training images when training (default: the data set's)", type=_count
    )
    device: str = _knob("auto", "where training runs", choices=("auto", "cpu", "cuda"))
    seed: int = _knob(0, "of the training and of every choice of images", type=whole(0, 2**32 - 1))
    input_size: int | None = _knob(None, "pixels, height = width, that the network sees", type=_pixels)
    resize: int | None = _knob(None, "pixels of the shorter side before the centre crop", type=_pixels)
    interpolation: str | None = _knob(
        None, "filter of the resize", choices=("nearest", "bilinear", "bicubic", "lanczos")
    )
    mean: list[float] | None = _knob(
        None, "per channel or one for all, in 0..1 units, as in 0.485 or 123/255", type=number, nargs="+"
    )
    std: list[float] | None = _knob(
        None,
        "per channel or one for all, in 0..1 units; 1/255 where pixels lose their mean alone, 256/255 where they are "
        "divided by 256",
        type=number,
        nargs="+",
    )
    channels: int | None = _knob(
        None, "channels of the network; asking for 3 replicates grey images", type=int, choices=(1, 3)
    )
    exif: str | None = _knob(
        None,
        "whether photos are turned as their EXIF orientation says (default: as for --weights that train made, else "
        "ignore, as torchvision does)",
        choices=("ignore", "apply"),
    )
    calib_data: Path | None = _knob(
        None,
        "what calibrates: a folder of images, or .npy/.npz pixels (N, C, H, W) 0..255, one file or a folder of them",
        type=Path,
        group="INT8",
    )
    calib_samples: int | None = _knob(None, "images that calibrate, spread over the classes", type=_count)
    calib_method: str = _knob("mse", "how ranges are chosen")
    calib_cache: Path | None = _knob(
        None,
        "statistics of calibration, written there or read: another run needs no pass; "
        "or TensorRT's calibration table where the name ends in .cache or .table",
        type=Path,
    )
    placement: str = _knob(
        None,
        "whose rules Q/DQ pairs follow: tensorrt (ONNX Runtime runs them too, partly in float), or onnxruntime "
        "(all in integers, 255 levels behind a ReLU; TensorRT takes no such file) (default: tensorrt, for --target cpu "
        "onnxruntime)",
        choices=("tensorrt", "onnxruntime"),
    )
    recover: str = _knob(
        "auto",
        "what may mend the accuracy of INT8: none, auto (equalise,mixed), or with commas some of equalise (rescales "
        "channels, and changes no answer), mixed (leaves the fewest layers in float where calibration images held out "
        "miss the bounds), qat (retrains the weights under INT8, without labels)",
    )
    test_samples: int | None = _knob(
        None, "images that judge, spread over the classes (default: all)", type=_count, group="the verdict"
    )
    max_drop: float = _knob(0.01, "loss of top-1 that is allowed, absolute (0.01 is one point)", type=float)
    confidence: float = _knob(0.95, "of each bound of the change in top-1", type=float)
    max_class_drop: float | None = _knob(
        None,
        "loss of top-1 that one class or group may have (default: none is asked for, and one fails that is proven to "
        "have lost more than ten times --max-drop, and 0.05)",
        type=float,
    )
    groups: Path | None = _knob(
        None,
        "a CSV file with the columns image and others, as camera or site: each group in them is judged as a class is",
        type=Path,
        metavar="FILE.csv",
    )
    threshold: float | None = _knob(
        None, "softmax that you act on, as in 0.9: how many images cross it is told", type=float, metavar="T"
    )
    max_crossed: float | None = _knob(
        None, "share of images that may cross --threshold (default: none is asked for)", type=float, metavar="SHARE"
    )
    allow_fallback: list[str] | None = _knob(
        None, "a stage that may be passed over where it fails; the report says so", nargs="+", metavar="STAGE"
    )
    output: Path | None = _knob(
        None, "directory of all results (default: build/ARCH-PRECISION[-TARGET])", type=Path, short="-o"
    )

    def __post_init__(self) -> None:
        """Refuse at the door what no stage could do."""
        self._refuse_unknown_words()
        row = PRECISIONS[self.precision]
        if self.placement is None:
            # A frozen dataclass takes its own late default no other way.
            object.__setattr__(self, "placement", _default_placement(self.target, row))

        self._refuse_normalisation()
        _ = self.profiles  # computed for its refusals
        for knob, needed in NEEDS.items():
            if getattr(self, knob) and getattr(self, needed) is None:
                raise BadRequest(f"{flag(knob)} goes with {flag(needed)}")
        refuse_margins(**{name: getattr(self, name) for name in MARGINS})
        if self.data_root is not None and self.data not in ROOTED:
            raise BadRequest(f"--data-root goes with --data {' or '.join(ROOTED)}, not with --data {self.data}")
        self._refuse_for_precision(row)
        if self.weights is not None and self.epochs is not None:
            raise BadRequest("--weights and --epochs exclude each other: given weights are not trained")

    @property
    def recoveries(self) -> tuple[str, ...]:
        """What ``recover`` names; raises BadRequest where there is none of that name."""
        if self.recover == "none":
            return ()
        if self.recover == "auto":
            return AUTO

        names = tuple(self.recover.split(","))
        for name in names:
            if name not in RECOVERIES:
                some = ", ".join(RECOVERIES)
                raise BadRequest(
                    f"--recover {self.recover}: there is no {name!r}; take none, auto, or with commas some of {some}"
                )
        return names

    @property
    def profiles(self) -> list[tuple[int, int, int]] | None:
        """Batches (smallest, best, largest) of each profile, None where nobody said.

        Raises BadRequest where there is none between.
        """
        given = [batches for batches in (self.min_batch, self.opt_batch, self.max_batch) if batches is not None]
        if not given:
            return None
        count = max(len(batches) for batches in given)
        if any(len(batches) != count for batches in given):
            raise BadRequest("--min-batch, --opt-batch and --max-batch take as many numbers as there are profiles")

        # A default gives way where a number that was given lies beyond it.
        smallest = self.min_batch or [1] * count
        largest = self.max_batch
        if not largest:
            beneath = zip(smallest, self.opt_batch or smallest, strict=True)
            largest = [max(16, low, best) for low, best in beneath]
        best = self.opt_batch or [min(max(8, low), high) for low, high in zip(smallest, largest, strict=True)]

        profiles = list(zip(smallest, best, largest, strict=True))
        for low, good, high in profiles:
            if not low <= good <= high:
                raise BadRequest(f"--min-batch {low} --opt-batch {good} --max-batch {high}: they must not fall")
        return profiles

    def _refuse_unknown_words(self) -> None:
        """Raise BadRequest where a knob has a value that the command line would not take, as Python can give it."""
        for knob in fields(self):
            value = getattr(self, knob.name)
            choices = PRECISIONS if knob.name == "precision" else knob.metadata.get("choices")
            if value is not None and choices is not None and value not in choices:
                raise BadRequest(f"{flag(knob.name)} {value} is none of {', '.join(map(str, choices))}")

    def _refuse_normalisation(self) -> None:
        for name in ("mean", "std"):
            values = _numbers(name, getattr(self, name))
            if values is None:
                continue
            # Python can give one number, a tuple or numpy's.
            object.__setattr__(self, name, values)
            if len(values) not in (1, 3):
                raise BadRequest(f"--{name} takes one value or one per channel (1 or 3), not {len(values)}")
            for value in values:
                if not math.isfinite(value):
                    raise BadRequest(f"--{name} {value:g} is no number that pixels can be normalised by; {UNITS}")
                if value > LARGEST[name]:
                    raise BadRequest(f"--{name} {value:g} is above {LARGEST[name]:g}; {UNITS}, so divide yours by 255")

        if self.mean is not None and min(self.mean) < 0:
            raise BadRequest(
                f"--mean {min(self.mean):g} is below 0: it takes numbers from 0 to 1, which are subtracted from the "
                "pixels; give it without its sign"
            )
        if self.std is not None and min(self.std) <= 0:
            raise BadRequest(f"--std must be above 0, not {min(self.std):g}: pixels are divided by it")

    def _refuse_for_precision(self, row: Precision) -> None:
        """Raise BadRequest where a flag does not go with the precision."""
        if self.calib_cache is not None and not row.calib_cache:
            those = _formats_where(lambda other: other.calib_cache)
            raise BadRequest(f"--calib-cache goes with --precision {those}, not with --precision {self.precision}")
        if self.placement not in row.placements:
            those = " or ".join(name for name, other in PRECISIONS.items() if self.placement in other.placements)
            raise BadRequest(f"--placement {self.placement} goes with --precision {those}, not {self.precision}")
        if self.calib_cache is not None and self.calib_cache.is_dir():
            raise BadRequest(f"--calib-cache {self.calib_cache} is a folder; name a file")
        if "qat" in self.recoveries and "qat" not in row.stages:
            those = _formats_where(lambda other: "qat" in other.stages)
            raise BadRequest(f"--recover {self.recover}: qat goes with --precision {those}, not {self.precision}")


def _numbers(name: str, given: Any) -> list[float] | None:
    """``given`` as a list of Python's floats; raises BadRequest where it is no number, and no list of some."""
    if given is None:
        return None
    values = [given] if isinstance(given, Real) else given
    if not isinstance(values, Sequence) or not all(isinstance(value, Real) for value in values):
        raise BadRequest(f"--{name} takes one number or a list of them, as in [0.485, 0.456, 0.406], not {given!r}")
    return [float(value) for value in values]


def _default_placement(target: str | None, row: Precision) -> str:
    """On the CPU the rules of what runs there, where the precision can follow them."""
    if target == "cpu" and "onnxruntime" in row.placements:
        return "onnxruntime"
    return "tensorrt"


def _formats_where(holds: Callable[[Precision], bool]) -> str:
    """``int8…`` for the precisions of INT8: the number formats of those of which ``holds``."""
    formats = dict.fromkeys(str(row.number_format) for row in PRECISIONS.values() if holds(row))
    return " or ".join(f"{number_format}…" for number_format in formats)


NAMES = tuple(knob.name for knob in fields(Recipe))


def flag(knob: str) -> str:
    """``--max-batch`` for ``max_batch``."""
    return f"--{knob.replace('_', '-')}"


# Knobs that say nothing by themselves, and the one that each goes with.
NEEDS = {
    "error_on_timing_cache_miss": "timing_cache",
    "no_gpu_fallback": "dla_core",
    "max_crossed": "threshold",
}
# What a finished build can be judged by again, whatever it was asked for.
MARGINS = ("max_drop", "confidence", "max_class_drop", "threshold", "max_crossed")


def refuse_margins(
    max_drop: float | None = None,
    confidence: float | None = None,
    max_class_drop: float | None = None,
    threshold: float | None = None,
    max_crossed: float | None = None,
) -> None:
    """Raise BadRequest where a margin, the confidence or the threshold is no such share."""
    if confidence is not None and not 0.5 <= confidence < 1:
        raise BadRequest(f"--confidence {confidence:g} must be at least 0.5 and below 1")
    shares = {
        "max_drop": (max_drop, "0.01 is one point"),
        "max_class_drop": (max_class_drop, "0.05 is five points"),
        "threshold": (threshold, "a softmax that you act on, as in 0.9"),
        "max_crossed": (max_crossed, "0.02 is one image in fifty"),
    }
    for name, (value, example) in shares.items():
        if value is not None and not 0 < value < 1:
            raise BadRequest(f"{flag(name)} {value:g} is no share between 0 and 1; {example}")


def add_flags(parser: argparse.ArgumentParser, tables: Mapping[str, Iterable[str]], knobs: Any = Recipe) -> None:
    """One flag per field of ``knobs``; ``tables`` has the choices that are rows of a table elsewhere."""
    section: argparse._ActionsContainer = parser
    for knob in fields(knobs):
        options = dict(knob.metadata)
        title = options.pop("group", None)
        if title is not None:
            section = parser.add_argument_group(title)
        if knob.name in tables:
            options["choices"] = tuple(tables[knob.name])

        flags = [flag(knob.name)]
        short = options.pop("short", None)
        if short is not None:
            flags.insert(0, short)
        # Where the default is None the help says in words what it is, and False is a flag left out.
        if knob.default not in (None, False):
            options["help"] += f" (default: {knob.default})"
        section.add_argument(*flags, dest=knob.name, default=knob.default, **options)


def from_arguments(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the command line asked for."""
    return Recipe(**{name: getattr(arguments, name) for name in NAMES})
