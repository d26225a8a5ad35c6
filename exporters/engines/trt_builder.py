"""The builder that TensorRT 10, TensorRT 11 and TensorRT-RTX share. Runs in a child process: it can crash, and its
logger is one per process.
"""  # noqa: D205

from __future__ import annotations

import importlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx_ir as ir

from exporters import child, onnx_file
from exporters.engines import description, trt_config, trt_layers
from exporters.engines.backend import BuiltEngine
from exporters.portable import child_process, tensorrt_build

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporters.engines.backend import Progress

# Builder messages that matter to whoever answers for the engine; the rest stays in the log.
WORTH_TELLING = re.compile(
    r"unsupported|fallback|falling back|subnormal|missing|not supported|defaulting", re.IGNORECASE
)
# What says where the builder is: said aloud, so that a crash can be told with it.
WHERE = re.compile(r"^(Parsing node: |-+ Timing Runner: |\*+ Autotuning )")
LONGEST_WHERE = 200
STEP = re.compile(r"(?P<phase>.+) (?P<step>\d+)/(?P<steps>\d+)")
# Of the builder's errors: the first ones name the cause.
FIRST_ERRORS = 3


class Message(NamedTuple):
    """What the library logged: the name of its severity, as in WARNING, and the text."""

    severity: str
    text: str


def build(
    package: str,
    src: Path,
    dst: Path,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> BuiltEngine:
    """Build ``src`` with ``package`` (tensorrt or tensorrt_rtx) into ``dst``; ``options`` as in trt_config.

    The description is what the builder itself lists. Where ``src`` has no Q/DQ or the builder lists nothing, no count
    of convolutions in 8 bits is known. Raises RuntimeError with the builder's own errors.
    """

    def listen(line: str) -> None:
        step = STEP.fullmatch(line)
        if progress is not None and step is not None:
            progress(step["phase"], int(step["step"]), int(step["steps"]))

    answer: dict[str, Any] = child.call(
        "exporters.engines.trt_builder:in_child", package, str(src), str(dst), json.dumps(options or {}), heard=listen
    )
    # JSON has lists only.
    answer["warnings"] = tuple(answer["warnings"])
    return BuiltEngine(**answer)


def in_child(package: str, src: str, dst: str, options_json: str) -> dict[str, Any]:
    """Parse, build, write; every None and False that the library answers becomes an error with its words.

    The fields of BuiltEngine, as JSON takes them.
    """
    trt = importlib.import_module(package)
    options = json.loads(options_json)
    # The parser says yes to empty files and text, so what goes in is proven to be a model first.
    model = onnx_file.read(Path(src))

    messages: list[Message] = []

    def hear(severity: str, text: str) -> None:
        messages.append(Message(severity, text))
        if WHERE.match(text):
            child_process.say(text[:LONGEST_WHERE])

    builder = trt.Builder(tensorrt_build.logger(trt, hear))
    network = builder.create_network(tensorrt_build.network_flags(trt))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(src):
        raise SystemExit(f"the parser refuses {Path(src).name}: {tensorrt_build.parser_errors(parser)}")

    config = trt_config.configure(trt, builder, network, options, _weak_flags(trt, model))
    # TensorRT has it from 10 on.
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = tensorrt_build.progress_monitor(trt)
    cache_path = options.get("timing_cache")
    timing_cache = trt_config.timing_cache(config, Path(cache_path)) if cache_path else None

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit(f"the builder refuses {Path(src).name}: {_errors(messages)}")
    Path(dst).write_bytes(bytes(plan))
    if timing_cache is not None:
        trt_config.keep(timing_cache, Path(cache_path))

    listed = trt_layers.of_log([message.text for message in messages], model, package)
    quantised = onnx_file.count(model, "QuantizeLinear") > 0
    built = BuiltEngine(
        convolutions=onnx_file.count(model, "Conv"),
        eight_bit_convolutions=description.reading_8_bits(listed) if quantised else None,
        warnings=_warnings(messages),
        description=listed,
    )
    return asdict(built)


def _weak_flags(trt: Any, model: ir.Model) -> list[str]:
    """The builder's flags for the types in ``model``, by name; none where the network keeps the types of the file.

    Strong typing is a choice in TensorRT 10, taken wherever there is one; 11 and RTX know nothing else, 8 knows it not.
    """
    if tensorrt_build.major(trt) >= 10:
        return []
    flags = []
    if any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values()):
        flags.append("FP16")
    if onnx_file.count(model, "QuantizeLinear"):
        flags.append("INT8")
    return flags


def _warnings(messages: Sequence[Message]) -> tuple[str, ...]:
    """Each warning that matters, once."""
    texts = set()
    for message in messages:
        if message.severity == "WARNING" and WORTH_TELLING.search(message.text):
            texts.add(message.text)
    return tuple(sorted(texts))


def _errors(messages: Sequence[Message]) -> str:
    """The first errors, in one line."""
    texts = [message.text for message in messages if message.severity in {"ERROR", "INTERNAL_ERROR"}]
    return "; ".join(texts[:FIRST_ERRORS]) or "no reason given"
