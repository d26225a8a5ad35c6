"""A TensorRT that computes nothing and has the classes, attributes and enums of one version's binding wheel, no more.

data/tensorrt_api.json was read from the wheels tensorrt-bindings 8.6.1, tensorrt-cu12-bindings 10.3.0, 10.7.0,
10.13.3.9 and 10.16.1.11, tensorrt-cu13-bindings 11.4.0.106 and tensorrt-rtx 1.7.1, imported on 2026-11-21.
"""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

SURFACES: dict[str, dict[str, dict[str, int | None]]] = json.loads(
    (Path(__file__).parent / "data" / "tensorrt_api.json").read_text()
)


class Strict:
    """An object of one class of one version: ``given`` answers, the rest of its names do nothing, others are errors."""

    def __init__(self, names: dict[str, int | None], **given: Any) -> None:
        object.__setattr__(self, "names", names)
        unknown = given.keys() - names.keys()
        assert not unknown, f"this version has no {unknown}"
        for name, value in given.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in self.names:
            raise AttributeError(name)
        return None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.names:
            raise AttributeError(name)
        object.__setattr__(self, name, value)


def library(version: str, heard: dict[str, Any]) -> types.ModuleType:
    """The module; ``heard`` collects what the builder was told."""
    surface = SURFACES[version]
    rtx = version.startswith("rtx")
    trt: Any = types.ModuleType("tensorrt_rtx" if rtx else "tensorrt")
    trt.__version__ = version.removeprefix("rtx-")
    for name, members in surface.items():
        enum = {member: value for member, value in members.items() if value is not None}
        setattr(trt, name, types.SimpleNamespace(**enum) if "value" in members else type(name, (), {}))

    def make(kind: str, **given: Any) -> Strict:
        return Strict(surface[kind], **given)

    heard |= {"flags": set(), "profiles": [], "workspace": None, "cache": None, "sm": []}
    names = {value: name for name, value in surface["BuilderFlag"].items() if value is not None}

    def builder(_: Any) -> Strict:
        return make(
            "Builder",
            create_network=network,
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: make(
                "IOptimizationProfile", set_shape=lambda *shapes: heard["profiles"].append(shapes)
            ),
            build_serialized_network=lambda *_: b"plan",
        )

    def network(flags: int) -> Strict:
        heard["network"] = flags
        images = make("ITensor", name="images", shape=(-1, 1, 32, 32))
        return make("INetworkDefinition", get_input=lambda _: images)

    def timing(held: bytes) -> Strict:
        heard["cache"] = held
        return make("ITimingCache", serialize=lambda: b"times")

    known = {
        "set_flag": lambda flag: heard["flags"].add(names[flag]),
        "set_memory_pool_limit": lambda pool, size: heard.update(workspace=(pool, size)),
        "create_timing_cache": timing,
        "set_timing_cache": lambda _, *, ignore_mismatch: heard["cache"] != b"foreign" and not ignore_mismatch,
        "set_compute_capability": lambda target, _: heard["sm"].append(target),
        "add_optimization_profile": lambda _: 0,
    }
    config = make("IBuilderConfig", **{name: act for name, act in known.items() if name in surface["IBuilderConfig"]})
    heard["config"] = config
    error = {"desc": lambda: "no such thing", "node": lambda: 3, "node_name": lambda: "/conv1/Conv"}
    errors = make("ParserError", **{name: act for name, act in error.items() if name in surface["ParserError"]})
    trt.Builder = builder
    trt.OnnxParser = lambda *_: make(
        "OnnxParser",
        parse_from_file=lambda _: not heard.get("refuse"),
        num_errors=1,
        get_error=lambda _: errors,
    )
    return trt
