"""A fault in any stage is that stage's: honest files pass, and each planted one fails where it was planted."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import faults
import numpy as np
import onnx
import pytest
import torch
from conftest import TINY

from pipeline import workspace
from pipeline.building import plan
from pipeline.building.run import Build
from pipeline.data import sampling
from pipeline.data.groups import Grouping
from pipeline.errors import StageFailed
from pipeline.finished.finished_build import FinishedBuild
from pipeline.models import frozen
from pipeline.parity import answers, examine
from pipeline.parity.figures import TestSet
from pipeline.recipe import Recipe
from pipeline.stage import CLASSES, Stage, StageRow, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Cli

    from pipeline.data.images import Images
    from pipeline.models.resnet import ResNet

IMAGES = 200


@dataclass
class Bench:
    """A finished build, some of the images that judged it, and what its files answer to them."""

    directory: Path
    images: Images
    reference: np.ndarray
    known: dict[Path, np.ndarray] = field(default_factory=dict)

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in json.loads((self.directory / "report.json").read_text())["stages"]}

    def examined(self, name: str, path: Path | None = None) -> StageRow:
        """The row of stage ``name`` with ``path`` in place of its file."""
        said = self.rows()[name]
        source = self.directory / self.rows()[said["source"]]["file"] if said["source"] else None
        if source not in self.known and source is not None:
            self.known[source] = answers.of_file(source).answers(self.images, "")
        row = StageRow(name, said["role"], said["precision"], tolerance=Tolerance(**said["tolerance"]))
        before = None if source is None else self.known[source]
        # Of the file before only its logits are asked for a step.
        examine.examine(row, path or self.directory / said["file"], source, self.images, self.test_set, before, None)
        return row

    @property
    def test_set(self) -> TestSet:
        labels = self.images.labels
        classes = Grouping([str(number) for number in range(self.reference.shape[1])], labels)
        return TestSet(labels, self.reference, self.images.distinct, {CLASSES: classes})


def bench(directory: Path) -> Bench:
    images = sampling.some(FinishedBuild.open(directory).test_images(), IMAGES)
    reference = answers.of_file(directory / "01-freeze.safetensors").answers(images, "")
    return Bench(directory, images, reference)


@pytest.fixture(scope="module")
def benches(cli: Cli, built: Path, mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
    half = tmp_path_factory.mktemp("half")
    cli.report("--arch", "resnext_tiny", "--precision", "fp16", "--engine", "onnxruntime", "-o", half)
    mended = tmp_path_factory.mktemp("mended")
    cli.report(*TINY, "--recover", "equalise", "-o", mended)
    int8 = bench(built)
    other = {"fp16": bench(half), "equalise": bench(mended), "halve": bench(mixed)}
    return {**dict.fromkeys(["freeze", *faults.GRAPH_FAULTS], int8), **other}


@pytest.mark.parametrize("stage", ["freeze", *faults.GRAPH_FAULTS])
def test_an_honest_file_is_not_blamed(benches: dict[str, Bench], stage: str) -> None:
    row = benches[stage].examined(stage)
    assert row.verdict in {"pass", "undecided"}, row.reasons  # so few images leave a drop undecided
    assert not row.refuted


PLANTED = [(stage, *fault) for stage, found in faults.GRAPH_FAULTS.items() for fault in found]


@pytest.mark.parametrize(("stage", "module", "plant"), PLANTED, ids=[f"{n}-{f[0]}" for n, f in enumerate(PLANTED)])
def test_a_planted_fault_is_blamed_on_its_stage(
    benches: dict[str, Bench], tmp_path: Path, stage: str, module: str | None, plant: faults.Fault
) -> None:
    there = benches[stage]
    model = onnx.load(there.directory / there.rows()[stage]["file"])
    plant(model)
    path = tmp_path / there.rows()[stage]["file"]
    onnx.save(model, path)
    try:
        row = there.examined(stage, path)
    except StageFailed as error:
        assert f"stage {stage} made {path.name}, which cannot be run" in str(error)  # noqa: PT017
        return
    assert row.verdict == "fail"
    assert row.reasons
    if module is not None:
        assert row.certificate is not None
        assert module in {item["module"] for item in row.certificate["refuted"]}


def weights(**changes: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[ResNet], None]:
    def plant(network: ResNet) -> None:
        held = network.state_dict()
        for name, change in changes.items():
            key = name.replace("__", ".")
            assert not torch.equal(held[key], change(held[key]))
            held[key] = change(held[key])
        network.load_state_dict(held)

    return plant


def swap_statistics(network: ResNet) -> None:
    mean, std = network.pixel_mean.clone(), network.pixel_std.clone()
    network.pixel_mean.copy_(std)
    network.pixel_std.copy_(mean)


@pytest.mark.parametrize(
    "plant",
    [
        weights(layer2__0__conv2__weight=lambda w: w + 1e-6 * (w == w.max())),
        weights(layer2__0__conv2__weight=lambda w: w.transpose(2, 3).clone()),
        weights(layer2__0__conv2__weight=lambda w: w.half().float()),
        weights(fc__bias=torch.zeros_like),
        weights(layer1__0__bn1__running_var=lambda v: v.flip(0)),
        swap_statistics,
        lambda network: setattr(network.layer2[0].bn2, "eps", 1e-3),
    ],
)
def test_a_fault_between_the_network_and_its_file_is_blamed_on_freeze(
    benches: dict[str, Bench], plant: Callable[[ResNet], None]
) -> None:
    """The file is honest and the network another one: to freeze it is all the same which of them is wrong."""
    there = benches["freeze"]
    network = frozen.read(there.directory / "01-freeze.safetensors")[0]
    plant(network)
    other = answers.of_network(network).answers(there.images, "")
    row = replace(there, reference=other).examined("freeze")
    assert row.verdict == "fail"


@pytest.mark.parametrize("place", [0.3, 0.7, 0.99])
def test_a_frozen_file_that_was_touched_is_blamed_on_freeze(
    benches: dict[str, Bench], tmp_path: Path, place: float
) -> None:
    content = bytearray((benches["freeze"].directory / "01-freeze.safetensors").read_bytes())
    content[int(place * len(content))] ^= 1
    (tmp_path / "01-freeze.safetensors").write_bytes(content)
    with pytest.raises(StageFailed, match="stage freeze made 01-freeze"):
        benches["freeze"].examined("freeze", tmp_path / "01-freeze.safetensors")


# One fault for each check that no other check finds: with that check gone it would pass.
ONLY: list[tuple[str, str, faults.Fault]] = [
    ("certified", "fold_batchnorm", faults.array(faults.CONV, faults.bump((3, 1, 1, 1), 1e-4))),
    ("certified", "int8", faults.array(f"{faults.CONV}_int8", lambda q: np.where(q == q.max(), q - 2, q))),
    ("scaled", "int8", faults.array("layer2.0/relu/Relu_output_0_scale", lambda s: s * 8)),
    ("consistent", "engine", faults.wrong_alone),
    ("linted", "int8", faults.pair_after("/layer2/layer2.0/bn3/BatchNormalization_output_0", "main")),
]


@pytest.mark.parametrize(("check", "stage", "plant"), ONLY)
def test_without_a_check_some_fault_is_not_seen(
    benches: dict[str, Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, stage: str,
    plant: faults.Fault,
) -> None:  # fmt: skip
    there = benches[stage]
    path = tmp_path / there.rows()[stage]["file"]
    model = onnx.load(there.directory / path.name)
    plant(model)
    onnx.save(model, path)
    assert there.examined(stage, path).verdict == "fail"
    monkeypatch.delitem(examine.CHECKS, check)
    assert there.examined(stage, path).verdict != "fail"


def test_a_check_that_cannot_be_made_proves_nothing(benches: dict[str, Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: examine.Exhibit) -> list[str]:
        raise KeyError("value")

    monkeypatch.setitem(examine.CHECKS, "certified", broken)
    row = benches["simplify"].examined("simplify")
    assert (row.verdict, row.reasons) == ("fail", ["the check 'certified' could not be made: 'value'"])


def test_a_network_that_answers_all_alike_is_told(
    benches: dict[str, Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = benches["freeze"]
    network, description = frozen.read(there.directory / "01-freeze.safetensors")
    with torch.no_grad():
        network.fc.weight.zero_()
    frozen.write(network, description, tmp_path / "01-freeze.safetensors")
    constant = replace(there, reference=answers.of_network(network).answers(there.images, ""))
    row = constant.examined("freeze", tmp_path / "01-freeze.safetensors")
    assert row.verdict == "fail"
    assert row.reasons == [f"all {IMAGES} images get the same answer, whatever they show"]
    monkeypatch.delitem(examine.CHECKS, "alike")
    assert constant.examined("freeze", tmp_path / "01-freeze.safetensors").verdict == "pass"


def wrapped(stage: Stage, plant: faults.Fault) -> Stage:
    def make(src: Path, dst: Path) -> Any:
        made = stage.make(src, dst)
        model = onnx.load(dst)
        plant(model)
        onnx.save(model, dst)
        return made

    return replace(stage, make=make, parameters={**stage.parameters, "planted": True})


GUILTY = ["export", "simplify", "fold_batchnorm", "equalise", "int8", "engine"]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("guilty", GUILTY)
def test_a_whole_build_stops_at_the_guilty_stage(
    benches: dict[str, Bench], weights: Path, tmp_path: Path, guilty: str, number: int
) -> None:
    there = benches[guilty]
    shutil.copytree(there.directory, tmp_path / "out")
    recipe = Recipe(
        arch="resnext_tiny",
        precision="int8",
        engine="onnxruntime",
        recover="equalise" if guilty == "equalise" else "none",
        weights=weights,
    )
    network, description = frozen.read(weights)
    from pipeline.data import digits

    data = digits.read()
    calibration = sampling.calibration(recipe, data, data.preprocessing.adjusted(recipe))
    stages = plan.planned(recipe, network, description, calibration, calibration)
    plant = faults.GRAPH_FAULTS[guilty][number][1]
    planted = [wrapped(stage, plant) if stage.name == guilty else stage for stage in stages]
    with workspace.directory(tmp_path / "out") as unfinished:
        rows = list(
            Build(there.images, there.test_set, there.rows()["engine"]["precision"], tmp_path / "out", unfinished).run(
                planted
            )
        )
    assert [row.name for row in rows] == [stage.name for stage in stages][: len(rows)]
    assert [row.name for row in rows if row.verdict == "fail"] == [guilty]
    assert rows[-1].name == guilty
    assert all(row.reused for row in rows[:-1])
