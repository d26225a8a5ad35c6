"""The builder that TensorRT 10, TensorRT 11 and TensorRT-RTX share. Runs in a child process: it can crash, and its
logger is one per process.
"""  # noqa: D205

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from exporters import child, onnx_file
from exporters.engines import description, trt_config, trt_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Builder messages that matter to whoever answers for the engine; the rest stays in the log.
WORTH_TELLING = re.compile(
    r"unsupported|fallback|falling back|subnormal|missing|not supported|defaulting", re.IGNORECASE
)
# What says where the builder is: said aloud, so that a crash can be told with it.
WHERE = re.compile(r"^(Parsing node: |-+ Timing Runner: |\*+ Autotuning )")
STEP = re.compile(r"(?P<phase>.+) (?P<step>\d+)/(?P<steps>\d+)")


def build(
    package: str,
    src: Path,
    dst: Path,
    options: Mapping[str, Any] | None = None,
    heard: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Build ``src`` with ``package`` (tensorrt or tensorrt_rtx) into ``dst``; ``options`` as in trt_config.

    ``heard`` gets each phase of the builder, its step and its steps. Returns ``convolutions``, how many of them the
    builder itself lists with ``int8`` inputs (None where ``src`` has no Q/DQ or the builder lists nothing), and its
    ``warnings``; raises RuntimeError with the builder's own errors.
    """

    def said(line: str) -> None:
        if heard is not None and (step := STEP.fullmatch(line)):
            heard(step["phase"], int(step["step"]), int(step["steps"]))

    answer: dict[str, Any] = child.call(
        "exporters.engines.trt_builder:in_child", package, str(src), str(dst), json.dumps(options or {}), heard=said
    )
    return answer


def in_child(package: str, src: str, dst: str, asked: str) -> dict[str, Any]:
    """Parse, build, write; every None and False that the library answers becomes an error with its words."""
    trt, options = importlib.import_module(package), json.loads(asked)
    messages: list[tuple[str, str]] = []
    # The parser says yes to empty files and text, so what goes in is proven to be a model first.
    model = onnx_file.read(Path(src))
    quantised = onnx_file.count(model, "QuantizeLinear") > 0
    builder = trt.Builder(_logger(trt, messages))
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(src):
        raise SystemExit(f"the parser refuses {Path(src).name}: {_parser_errors(parser)}")
    half = any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values())
    weak = () if _strong(trt) else tuple(flag for flag, there in (("FP16", half), ("INT8", quantised)) if there)
    config = trt_config.configure(trt, builder, network, options, weak)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt)
    path = options.get("timing_cache")
    cache = trt_config.timing_cache(config, Path(path)) if path else None
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit(f"the builder refuses {Path(src).name}: {_errors(messages)}")
    Path(dst).write_bytes(bytes(plan))
    if cache is not None:
        trt_config.keep(cache, Path(path))
    listed = trt_layers.of_log(messages, model, package)
    return {
        "convolutions": onnx_file.count(model, "Conv"),
        "int8": description.reading_8_bits(listed) if quantised else None,
        "description": listed,
        "warnings": sorted({text for kind, text in messages if kind == "WARNING" and WORTH_TELLING.search(text)}),
    }


def _logger(trt: Any, messages: list[tuple[str, str]]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            messages.append((str(severity).rsplit(".", 1)[-1], text))
            if WHERE.match(text):
                _say(text[:200])

    return Logger()


def _monitor(trt: Any) -> Any:
    steps: dict[str, int] = {}

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, _parent: str | None, count: int) -> None:
            steps[phase] = count

        def step_complete(self, phase: str, step: int) -> bool:
            _say(f"{phase} {step + 1}/{steps.get(phase, 0)}")
            return True

        def phase_finish(self, phase: str) -> None:
            steps.pop(phase, None)

    return Monitor()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _strong(trt: Any) -> bool:
    """Whether networks keep the types of the file: TensorRT 11 and RTX know nothing else, 8 knows it not."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _network_flags(trt: Any) -> int:
    """Strongly typed and with an explicit batch wherever that is a choice."""
    flags = trt.NetworkDefinitionCreationFlag
    major = 11 if "rtx" in trt.__name__ else int(trt.__version__.split(".")[0])
    name = "EXPLICIT_BATCH" if major < 10 else "STRONGLY_TYPED"
    return 0 if major >= 11 else 1 << int(getattr(flags, name))


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"{error.desc()} (node {_node(error)})" for error in errors[:3]) or "no reason given"


def _node(error: Any) -> Any:
    """The name of the node, which TensorRT 8 gives as a number only."""
    return error.node_name() if hasattr(error, "node_name") else error.node()


def _errors(messages: list[tuple[str, str]]) -> str:
    texts = [text for kind, text in messages if kind in {"ERROR", "INTERNAL_ERROR"}]
    return "; ".join(texts[:3]) or "no reason given"
