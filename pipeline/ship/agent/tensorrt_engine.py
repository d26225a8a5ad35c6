"""TensorRT as a JetPack brings it, 8.5 to 11: an engine is built here and runs here, and nowhere else.

Enums go by name, since their numbers moved between versions. Never run on a Jetson: the calls are held against the API
of each version's binding wheel (tests/pipeline/ship/test_agent_tensorrt.py).
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional, Tuple

from exporters.portable import tensorrt_build, tensorrt_run

from .errors import Broken

# Beside the engine: bundle create --timing-cache takes it along for devices of the same type.
TIMING_CACHE = "timing.cache"
ERRORS = ("ERROR", "INTERNAL_ERROR")
LAST_MESSAGES = 3


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

    def heard(severity: str, text: str) -> None:
        if severity in ERRORS:
            messages.append(text)

    builder = trt.Builder(tensorrt_build.logger(trt, heard))
    network = builder.create_network(tensorrt_build.network_flags(trt))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(job["model"]):
        errors = tensorrt_build.parser_errors(parser)
        raise Broken(f"TensorRT {trt.__version__} does not read model.onnx: {errors}")

    config = _configured(trt, builder, network, job)
    cache, warnings = _timing_cache(config, job.get("timing_cache"))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = "; ".join(messages[-LAST_MESSAGES:]) or "no reason given"
        raise Broken(f"TensorRT {trt.__version__} built no engine: {reason}")

    _write(job["engine"], bytes(plan))
    folder = os.path.dirname(job["engine"])
    _write(os.path.join(folder, TIMING_CACHE), bytes(cache.serialize()))
    return {"warnings": warnings}


def _configured(trt: Any, builder: Any, network: Any, job: Dict[str, Any]) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace"])
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED

    images = network.get_input(0)
    image_shape = tuple(images.shape)[1:]
    shapes = [(batch, *image_shape) for batch in job["batches"]]
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, *shapes)
    config.add_optimization_profile(profile)

    # Before 10 networks are weakly typed: what types the builder may take beside float32 is said by flags.
    if tensorrt_build.major(trt) < 10:
        if job["weak_flags"] is None:
            raise Broken(f"TensorRT {trt.__version__} does not keep the types of {job['precision']}")
        for flag in job["weak_flags"]:
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = tensorrt_build.progress_monitor(trt)
    return config


def _timing_cache(config: Any, path: Optional[str]) -> Tuple[Any, List[str]]:
    """A timing cache set into ``config``, that of the bundle where this TensorRT takes it, and what is to be told."""
    if path is None:
        return _empty_timing_cache(config), []
    with open(path, "rb") as file:
        content = file.read()
    cache = config.create_timing_cache(content)
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return cache, []
    warning = f"{os.path.basename(path)} is of another GPU or TensorRT: every kernel was timed here"
    return _empty_timing_cache(config), [warning]


def _empty_timing_cache(config: Any) -> Any:
    cache = config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise Broken("TensorRT takes no timing cache at all")
    return cache


def load(job: Dict[str, Any]) -> Callable[[Any], Any]:
    """What answers logits (n, classes) float32 to any number of images (n, C, H, W), in batches of its profile."""
    import tensorrt as trt

    with open(job["engine"], "rb") as file:
        content = file.read()
    loaded = tensorrt_run.load(content)
    if loaded is None:
        raise Broken(f"TensorRT {trt.__version__} does not load the engine that was built here; build it again")

    engine = loaded.engine
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = [engine.get_tensor_mode(name) for name in names]
    images_name = names[modes.index(trt.TensorIOMode.INPUT)]
    logits_name = names[modes.index(trt.TensorIOMode.OUTPUT)]

    # Some versions have no UINT8; then no engine of theirs takes it.
    types = {"float32": trt.DataType.FLOAT, "uint8": getattr(trt.DataType, "UINT8", None)}
    images_fit = engine.get_tensor_dtype(images_name) == types[job["dtype"]]
    logits_fit = engine.get_tensor_dtype(logits_name) == types["float32"]
    if not (images_fit and logits_fit):
        raise Broken(f"the engine does not take {job['dtype']} and answer float32; build it again")

    least, _, most = job["batches"]
    return tensorrt_run.Runner(loaded, images_name, logits_name, (least, most), classes=job["classes"])


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
