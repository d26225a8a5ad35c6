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
    with _tegrastats() as metered:
        found = child.call("bench:run", job, 60 + 10 * seconds, heard)
        power = drawn(metered(*found["between"]))
    if device_facts.power_mode() != mode:
        raise Refused(f"the power mode changed from {mode} to {device_facts.power_mode()} meanwhile; run bench again")
    latency = verify.percentiles(found["seconds"])
    rate = batch / float(np.mean(found["seconds"]))
    return {
        "version": version,
        "device": built["device"],
        "power_mode": mode,
        "batch": batch,
        "latency": latency,
        "images_per_second": rate,
        "gpu_clocks_hz": device_facts.gpu_clocks(),
        **power,
        "joules_per_image": power["watts"] / rate if power["watts"] is not None else None,
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
    for which, each in (("before", before), ("now", now)):
        if each.get("throttled"):
            raise Refused(f"--against: the GPU was throttled {which}; cool it and run bench again")
    ratio = now["latency"]["p50_ms"] / before["latency"]["p50_ms"]
    found = [
        f"half of the runs: {before['latency']['p50_ms']:.3f} → {now['latency']['p50_ms']:.3f} ms ({ratio:.3f} times)"
    ]
    if before.get("joules_per_image") and now["joules_per_image"]:
        energy = now["joules_per_image"] / before["joules_per_image"]
        found.append(f"energy per image: {energy:.3f} times")
    return found


def drawn(lines: List[str]) -> Dict[str, Any]:
    """Mean watts, and the rails that they are the sum of; the GPU's clocks and heat; None where nobody says.

    ``throttled``: in a tenth of the samples or more the GPU ran slower than at its fastest.
    """
    rails: Dict[str, List[int]] = {}
    clocks: List[int] = []
    heat: List[float] = []
    for line in lines:
        for name, milliwatts in RAIL.findall(line):
            if name not in NOT_POWER:
                rails.setdefault(name, []).append(int(milliwatts))
        clocks += [int(value) for value in CLOCK.findall(line)]
        heat += [float(value) for value in HOT.findall(line)]
    whole = [name for name in WHOLE if name in rails]
    counted = whole[:1] or sorted(rails)
    slow = [clock for clock in clocks if clock < SLOWER * max(clocks)]
    return {
        "watts": sum(float(np.mean(rails[name])) for name in counted) / 1e3 if counted else None,
        "rails": counted,
        "gpu_mhz": [min(clocks), max(clocks)] if clocks else None,
        "gpu_celsius": max(heat) if heat else None,
        "throttled": 10 * len(slow) >= len(clocks) if clocks else None,
    }


@contextmanager
def _tegrastats() -> Iterator[Callable[[float, float], List[str]]]:
    """NVIDIA's own meter while the body runs; its lines between two times, none where there is no such tool."""
    heard: List[Tuple[float, str]] = []

    def lines(begun: float, ended: float) -> List[str]:
        return [line for at, line in heard if begun <= at <= ended]

    tool: Optional[str] = shutil.which("tegrastats")
    if tool is None:
        yield lines
        return
    line = [tool, "--interval", "100"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(  # noqa: S603
        line, stdout=subprocess.PIPE, stderr=quiet, universal_newlines=True, start_new_session=True
    ) as process:

        def listen() -> None:
            heard.extend((time.monotonic(), line) for line in process.stdout or ())

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield lines
        finally:
            # With all that it started: as long as one of them holds the pipe, the listener does not end.
            os.killpg(process.pid, signal.SIGKILL)
            listener.join()


def lines(found: Dict[str, Any]) -> List[str]:
    """The result in sentences."""
    latency = found["latency"]
    took = f"half {latency['p50_ms']:.3f}, 90 % {latency['p90_ms']:.3f}, 99 % {latency['p99_ms']:.3f}"
    said = [
        f"{found['version']}, {found['batch']} images a run, power mode {found['power_mode'] or 'unknown'}",
        f"ms at most: {took} ({latency['runs']} runs); {found['images_per_second']:.1f} images a second",
        _power(found),
    ]
    if found["throttled"]:
        said.append("the GPU was throttled: cool it, or take a smaller power mode")
    return said


def _power(found: Dict[str, Any]) -> str:
    if found["watts"] is None:
        return "power: not known, tegrastats is not here or said nothing meanwhile"
    rails, joules = ", ".join(found["rails"]), found["joules_per_image"]
    return f"power: {found['watts']:.2f} W ({rails}), {1e3 * joules:.2f} mJ an image"
