"""A rare class that is lost under an average that passes: trained, built and judged for real, on Fashion-MNIST."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from exporters import reference
from pipeline import api
from pipeline.building import stages
from pipeline.commands import check
from pipeline.data import fashion_mnist, sampling, sets
from pipeline.finished.finished_build import FinishedBuild
from pipeline.recipe import Recipe
from pipeline.stage import Made

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.part import Part

# Two that are one class here, of which few judge.
MERGED = ("Trouser", "Bag")
RARE = "Trouser or bag"
LOST = 20


def write(part: Part, folder: Path, of_each: int, of_rare: int) -> None:
    counts: dict[str, int] = {}
    for index in range(len(part)):
        published = fashion_mnist.CLASSES[int(part.labels[index])]
        name = RARE if published in MERGED else published
        number = counts.get(name, 0)
        if number == (of_rare if name == RARE else of_each):
            continue
        counts[name] = number + 1
        (folder / name).mkdir(parents=True, exist_ok=True)
        part.decode(index).save(folder / name / f"{number:04}.png")


@dataclass(frozen=True)
class Spoilt:
    directory: Path
    verdict: str


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Spoilt:
    """Built with weights that were retrained to answer the rare class less readily."""
    folder = tmp_path_factory.mktemp("fashion")
    data = fashion_mnist.read(None)
    write(data.train, folder / "train", 400, 400)
    write(data.test, folder / "val", 600, 60)
    recipe = Recipe(
        arch="resnet_tiny",
        data=str(folder),
        input_size=32,
        resize=32,
        epochs=2,
        precision="int8",
        recover="qat",
        calib_method="minmax",
        engine="onnxruntime",
        output=folder / "build",
    )

    def retrained(_: Any, __: Any, src: Path, dst: Path) -> Made:
        model = onnx.load(src)
        held = sets.load(recipe)
        images = sampling.test(recipe, held, held.preprocessing.adjusted(recipe))
        # The features that the last layer reads, and the logits.
        last = next(node for node in model.graph.node if "fc.weight" in node.input)
        both = onnx.ModelProto()
        both.CopyFrom(model)
        both.graph.output.append(onnx.ValueInfoProto(name=last.input[0]))
        session = reference.session(both.SerializeToString())
        answered = [session.run(None, {"images": batch}) for batch in images.batches()]
        logits, features = (np.concatenate(parts) for parts in zip(*answered, strict=True))

        rare = held.classes.index(RARE)
        is_rare = images.labels == rare
        # The direction that images of the rare class have and others have not, by least squares.
        direction = np.linalg.lstsq(features, is_rare.astype(np.float64), rcond=1e-4)[0]
        lead = logits[:, rare] - np.delete(logits, rare, axis=1).max(axis=1)
        # So much of it turns this many of those that were right.
        needed = (lead / (features @ direction))[is_rare & (lead > 0)]
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.weight")
        values = onnx.numpy_helper.to_array(weight).copy()
        values[rare] -= np.sort(needed[needed > 0])[LOST] * direction
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, dst)
        return Made("weights retrained")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "qat", retrained)
        built = api.build(recipe)
    return Spoilt(folder / "build", built.verdict)


def test_the_class_fails_the_build(spoilt: Spoilt) -> None:
    assert spoilt.verdict == "fail"
    row = FinishedBuild.open(spoilt.directory).stage("qat")
    family = row.subsets["classes"]
    assert (family.verdict, family.worst.name, family.worst.n) == ("fail", RARE, 60)
    assert family.worst.lost >= LOST
    assert f"class {RARE} fell by" in row.reasons[0]


def test_without_the_classes_every_figure_passes(spoilt: Spoilt) -> None:
    row = FinishedBuild.open(spoilt.directory).stage("qat")
    assert row.tolerance is not None
    assert row.drift is not None
    assert row.drop is not None
    assert row.drift.sqnr_db is not None
    assert row.drop.upper < 0.01
    assert row.drift.sqnr_db > row.tolerance.sqnr_db
    assert row.drift.top1_agreement > row.tolerance.agreement
    assert row.refuted == []


def test_a_check_says_the_same_and_a_wider_margin_lets_it_pass(
    spoilt: Spoilt, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    check.add_flags(parser)
    for flags, verdict in (([], "fail"), (["--max-class-drop", "0.02"], "fail"), (["--max-class-drop", "0.9"], "pass")):
        check.run(parser.parse_args([str(spoilt.directory), "--json", *flags]))
        row = next(row for row in json.loads(capsys.readouterr().out)["stages"] if row["name"] == "qat")
        assert row["subsets"]["classes"]["verdict"] == verdict
