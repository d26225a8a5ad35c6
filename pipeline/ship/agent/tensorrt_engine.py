"""TensorRT as a JetPack brings it, 8.5 to 11: an engine is built here and runs here, and nowhere else.

Enums go by name, since their numbers moved between versions. Never run on a Jetson: the calls are held against the API
of each version's binding wheel (tests/pipeline/ship/test_agent_tensorrt.py).
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from . import cuda
from .child import say
from .errors import Broken

FILE = "engine.plan"
# What a weakly typed network (TensorRT 8) needs to keep the types of its graph, as far as it can.
WEAK = {"fp32": (), "fp16": ("FP16",), "int8-trt8": ("INT8", "FP16")}


def version() -> Optional[str]:
    """The version of TensorRT, None where it is not installed or does not load."""
    try:
        import tensorrt
    except Exception:  # noqa: BLE001 - a library for another driver fails as it likes
        return None
    return str(tensorrt.__version__)


def build(job: Dict[str, Any]) -> Dict[str, Any]:
    """Build ``model`` into ``engine`` within ``workspace`` bytes; its warnings, and the timing cache kept beside it."""
    import tensorrt as trt

    messages: List[str] = []
    builder = trt.Builder(_logger(trt, messages))
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(job["model"]):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        said = "; ".join(f"{error.desc()} (node {_node(error)})" for error in errors[:3]) or "no reason given"
        raise Broken(f"TensorRT {trt.__version__} does not read model.onnx: {said}")
    config = _configured(trt, builder, network, job)
    cache, warnings = _timing_cache(config, job.get("timing_cache"))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Broken(f"TensorRT {trt.__version__} built no engine: {'; '.join(messages[-3:]) or 'no reason given'}")
    _write(job["engine"], bytes(plan))
    _write(os.path.join(os.path.dirname(job["engine"]), "timing.cache"), bytes(cache.serialize()))
    return {"warnings": warnings}


def _configured(trt: Any, builder: Any, network: Any, job: Dict[str, Any]) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace"])
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    images = network.get_input(0)
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, *((batch, *tuple(images.shape)[1:]) for batch in job["batches"]))
    config.add_optimization_profile(profile)
    if _major(trt) < 10:
        for flag in WEAK[job["precision"]]:
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt)
    return config


def _timing_cache(config: Any, path: Optional[str]) -> Any:
    """A timing cache set into ``config``, that of the bundle where this TensorRT takes it, and what is to be told."""
    held = b""
    if path is not None:
        with open(path, "rb") as file:
            held = file.read()
    cache = config.create_timing_cache(held)
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return cache, []
    if not held:
        raise Broken("TensorRT takes no timing cache at all")
    fresh, _ = _timing_cache(config, None)
    return fresh, [f"{os.path.basename(path or '')} is of another GPU or TensorRT: every kernel was timed here"]


def load(job: Dict[str, Any]) -> Callable[[Any], Any]:
    """What answers logits (n, classes) float32 to any number of images (n, C, H, W), in batches of its profile."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    with open(job["engine"], "rb") as file:
        content = file.read()
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise Broken(f"TensorRT {trt.__version__} does not load the engine that was built here; build it again")
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = [engine.get_tensor_mode(name) for name in names]
    source = names[modes.index(trt.TensorIOMode.INPUT)]
    answer = names[modes.index(trt.TensorIOMode.OUTPUT)]
    least, _, most = job["batches"]
    types = {"float32": trt.DataType.FLOAT, "uint8": getattr(trt.DataType, "UINT8", None)}
    if (engine.get_tensor_dtype(source), engine.get_tensor_dtype(answer)) != (types[job["dtype"]], types["float32"]):
        raise Broken(f"the engine does not take {job['dtype']} and answer float32; build it again")

    def run(images: Any) -> Any:
        found = []
        for start in range(0, len(images), most):
            batch = images[start : start + most]
            short = max(0, least - len(batch))
            padded = np.concatenate([batch, np.repeat(batch[-1:], short, axis=0)]) if short else batch
            found.append(_once(context, source, answer, np.ascontiguousarray(padded), job["classes"])[: len(batch)])
        return np.concatenate(found)

    run.kept = (runtime, logger)  # type: ignore[attr-defined]
    return run


def _once(context: Any, source: str, answer: str, images: Any, classes: int) -> Any:
    if not context.set_input_shape(source, tuple(images.shape)):
        raise Broken(f"the engine does not take images of the shape {images.shape}")
    logits = np.empty((len(images), classes), np.float32)
    if tuple(context.get_tensor_shape(answer)) != logits.shape:
        raise Broken(f"the engine answers {tuple(context.get_tensor_shape(answer))}, not {logits.shape}")
    with cuda.stream() as stream, cuda.buffer(images.nbytes) as pixels, cuda.buffer(logits.nbytes) as out:
        cuda.to_device(pixels, images)
        context.set_tensor_address(source, pixels.value)
        context.set_tensor_address(answer, out.value)
        if not context.execute_async_v3(stream.value or 0):
            raise Broken("the engine failed to run")
        cuda.wait(stream)
        cuda.to_host(logits, out)
    return logits


def _major(trt: Any) -> int:
    return int(trt.__version__.split(".")[0])


def _network_flags(trt: Any) -> int:
    """Strongly typed and with an explicit batch wherever that is a choice."""
    if _major(trt) >= 11:
        return 0
    name = "EXPLICIT_BATCH" if _major(trt) < 10 else "STRONGLY_TYPED"
    return 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))


def _logger(trt: Any, messages: List[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if str(severity).rsplit(".", 1)[-1] in ("ERROR", "INTERNAL_ERROR"):
                messages.append(text)

    return Logger()


def _monitor(trt: Any) -> Any:
    steps: Dict[str, int] = {}

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, _parent: Optional[str], count: int) -> None:
            steps[phase] = count

        def step_complete(self, phase: str, step: int) -> bool:
            say(f"{phase} {step + 1}/{steps.get(phase, 0)}")
            return True

        def phase_finish(self, phase: str) -> None:
            steps.pop(phase, None)

    return Monitor()


def _node(error: Any) -> Any:
    """The name of the node, which TensorRT 8 gives as a number only."""
    return error.node_name() if hasattr(error, "node_name") else error.node()


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
