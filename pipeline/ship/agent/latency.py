"""How fast an engine is on this device, at which power: percentiles, images a second, joules an image, throttling.

Figures of two power modes say nothing of each other, and are not compared.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from . import child, device_facts, verify
from .errors import Refused

if TYPE_CHECKING:
    from .store import Store

RUNS = 100_000  # at most, whatever the time
INTERVAL = "100"  # milliseconds between two lines of tegrastats
# The rail that carries the whole module, where there is one; else all rails that tegrastats lists are added.
WHOLE = ("VDD_IN", "POM_5V_IN", "VIN")
RAIL = re.compile(r"\b([A-Z][A-Z0-9_]+) (\d+)(?:mW)?/\d+(?:mW)?(?= |$)")
NOT_POWER = ("RAM", "SWAP", "IRAM")
CLOCK = re.compile(r"GR3D_FREQ \d+%@\[?(\d+)")
HOT = re.compile(r"\b(?:GPU|gpu)@(-?[\d.]+)C")
SLOWER = 0.97  # of the largest clock that was seen: below it, in one sample of ten, the GPU was throttled
SAME = ("power_mode", "device", "batch")


def bench(store: Store, version: str, batch: int, seconds: float, heard: Callable[[str], None]) -> Dict[str, Any]:
    """Run the engine of ``version`` for about ``seconds`` with ``batch`` images a run, and listen to tegrastats."""
    built = store.built(version)
    least, _, most = store.whole(version).manifest["model"]["batches"]
    if not least <= batch <= most:
        raise Refused(f"--batch {batch}: the engine takes {least} to {most}")
    job = dict(store.job(version), batch=batch, seconds=seconds)
    mode = device_facts.power_mode()
    with _tegrastats() as lines_between:
        # Beside the runs it loads the engine, which may take longer than they do.
        timing = child.call("latency:run", job, 60 + 10 * seconds, heard)
        power = drawn(lines_between(*timing["between"]))
    mode_after = device_facts.power_mode()
    if mode_after != mode:
        raise Refused(f"the power mode changed from {mode} to {mode_after} meanwhile; run bench again")

    rate = batch / float(np.mean(timing["seconds"]))
    joules = power["watts"] / rate if power["watts"] is not None else None
    return {
        "version": version,
        "device": built["device"],
        "power_mode": mode,
        "batch": batch,
        "latency": verify.percentiles(timing["seconds"]),
        "images_per_second": rate,
        "gpu_clocks_hz": device_facts.gpu_clocks(),
        **power,
        "joules_per_image": joules,
    }


def run(job: Dict[str, Any]) -> Dict[str, Any]:
    """In the child: seconds of each run, and when they began and ended."""
    from . import contents

    bundle, engine = verify.loaded(job)
    images = contents.golden_images(bundle)
    batch = np.ascontiguousarray(images[np.arange(job["batch"]) % len(images)])
    # The clock of the whole system: what was drawn while the engine was loaded is not its power.
    begun = time.monotonic()
    seconds = verify.timed(engine, batch, RUNS, job["seconds"])
    return {"seconds": seconds, "between": [begun, time.monotonic()]}


def compared(before: Dict[str, Any], now: Dict[str, Any]) -> List[str]:
    """Both next to each other; raises Refused where they were not measured under the same conditions."""
    for name in SAME:
        if before.get(name) != now[name]:
            raise Refused(
                f"--against: measured with {name} {before.get(name)}, here {now[name]}: such figures are not compared; "
                "run both in the same"
            )
    for when, result in (("before", before), ("now", now)):
        if result.get("throttled"):
            raise Refused(f"--against: the GPU was throttled {when}; cool it and run bench again")

    before_ms = before["latency"]["p50_ms"]
    now_ms = now["latency"]["p50_ms"]
    sentences = [f"half of the runs: {before_ms:.3f} → {now_ms:.3f} ms ({now_ms / before_ms:.3f} times)"]
    # Where tegrastats said nothing there is no energy to compare.
    if before.get("joules_per_image") and now["joules_per_image"]:
        energy = now["joules_per_image"] / before["joules_per_image"]
        sentences.append(f"energy per image: {energy:.3f} times")
    return sentences


def drawn(lines: List[str]) -> Dict[str, Any]:
    """Mean watts, and the rails that they are the sum of; the GPU's clocks and heat; None where nobody says.

    ``throttled``: in a tenth of the samples or more the GPU ran slower than at its fastest.
    """
    milliwatts_by_rail: Dict[str, List[int]] = {}
    megahertz: List[int] = []
    celsius: List[float] = []
    for line in lines:
        for name, milliwatts in RAIL.findall(line):
            if name not in NOT_POWER:
                milliwatts_by_rail.setdefault(name, []).append(int(milliwatts))
        megahertz += [int(value) for value in CLOCK.findall(line)]
        celsius += [float(value) for value in HOT.findall(line)]

    # Of the rails of a whole module the first; the others would count the same power again.
    whole = [name for name in WHOLE if name in milliwatts_by_rail]
    rails = whole[:1] or sorted(milliwatts_by_rail)
    watts = None
    if rails:
        watts = sum(float(np.mean(milliwatts_by_rail[name])) for name in rails) / 1e3
    figures: Dict[str, Any] = {"watts": watts, "rails": rails, "gpu_mhz": None, "gpu_celsius": None, "throttled": None}

    if megahertz:
        slow = [clock for clock in megahertz if clock < SLOWER * max(megahertz)]
        figures["gpu_mhz"] = [min(megahertz), max(megahertz)]
        figures["throttled"] = 10 * len(slow) >= len(megahertz)
    if celsius:
        figures["gpu_celsius"] = max(celsius)
    return figures


@contextmanager
def _tegrastats() -> Iterator[Callable[[float, float], List[str]]]:
    """NVIDIA's own meter while the body runs; its lines between two times, none where there is no such tool."""
    timed_lines: List[Tuple[float, str]] = []

    def lines_between(begun: float, ended: float) -> List[str]:
        return [line for at, line in timed_lines if begun <= at <= ended]

    tool: Optional[str] = shutil.which("tegrastats")
    if tool is None:
        yield lines_between
        return
    command = [tool, "--interval", INTERVAL]
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True, start_new_session=True
    ) as process:

        def listen() -> None:
            for line in process.stdout or ():
                timed_lines.append((time.monotonic(), line))  # noqa: PERF401 - each line when it arrives

        # Beside the runs: unread, the pipe would fill, and tegrastats stop.
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield lines_between
        finally:
            # With all that it started: as long as one of them holds the pipe, the listener does not end.
            os.killpg(process.pid, signal.SIGKILL)
            listener.join()


def lines(result: Dict[str, Any]) -> List[str]:
    """The result of bench in sentences."""
    latency = result["latency"]
    shares_ms = f"half {latency['p50_ms']:.3f}, 90 % {latency['p90_ms']:.3f}, 99 % {latency['p99_ms']:.3f}"
    sentences = [
        f"{result['version']}, {result['batch']} images a run, power mode {result['power_mode'] or 'unknown'}",
        f"ms at most: {shares_ms} ({latency['runs']} runs); {result['images_per_second']:.1f} images a second",
        _power(result),
    ]
    if result["throttled"]:
        sentences.append("the GPU was throttled: cool it, or take a smaller power mode")
    return sentences


def _power(result: Dict[str, Any]) -> str:
    if result["watts"] is None:
        return "power: not known, tegrastats is not here or said nothing meanwhile"
    rails = ", ".join(result["rails"])
    millijoules = 1e3 * result["joules_per_image"]
    return f"power: {result['watts']:.2f} W ({rails}), {millijoules:.2f} mJ an image"
