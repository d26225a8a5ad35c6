"""The builder that TensorRT 10, TensorRT 11 and TensorRT-RTX share. Runs in a child process: it can crash, and its
logger is one per process.
"""  # noqa: D205

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from exporters import child, onnx_file

# Images per run, smallest, best and largest, of the one profile.
BATCHES = (1, 8, 16)
# Builder messages that matter to whoever answers for the engine; the rest stays in the log.
WORTH_TELLING = re.compile(
    r"unsupported|fallback|falling back|subnormal|missing|not supported|defaulting", re.IGNORECASE
)

EIGHT_BITS = re.compile(r"Datatype: (Int8|FP8)")


def build(package: str, src: Path, dst: Path, *targets: str) -> dict[str, Any]:
    """Build ``src`` with ``package`` (tensorrt or tensorrt_rtx) into ``dst``.

    ``targets`` are members of TensorRT-RTX's ComputeCapability; without any it takes its portable default.

    Returns ``convolutions``, how many of them the builder itself lists with ``int8`` inputs (None where ``src`` has no
    Q/DQ or the builder lists nothing), and its ``warnings``; raises RuntimeError with the builder's own errors.
    """
    answer: dict[str, Any] = child.call("exporters.engines.trt_builder:in_child", package, str(src), str(dst), *targets)
    return answer


def in_child(package: str, src: str, dst: str, *targets: str) -> dict[str, Any]:
    """Parse, build, write; every None and False that the library answers becomes an error with its words."""
    trt = importlib.import_module(package)
    messages: list[tuple[str, str]] = []

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            messages.append((str(severity).rsplit(".", 1)[-1], text))

    # The parser says yes to empty files and text, so what goes in is proven to be a model first.
    model = onnx_file.read(Path(src))
    builder = trt.Builder(Logger())
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(src):
        raise SystemExit(f"the parser refuses {Path(src).name}: {_parser_errors(parser)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if targets:
        config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, target), index)
    profile = builder.create_optimization_profile()
    images = network.get_input(0)
    profile.set_shape(images.name, *((batch, *tuple(images.shape)[1:]) for batch in BATCHES))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit(f"the builder refuses {Path(src).name}: {_errors(messages)}")
    Path(dst).write_bytes(bytes(plan))
    quantised = onnx_file.count(model, "QuantizeLinear") > 0
    return {
        "convolutions": onnx_file.count(model, "Conv"),
        "int8": _int8_convolutions(messages) if quantised else None,
        "warnings": sorted({text for kind, text in messages if kind == "WARNING" and WORTH_TELLING.search(text)}),
    }


def _network_flags(trt: Any) -> int:
    """Strongly typed wherever that is a choice; TensorRT 11 and RTX know nothing else."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    major = 11 if "rtx" in trt.__name__ else int(trt.__version__.split(".")[0])
    return 0 if major >= 11 or flag is None else 1 << int(flag)


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"{error.desc()} (node {error.node_name()})" for error in errors[:3]) or "no reason given"


def _errors(messages: list[tuple[str, str]]) -> str:
    texts = [text for kind, text in messages if kind in {"ERROR", "INTERNAL_ERROR"}]
    return "; ".join(texts[:3]) or "no reason given"


def _int8_convolutions(messages: list[tuple[str, str]]) -> int | None:
    """Convolution layers that read INT8 or FP8, from the list that a detailed build logs; None where it logs none."""
    lists = [text for _, text in messages if text.lstrip().startswith("Layers:")]
    if not lists:
        return None
    layers = [line for line in lists[-1].splitlines() if "LayerType: correlation" in line]
    return sum(bool(EIGHT_BITS.search(line.split("Constants:")[0])) for line in layers)
