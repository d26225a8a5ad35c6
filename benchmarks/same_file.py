"""How often one file is called slower or faster than itself: of new copies in every round, and of two that stay.

python -m benchmarks.same_file FILE ... [--races 16] [--seconds 20]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from pipeline.finished import race
from pipeline.finished.benchmark import Contender

Load = Callable[[], Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="ONNX files, compiled ones too")
    parser.add_argument("--races", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, for one race")
    arguments = parser.parse_args()
    for path in arguments.files:
        shape = [size.dim_value for size in onnx.load(path).graph.input[0].type.tensor_type.shape.dim[1:]]
        pixels = np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype(np.float32)
        load = partial(Contender(path.name, path).timed, pixels)
        print(f"{path}: of {arguments.races} races, called slower or faster than itself")
        for name, copies in (("new copies in every round", new), ("two that stay", stay)):
            found = []
            for _ in range(arguments.races):
                timings, _ = race.race(copies(load), arguments.seconds)
                found.append(race.ratio(timings[1], timings[0]))
            off, took = max(abs(each.value - 1) for each in found), 1e6 * np.median(timings[0].runs)
            told = sum(each.decided(1) for each in found)
            print(f"  {name}: {told}; by {100 * off:.1f} % at most, of {took:.0f} us", flush=True)


def new(load: Load) -> list[Load]:
    return [load, load]


def stay(load: Load) -> list[Load]:
    first, second = load(), load()
    return [lambda: first, lambda: second]


if __name__ == "__main__":
    main()
