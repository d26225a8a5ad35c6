"""Whether a bundle can become an engine on this device, from the dated data that travels in the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from exporters.portable import device_rules, onnxruntime_session

from .errors import Refused

if TYPE_CHECKING:
    from exporters.portable.device_rules import Version

    from .device_facts import Facts

# What is said, from the best to the worst: the worst answer is the verdict.
ORDER = ("go", "rebuild", "unknown", "refuse")
OLDEST, NEWEST = (8, 5), (11, 99)
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


def chosen(engine: str, manifest: Dict[str, Any], facts: Facts) -> str:
    """The engine that is built; never another than the one asked for, or than the target wants.

    ``engine`` is the one asked for, or auto.
    """
    if engine != "auto":
        return engine
    target = manifest["model"]["target"]
    # Without a target the bundle is for any machine, and TensorRT is taken where it can run.
    if target == "cpu":
        return "onnxruntime"
    if target is None and (facts.tensorrt is None or facts.sm is None):
        return "onnxruntime"
    return "tensorrt"


def ask(question: Question) -> List[Answer]:
    """The answers of every rule that has one."""
    rules = TENSORRT if question.engine == "tensorrt" else ONNXRUNTIME
    answers = []
    for rule in (*rules, *ALWAYS):
        answer = rule(question)
        if answer is not None:
            answers.append(answer)
    return answers


def worst(answers: List[Answer]) -> str:
    """The verdict over all."""
    return max((answer.verdict for answer in answers), key=ORDER.index)


def refuse(answers: List[Answer]) -> None:
    """Raise Refused with every reason, unless all is well."""
    reasons = [answer.sentence for answer in answers if answer.verdict in ("unknown", "refuse")]
    if reasons:
        raise Refused("; ".join(reasons))


def expired(manifest: Dict[str, Any], now: float, floor: int) -> Optional[Answer]:
    """Whether the bundle may still be used; ``floor`` is the latest release that this device has seen.

    A clock without a battery says 1970, and then it proves nothing.
    """
    expires = manifest["expires"]
    released = manifest["released"]
    if expires is None:
        return None
    if max(now, floor) > expires:
        return Answer("refuse", f"the bundle expired at {expires} (seconds since 1970); get a newer one")
    if now < max(floor, released) - SKEW:
        return Answer(
            "refuse",
            f"the clock here says {int(now)}, before the bundle was released ({released}), so nobody knows whether it "
            "has expired; set the clock",
        )
    return None


def _device(question: Question) -> Optional[Answer]:
    """Whether this is the Jetson that the bundle is for."""
    target = question.model["target"]
    facts = question.facts
    if target is None or not target.startswith("jetson"):
        return None
    wanted = target.partition("@")[0]
    here = facts.module or facts.model or "no Jetson that is known"
    if facts.module != wanted:
        return Answer("refuse", f"the bundle is for {wanted}, and this is {here} ({facts.machine}); get the one for it")
    if facts.machine != "aarch64":
        return Answer("refuse", f"the bundle is for aarch64, this runs {facts.machine}")
    # Where either side does not know the SM, nothing contradicts it.
    known_sm = device_rules.cell(question.data["module"].get(wanted, {}), "sm")
    if facts.sm is not None and known_sm is not None and facts.sm != known_sm:
        return Answer("refuse", f"{wanted} has SM {known_sm}, the driver here says {facts.sm}; mend the driver")
    return Answer("go", f"{here}, SM {facts.sm}")


def _tensorrt(question: Question) -> Answer:
    """Whether there is a TensorRT that this agent can drive."""
    facts = question.facts
    if facts.tensorrt is None:
        return Answer("refuse", "there is no TensorRT for this Python; install python3-libnvinfer of the JetPack")
    if facts.sm is None:
        return Answer("refuse", "TensorRT is here, and no GPU with a working driver; mend the driver")
    tensorrt = device_rules.version(facts.tensorrt)
    if tensorrt < OLDEST:
        return Answer("refuse", f"TensorRT {facts.tensorrt} is too old: 8.5 or newer is needed, as in JetPack 5.1")
    if tensorrt > NEWEST:
        return Answer("refuse", f"TensorRT {facts.tensorrt} is newer than any that this agent knows; update the agent")
    return Answer("go", f"TensorRT {facts.tensorrt}")


def _jetpack(question: Question) -> Optional[Answer]:
    """Whether this TensorRT is known to be good, or bad, on the JetPack that is here."""
    facts = question.facts
    if facts.l4t is None or facts.tensorrt is None:
        return None
    release = _release(question.data, device_rules.version(facts.l4t))
    if release is None:
        return Answer("unknown", f"nothing is known of L4T {facts.l4t}; --allow-unknown goes on without")

    tensorrt = device_rules.version(facts.tensorrt)
    shipped = device_rules.cell(question.data["jetpack"][release], "tensorrt")
    # The package here has a number more, as in 8.5.2.2.
    if shipped is not None and device_rules.is_build_of(tensorrt, device_rules.version(shipped)):
        return Answer("go", f"JetPack {release} brings TensorRT {shipped}")

    known = device_rules.combination(question.data, facts.module, device_rules.version(release), tensorrt)
    if known is None:
        sentence = f"nothing is known of TensorRT {facts.tensorrt} on JetPack {release}"
        return Answer("unknown", f"{sentence}; --allow-unknown goes on without")
    if known["answer"] == "go":
        return Answer("go", known["why"])
    return Answer("refuse", known["why"])


def _types(question: Question) -> Optional[Answer]:
    """Whether this TensorRT reads the graph and keeps its types."""
    tensorrt = question.facts.tensorrt
    precision = question.model["precision"]
    opset = question.model["opset"]
    if tensorrt is None:
        return None
    row = device_rules.tensorrt_row(question.data, device_rules.version(tensorrt))
    if row is None:
        return None

    cure = "get the bundle that was built with --target for this device"
    if not device_rules.keeps_types(row, question.model["typing"]):
        return Answer("refuse", f"TensorRT {tensorrt} does not keep the types of {precision}; {cure}")
    if not device_rules.reads_opset(row, opset):
        sentence = f"TensorRT {tensorrt} reads opset {device_rules.cell(row, 'opset')}, the graph has {opset}"
        return Answer("refuse", f"{sentence}; {cure}")
    return Answer("go", f"TensorRT {tensorrt} reads {precision} in opset {opset}")


def _units(question: Question) -> Optional[Answer]:
    """Whether the module has units for the precision."""
    name = question.facts.module
    module = question.data["module"].get(name, {})
    # None where nobody knows, and then it is not refused.
    if device_rules.computes_in(module, question.model["computes_in"]) is not False:
        return None
    kinds = ", ".join(device_rules.cell(module, "precisions"))
    precision = question.model["precision"]
    return Answer("refuse", f"{name} computes in {kinds}, not in {precision}; get the bundle in one of these")


def _onnxruntime(question: Question) -> Answer:
    """Whether there is an ONNX Runtime, and whether it computes in the precision."""
    if question.facts.onnxruntime is None:
        return Answer("refuse", "onnxruntime is not installed for this Python; install it, or take --engine tensorrt")
    if question.model["computes_in"] not in onnxruntime_session.COMPUTES_IN:
        precision = question.model["precision"]
        return Answer("refuse", f"ONNX Runtime does not compute in {precision}; take --engine tensorrt")
    return Answer("go", f"ONNX Runtime {question.facts.onnxruntime} on the CPU")


def _memory(question: Question) -> Answer:
    needed = LEAST_MEMORY + 3 * question.size
    available = question.facts.available
    if available < needed:
        return Answer(
            "refuse", f"{available >> 20} MiB of memory are free, about {needed >> 20} are needed; stop something"
        )
    return Answer("go", f"{available >> 20} of {question.facts.memory >> 20} MiB of memory are free")


def _disk(question: Question) -> Answer:
    needed = 3 * question.size + 2**24
    free = f"{question.free >> 20} MiB of the disk are free"
    if question.free < needed:
        return Answer("refuse", f"{free}, {needed >> 20} are needed; gc makes room")
    return Answer("go", free)


def _clocks(question: Question) -> Optional[Answer]:
    """The power mode and the clocks, for whoever reads figures later; never a reason against it."""
    facts = question.facts
    if facts.power_mode is None and facts.gpu_clocks is None:
        return None
    megahertz = [f"{hertz / 1e6:.0f}" for hertz in facts.gpu_clocks or ()]
    clocks = ", ".join(megahertz) or "unknown"
    return Answer("go", f"power mode {facts.power_mode}; GPU at least, now, at most: {clocks} MHz")


def _in_use(question: Question) -> Optional[Answer]:
    """Whether the engine in use was built for what is here now."""
    here = question.facts.device(question.engine)
    active = question.active
    if active is None or active == here:
        return None
    changed = [name for name in sorted(here) if active.get(name) != here[name]]
    return Answer("rebuild", f"the engine in use was built with another {', '.join(changed)}: build the bundle again")


Rule = Callable[[Question], Optional[Answer]]
TENSORRT: Tuple[Rule, ...] = (_device, _tensorrt, _jetpack, _types, _units)
ONNXRUNTIME: Tuple[Rule, ...] = (_onnxruntime,)
ALWAYS: Tuple[Rule, ...] = (_memory, _disk, _clocks, _in_use)


def _release(data: Dict[str, Any], l4t: Version) -> Optional[str]:
    """The JetPack whose L4T is between the first and the last that it came with."""
    for name, row in data["jetpack"].items():
        first, _, last = (device_rules.cell(row, "l4t") or "").partition(" to ")
        if not first:
            continue
        if device_rules.version(first) <= l4t <= device_rules.version(last or first):
            return str(name)
    return None
