"""How soon ``--help`` answers, command by command, next to an interpreter that does nothing, in turns.

python -m benchmarks.help
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from pipeline.commands import COMMANDS

ROUNDS = 7


def main() -> None:
    lines = {name: ["-m", "pipeline", *name.split(), "--help"] for name in ("", *COMMANDS)}
    lines["nothing"] = ["-c", "pass"]
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(ROUNDS):
        for name, line in lines.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *line], stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - started)
    bare = statistics.median(seconds["nothing"])
    print(f"median of {ROUNDS}, in seconds, and times an interpreter that does nothing ({bare:.3f} s)")
    for name, measured in seconds.items():
        middle = statistics.median(measured)
        print(f"{name or 'all commands':<14}{middle:.3f}  {middle / bare:.1f}")


if __name__ == "__main__":
    main()
