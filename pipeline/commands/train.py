"""``python -m pipeline train``: weights worth deploying, the curves of how they came about, resumed after any kill."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import config, workspace
from pipeline import recipe as recipes
from pipeline.errors import Exit
from pipeline.train.knobs import Training

if TYPE_CHECKING:
    import argparse

HELP = "train a network, to be built with --weights; killed at any moment, the same command goes on"
EXAMPLES = """examples:
  python -m pipeline train --arch resnet20 --data fashion-mnist --epochs 12
  python -m pipeline train --arch resnet50 --data images/ --weights resnet50.pth --new-head --learning-rate 0.01
  torchrun --nproc-per-node 4 -m pipeline train --arch resnet50 --data images/
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    recipes.add_flags(parser, {}, Training)
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with these flags; others override it")
    parser.add_argument("--save-config", type=Path, metavar="FILE", help="write what was asked for, for --config")
    parser.add_argument("--json", action="store_true", help="print training.json instead of sentences")


def run(arguments: argparse.Namespace) -> int:
    """Train and print what the kept weights reach on the test images: exit 0, this command does not judge."""
    asked_for = {knob.name: getattr(arguments, knob.name) for knob in fields(Training)}
    training = Training(**asked_for)
    if arguments.save_config is not None:
        config.refuse_to_save(arguments.save_config)
        config.save(arguments.save_config, asked_for)

    result = train(training)
    if result is None:
        # The first process of the team prints.
        return Exit.PASS
    if arguments.json:
        json.dump(result, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(lines(result)) + "\n")
    return Exit.PASS


def train(training: Training) -> dict[str, Any] | None:
    """What training.json holds, in the first process of a team; None in the others."""
    from pipeline.train import distributed, request, training_run
    from pipeline.train.fit import choose_device

    device = choose_device(training.device)
    with distributed.joined(device) as team:
        accepted = request.accept(training, device, team)
        # Only one process of a team can hold the directory.
        directory = workspace.directory(accepted.output) if team.first else nullcontext(None)
        with directory as unfinished:
            return training_run.follow(accepted, unfinished)


def lines(result: dict[str, Any]) -> list[str]:
    """What was reached, and the build that takes it on."""
    test = result["test"]
    bounds = f"{100 * test['lower']:.2f} … {100 * test['upper']:.2f} at 95 %"
    reached = f"test top-1 {100 * test['top1']:.2f} % ({bounds}), loss {test['loss']:.4f}, {test['n']} images"
    return [
        f"{reached}; weights of epoch {result['kept']} of {result['epochs']}",
        f"next: {result['next']}",
    ]
