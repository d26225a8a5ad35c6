"""Whether a bundle can become an engine on this device, from the dated data that travels in the bundle."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from .errors import Refused

if TYPE_CHECKING:
    from .device_facts import Facts

Version = Tuple[int, ...]
# What is said, from the best to the worst: the worst answer is the verdict.
ORDER = ("go", "rebuild", "unknown", "refuse")
OLDEST, NEWEST = (8, 5), (11, 99)
STRONG = ("int8-fp16", "fp8")
UNITS = {"int8-trt8": "int8"}
ENGINES = ("tensorrt", "onnxruntime")
LEAST_MEMORY = 400 * 2**20
SKEW = 86400  # seconds by which two honest clocks may differ


@dataclass(frozen=True)
class Answer:
    """One of ORDER, and a sentence."""

    verdict: str
    sentence: str


@dataclass(frozen=True)
class Question:
    """A bundle on a device; ``size`` is that of the bundle, ``free`` that of the disk, in bytes."""

    facts: Facts
    manifest: Dict[str, Any]
    data: Dict[str, Any]
    engine: str
    size: int
    free: int
    active: Optional[Dict[str, Any]] = None  # the device that the engine in use was built for

    @property
    def model(self) -> Dict[str, Any]:
        """The part of the manifest about the network."""
        return dict(self.manifest["model"])


def chosen(asked: str, manifest: Dict[str, Any], facts: Facts) -> str:
    """The engine that is built; never another than the one asked for, or than the target wants."""
    if asked != "auto":
        return asked
    target = manifest["model"]["target"]
    if target in (None, "cpu") and (target == "cpu" or facts.tensorrt is None or facts.sm is None):
        return "onnxruntime"
    return "tensorrt"


def ask(question: Question) -> List[Answer]:
    """The answers of every rule that has one."""
    rules = TENSORRT if question.engine == "tensorrt" else ONNXRUNTIME
    return [answer for rule in (*rules, *ALWAYS) for answer in [rule(question)] if answer is not None]


def worst(answers: List[Answer]) -> str:
    """The verdict over all."""
    return max((answer.verdict for answer in answers), key=ORDER.index)


def refuse(answers: List[Answer]) -> None:
    """Raise Refused with every reason, unless all is well."""
    bad = [answer.sentence for answer in answers if answer.verdict in ("unknown", "refuse")]
    if bad:
        raise Refused("; ".join(bad))


def expired(manifest: Dict[str, Any], now: float, floor: int) -> Optional[Answer]:
    """Whether the bundle may still be used; ``floor`` is the latest release that this device has seen.

    A clock without a battery says 1970, and then it proves nothing.
    """
    ends, released = manifest["expires"], manifest["released"]
    if ends is None:
        return None
    if max(now, floor) > ends:
        return Answer("refuse", f"the bundle expired at {ends} (seconds since 1970); get a newer one")
    if now < max(floor, released) - SKEW:
        return Answer(
            "refuse",
            f"the clock here says {int(now)}, before the bundle was released ({released}), so nobody knows whether it "
            "has expired; set the clock",
        )
    return None


def _device(question: Question) -> Optional[Answer]:
    target, facts = question.model["target"], question.facts
    if target is None or not target.startswith("jetson"):
        return None
    wanted = target.partition("@")[0]
    here = facts.module or facts.model or "no Jetson that is known"
    if facts.module != wanted:
        return Answer("refuse", f"the bundle is for {wanted}, and this is {here} ({facts.machine}); get the one for it")
    if facts.machine != "aarch64":
        return Answer("refuse", f"the bundle is for aarch64, this runs {facts.machine}")
    known = _cell(question.data["module"].get(wanted, {}), "sm")
    if facts.sm is not None and known is not None and facts.sm != known:
        return Answer("refuse", f"{wanted} has SM {known}, the driver here says {facts.sm}; mend the driver")
    return Answer("go", f"{here}, SM {facts.sm}")


def _tensorrt(question: Question) -> Answer:
    facts = question.facts
    if facts.tensorrt is None:
        return Answer("refuse", "there is no TensorRT for this Python; install python3-libnvinfer of the JetPack")
    if facts.sm is None:
        return Answer("refuse", "TensorRT is here, and no GPU with a working driver; mend the driver")
    found = _version(facts.tensorrt)
    if found < OLDEST:
        return Answer("refuse", f"TensorRT {facts.tensorrt} is too old: 8.5 or newer is needed, as in JetPack 5.1")
    if found > NEWEST:
        return Answer("refuse", f"TensorRT {facts.tensorrt} is newer than any that this agent knows; update the agent")
    return Answer("go", f"TensorRT {facts.tensorrt}")


def _jetpack(question: Question) -> Optional[Answer]:
    """Whether this TensorRT is known to be good, or bad, on the JetPack that is here."""
    facts = question.facts
    if facts.l4t is None or facts.tensorrt is None:
        return None
    release = _release(question.data, _version(facts.l4t))
    if release is None:
        return Answer("unknown", f"nothing is known of L4T {facts.l4t}; --allow-unknown goes on without")
    shipped, here = _cell(question.data["jetpack"][release], "tensorrt"), _version(facts.tensorrt)
    if shipped is not None and _version(shipped) == here[: len(_version(shipped))]:
        return Answer("go", f"JetPack {release} brings TensorRT {shipped}")
    for row in question.data["combination"]:
        first, last = map(_version, row["tensorrt"])
        oldest, newest = map(_version, row["jetpack"])
        named = facts.module in row.get("modules", [facts.module])
        # 11.4.0.5 is a build of 11.4.0.
        within = first <= here and here[: len(last)] <= last
        if named and within and oldest <= _version(release) <= newest:
            return Answer("go" if row["answer"] == "go" else "refuse", row["why"])
    said = f"nothing is known of TensorRT {facts.tensorrt} on JetPack {release}"
    return Answer("unknown", f"{said}; --allow-unknown goes on without")


def _types(question: Question) -> Optional[Answer]:
    """Whether this TensorRT reads the graph and keeps its types."""
    facts, precision, opset = question.facts, question.model["precision"], question.model["opset"]
    if facts.tensorrt is None:
        return None
    rows = [row for row in question.data["tensorrt"] if _version(row["since"]) <= _version(facts.tensorrt)]
    if not rows:
        return None
    cure = "get the bundle that was built with --target for this device"
    if _cell(rows[-1], "typing") == "weak" and precision in (*STRONG, "int8"):
        return Answer("refuse", f"TensorRT {facts.tensorrt} does not keep the types of {precision}; {cure}")
    if opset > _cell(rows[-1], "opset"):
        said = f"TensorRT {facts.tensorrt} reads opset {_cell(rows[-1], 'opset')}, the graph has {opset}"
        return Answer("refuse", f"{said}; {cure}")
    return Answer("go", f"TensorRT {facts.tensorrt} reads {precision} in opset {opset}")


def _units(question: Question) -> Optional[Answer]:
    module, precision = question.facts.module, question.model["precision"]
    can = _cell(question.data["module"].get(module, {}), "precisions")
    if can is None or UNITS.get(precision, precision) in can:
        return None
    return Answer(
        "refuse", f"{module} computes in {', '.join(can)}, not in {precision}; get the bundle in one of these"
    )


def _onnxruntime(question: Question) -> Answer:
    if question.facts.onnxruntime is None:
        return Answer("refuse", "onnxruntime is not installed for this Python; install it, or take --engine tensorrt")
    if question.model["precision"] == "fp8":
        return Answer("refuse", "ONNX Runtime does not compute in fp8; take --engine tensorrt")
    return Answer("go", f"ONNX Runtime {question.facts.onnxruntime} on the CPU")


def _memory(question: Question) -> Answer:
    needed, there = LEAST_MEMORY + 3 * question.size, question.facts.available
    if there < needed:
        return Answer(
            "refuse", f"{there >> 20} MiB of memory are free, about {needed >> 20} are needed; stop something"
        )
    return Answer("go", f"{there >> 20} of {question.facts.memory >> 20} MiB of memory are free")


def _disk(question: Question) -> Answer:
    needed = 3 * question.size + 2**24
    if question.free < needed:
        free = f"{question.free >> 20} MiB of the disk are free"
        return Answer("refuse", f"{free}, {needed >> 20} are needed; gc makes room")
    return Answer("go", f"{question.free >> 20} MiB of the disk are free")


def _clocks(question: Question) -> Optional[Answer]:
    facts = question.facts
    if facts.power_mode is None and facts.gpu_clocks is None:
        return None
    clocks = ", ".join(f"{hertz / 1e6:.0f}" for hertz in facts.gpu_clocks or ())
    return Answer("go", f"power mode {facts.power_mode}; GPU at least, now, at most: {clocks or 'unknown'} MHz")


def _in_use(question: Question) -> Optional[Answer]:
    here = question.facts.device(question.engine)
    if question.active is None or question.active == here:
        return None
    changed = [name for name in sorted(here) if question.active.get(name) != here[name]]
    return Answer("rebuild", f"the engine in use was built with another {', '.join(changed)}: build the bundle again")


Rule = Callable[[Question], Optional[Answer]]
TENSORRT: Tuple[Rule, ...] = (_device, _tensorrt, _jetpack, _types, _units)
ONNXRUNTIME: Tuple[Rule, ...] = (_onnxruntime,)
ALWAYS: Tuple[Rule, ...] = (_memory, _disk, _clocks, _in_use)


def _cell(row: Dict[str, Any], name: str) -> Any:
    return row[name][0] if name in row else None


def _version(text: str) -> Version:
    """The numbers at the head of a version, as in 10.3.0 or 10.3.0.post1."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else (0,)


def _release(data: Dict[str, Any], l4t: Version) -> Optional[str]:
    """The JetPack whose L4T is between the first and the last that it came with."""
    for name, row in data["jetpack"].items():
        first, _, last = (_cell(row, "l4t") or "").partition(" to ")
        if first and _version(first) <= l4t <= _version(last or first):
            return str(name)
    return None
