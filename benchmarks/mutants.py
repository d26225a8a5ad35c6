"""Every kind of mutant on every pair of honest files, many times: what is proven and moved, and harmless and refuted.

    python -m benchmarks.mutants [SEEDS] [--guess] [--networks NAME…]

Networks and mutants are those of tests/exporters. Prints a Markdown table of kinds by stages, then the faults, and
exits 1 where there is one. ``--guess``: the certificate is not told which stage it judges.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests" / "exporters"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("seeds", type=int, nargs="?", default=1)
    parser.add_argument("--guess", action="store_true")
    parser.add_argument("--networks", nargs="*")
    arguments = parser.parse_args()

    # The tests are no package.
    sys.path.insert(0, str(TESTS))
    judging = importlib.import_module("mutant_judge")
    kinds = importlib.import_module("mutants").KINDS
    stage_pairs = importlib.import_module("stage_pairs")
    started = time.perf_counter()
    judged: list[Any] = []
    for network in arguments.networks or stage_pairs.NETWORKS:
        for seed in range(arguments.seeds):
            judged += _of_network(judging, kinds, stage_pairs, network, seed, told=not arguments.guess)
        print(f"{network}: {len(judged)} mutants, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)

    _print_table(judged, judging.ROUNDING)
    faults = [row for row in judged if row.fault]
    for row in faults:
        print(f"{row.fault}: {row.kind.name}, {row.network}, {row.stage}, moved {row.moved:.2g}: {row.found}")
    sys.exit(1 if faults else 0)


def _of_network(judging: Any, kinds: list[Any], stage_pairs: Any, network: str, seed: int, *, told: bool) -> list[Any]:
    """All mutants of one network with the weights of ``seed``."""
    judged = []
    with tempfile.TemporaryDirectory() as folder:
        made = stage_pairs.make(network, Path(folder), seed)
        for stage, reason in made.failed.items():
            print(f"{network}: {stage} made no file: {reason[:200]}", file=sys.stderr)
        for pair in made.pairs:
            judge = judging.Judge(pair, Path(folder), told=told)
            judged += [judge.judge(kind, seed) for kind in kinds]
    return [row for row in judged if row is not None]


def _print_table(judged: list[Any], rounding: float) -> None:
    """One row a kind: how many, in which stages, how many moved, and how many are faults."""
    by_kind = defaultdict(list)
    for row in judged:
        by_kind[row.kind.name].append(row)

    print("| kind | is | mutants | stages | refused | moved | proven | faults |")
    print("|---|---|---|---|---|---|---|---|")
    totals: Counter[str] = Counter()
    for name, rows in by_kind.items():
        counts = {
            "mutants": len(rows),
            "stages": len({row.stage for row in rows}),
            "refused": sum(bool(row.refused) for row in rows),
            "moved": sum(row.moved > rounding for row in rows),
            "proven": sum(row.proven for row in rows),
            "faults": sum(bool(row.fault) for row in rows),
        }
        verdict = rows[0].kind.verdict
        print(f"| {name} | {verdict} | {' | '.join(map(str, counts.values()))} |")
        totals.update({f"{verdict} {what}": count for what, count in counts.items() if what != "stages"})
        totals[f"{verdict} kinds"] += 1
    print()
    for verdict in ("wrong", "harmless"):
        figures = [
            f"{totals[f'{verdict} {what}']} {what}" for what in ("kinds", "mutants", "refused", "moved", "proven")
        ]
        print(f"{verdict}: {', '.join(figures)}, {totals[f'{verdict} faults']} faults")


if __name__ == "__main__":
    main()
