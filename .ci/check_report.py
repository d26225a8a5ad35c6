"""The report of a build that the README promises."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Exit 0 where the report holds what the README promises; the first line that fails says what it does not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("report", type=Path)
    parser.add_argument("--convolutions", type=int, required=True)
    parser.add_argument("--reused", action="store_true", help="every stage must have been reused")
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_text())
    rows = {row["name"]: row for row in report["stages"]}
    assert report["verdict"] == "pass", report["verdict"]
    assert len(rows) >= 6, list(rows)
    n = arguments.convolutions
    assert rows["export"]["work"].endswith(f"BatchNormalization {n}"), rows["export"]["work"]
    assert rows["simplify"]["work"].endswith(f"BatchNormalization {n} → {n}"), rows["simplify"]["work"]
    assert rows["fold_batchnorm"]["work"] == f"BatchNormalization {n} → 0", rows["fold_batchnorm"]["work"]
    for row in rows.values():
        assert (row["drift"] is None) == (row["verdict"] == "not_run"), row["name"]
    if report["recipe"]["precision"] == "int8":
        assert rows["engine"]["int8_share"] > 0.5, rows["engine"]["int8_share"]
    if arguments.reused:
        assert all(row["reused"] for row in rows.values()), [row["name"] for row in rows.values() if not row["reused"]]
    fall = rows["freeze"]["accuracy"]["top1"] - rows["engine"]["accuracy"]["top1"]
    assert fall <= 0.01, fall
    assert report["not_proven"]


main()
