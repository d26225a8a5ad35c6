"""The builder that TensorRT 10, TensorRT 11 and TensorRT-RTX share. Runs in a child process: it can crash, and its
logger is one per process.
"""  # noqa: D205

from __future__ import annotations

import importlib
import json
import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx_ir as ir

from exporters import child, onnx_file
from exporters.engines import description, shapes, trt_config, trt_layers
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
    of convolutions in 8 bits is known. Raises RuntimeError with the builder's own errors, or where the engine would
    make other shapes than the graph.
    """
    options = options or {}

    def listen(line: str) -> None:
        step = STEP.fullmatch(line)
        if progress is not None and step is not None:
            progress(step["phase"], int(step["step"]), int(step["steps"]))

    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder) / "shapes.json"
        remarks = _keep_shapes(src, options, expected)
        arguments = [package, str(src), str(dst), json.dumps(options), str(expected)]
        answer: dict[str, Any] = child.call("exporters.engines.trt_builder:in_child", *arguments, heard=listen)
    # JSON has lists only.
    answer["warnings"] = (*answer["warnings"], *remarks)
    return BuiltEngine(**answer)


def _keep_shapes(src: Path, options: Mapping[str, Any], path: Path) -> list[str]:
    """Write what the graph in ``src`` makes of its images, for the child; where nobody can tell, say so."""
    profiles = options.get("profiles") or (trt_config.BATCHES,)
    try:
        graph = shapes.of_graph(src, shapes.batches_of(profiles))
    except ValueError as error:
        return [shapes.not_compared(error)]
    path.write_text(json.dumps(graph.to_json()))
    return []


def in_child(package: str, src: str, dst: str, options_json: str, shapes_path: str = "") -> dict[str, Any]:
    """Parse, build, write; every None and False that the library answers becomes an error with its words.

    In ``shapes_path`` are the graph's shapes (GraphShapes), where they are known. The answer has the fields of
    BuiltEngine, as JSON takes them.
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
    parsed = parser.parse_from_file(src)
    graph = _kept_shapes(shapes_path)
    library = package.replace("_", "-")
    # Asked first: a map that is one row too large is why a parser refuses the layer behind it.
    batches = graph["batches"] if graph else {}
    _refuse_other_shapes(library, graph, {batch: shapes.of_network(network, int(batch)) for batch in batches})
    if not parsed:
        raise SystemExit(f"the parser refuses {Path(src).name}: {_in_one_line(tensorrt_build.parser_errors(parser))}")

    config = trt_config.configure(trt, builder, network, options, _weak_flags(trt, model))
    # TensorRT has it from 10 on.
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = tensorrt_build.progress_monitor(trt)
    cache_path = options.get("timing_cache")
    timing_cache = trt_config.timing_cache(config, Path(cache_path)) if cache_path else None

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit(f"the builder refuses {Path(src).name}: {_errors(messages)}")
    texts = [message.text for message in messages]
    if graph:
        listed_shapes = {batch: shapes.of_list(texts, graph["ends"], int(batch)) for batch in batches}
        _refuse_other_shapes(library, {**graph, "ends": ()}, listed_shapes)
    Path(dst).write_bytes(bytes(plan))
    if timing_cache is not None:
        trt_config.keep(timing_cache, Path(cache_path))

    listed = trt_layers.of_log(texts, model, package)
    quantised = onnx_file.count(model, "QuantizeLinear") > 0
    built = BuiltEngine(
        convolutions=onnx_file.count(model, "Conv"),
        eight_bit_convolutions=description.reading_8_bits(listed) if quantised else None,
        warnings=_warnings(messages),
        description=listed,
    )
    return asdict(built)


def _kept_shapes(path: str) -> dict[str, Any] | None:
    if not path or not Path(path).exists():
        return None
    kept: dict[str, Any] = json.loads(Path(path).read_text())
    return kept


def _refuse_other_shapes(library: str, graph: dict[str, Any] | None, found: dict[str, shapes.Shapes]) -> None:
    difference = shapes.difference(library, graph, found) if graph else ""
    if difference:
        raise SystemExit(difference)


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
    return _in_one_line("; ".join(texts[:FIRST_ERRORS])) or "no reason given"


def _in_one_line(text: str) -> str:
    """Without the lines that tell of CUDA: of what a child says, the last line is told, and here is no GPU."""
    lines = [line for line in text.splitlines() if not line.startswith("[checkMacros")]
    return " ".join(lines)
