"""What happens to directories of builds: each accident changes a copy, and some another build had a hand in it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from safetensors.numpy import load_file, save_file

from pipeline import workspace
from pipeline.data import conformance
from pipeline.finished import report_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Happens = Callable[[Path, Path], None]

ANSWERS = "answers.safetensors"
# What a row tells of a stage that was reached alone.
NOT_REACHED = (
    "source", "file", "sha256", "bytes", "seconds", "provider", "work", "drift", "step", "accuracy", "drop", "spread",
    "int8_share", "certificate",
)  # fmt: skip
INT8 = "05-int8.onnx"
ENGINE = "06-engine.ort.onnx"


def reseal(directory: Path) -> None:
    """Every hash of hashes anew, so that only what a report follows from can tell that it is wrong."""
    report = read(directory)
    report["answers"] = workspace.sha256(directory / ANSWERS)
    report["evidence"] = workspace.sha256(directory / report_json.EVIDENCE)
    report["conformance"] = {
        name: workspace.sha256(directory / conformance.FOLDER / name) for name in report["conformance"]
    }
    names = [workspace.note_of(directory / row["file"]).name for row in report["stages"] if row["file"]]
    report["notes"] = {name: workspace.sha256(directory / name) for name in names}
    before = report["content"]
    report["content"] = report_json.content(report)
    write(directory, report)
    page = directory / report_json.PAGE
    page.write_text(page.read_text().replace(before, report["content"]))


def read(directory: Path, name: str = report_json.FILE) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((directory / name).read_text())
    return told


def write(directory: Path, told: dict[str, Any], name: str = report_json.FILE, indent: int = 1) -> None:
    (directory / name).write_text(json.dumps(told, indent=indent))


def all_of(*happening: Happens) -> Happens:
    def happens(directory: Path, other: Path) -> None:
        for one in happening:
            one(directory, other)

    return happens


def report(change: Callable[[dict[str, Any]], object]) -> Happens:
    """The report is changed."""

    def happens(directory: Path, _: Path) -> None:
        told = read(directory)
        change(told)
        write(directory, told)

    return happens


def row(name: str, **keys: Any) -> Happens:
    """Keys of one row; those of what a key holds are written as ``drop__lost``."""

    def change(told: dict[str, Any]) -> None:
        place = next(row for row in told["stages"] if row["name"] == name)
        for key, value in keys.items():
            *way, last = key.split("__")
            inner = place
            for step in way:
                inner = inner[step]
            inner[last] = value

    return report(change)


def without(*names: str) -> Happens:
    return report(lambda told: told.update(stages=[row for row in told["stages"] if row["name"] not in names]))


def only(*names: str) -> Happens:
    return report(lambda told: told.update(stages=[row for row in told["stages"] if row["name"] in names]))


def answers(change: Callable[[dict[str, Any]], object]) -> Happens:
    """The saved answers are changed."""

    def happens(directory: Path, _: Path) -> None:
        tensors = load_file(directory / ANSWERS)
        change(tensors)
        save_file(tensors, directory / ANSWERS)

    return happens


def note(name: str, **keys: Any) -> Happens:
    def happens(directory: Path, _: Path) -> None:
        write(directory, read(directory, name) | keys, name)

    return happens


def swapped(one: str, other: str) -> Happens:
    """Two files have each other's names."""

    def happens(directory: Path, _: Path) -> None:
        shutil.move(directory / one, directory / "between")
        shutil.move(directory / other, directory / one)
        shutil.move(directory / "between", directory / other)

    return happens


def from_other(*names: str) -> Happens:
    """Files of another build lie over those of this one."""

    def happens(directory: Path, other: Path) -> None:
        for name in names:
            shutil.copy(other / name, directory / name)

    return happens


def gone(name: str) -> Happens:
    return lambda directory, _: (directory / name).unlink()


def spoiled(name: str) -> Happens:
    """One bit in the middle of a file, and its new hash in its row."""

    def happens(directory: Path, _: Path) -> None:
        content = bytearray((directory / name).read_bytes())
        content[len(content) // 2] ^= 1
        (directory / name).write_bytes(content)
        with_new_hash(directory, name)

    return happens


def with_new_hash(directory: Path, name: str, *, in_note: bool = False) -> None:
    """The hash of the file ``name`` in its row, as if it were that which was judged, and in its note if asked."""
    sha256 = workspace.sha256(directory / name)
    told = read(directory)
    for row in told["stages"]:
        if row["file"] == name:
            row |= {"sha256": sha256, "bytes": (directory / name).stat().st_size}
    write(directory, told)
    if in_note:
        stem = workspace.note_of(directory / name).name
        write(directory, read(directory, stem) | {"sha256": sha256}, stem)


def graph(name: str, change: Callable[[onnx.ModelProto], object]) -> Happens:
    """An ONNX file is changed, and its hash in row and note."""

    def happens(directory: Path, _: Path) -> None:
        model = onnx.load(directory / name)
        change(model)
        onnx.save(model, directory / name)
        with_new_hash(directory, name, in_note=True)

    return happens


def says(key: str, change: Callable[[Any], Any]) -> Callable[[onnx.ModelProto], None]:
    """Metadata of a graph, changed."""

    def plant(model: onnx.ModelProto) -> None:
        entry = next(entry for entry in model.metadata_props if entry.key == key)
        entry.value = json.dumps(change(json.loads(entry.value)))

    return plant


def without_pairs(model: onnx.ModelProto) -> None:
    """Every Q and every DQ is a node that hands on what it reads."""
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            node.op_type = "Identity"


def reversed_(told: dict[str, Any]) -> None:
    told["classes"].reverse()


def of_so_many_db(name: str, ratio_db: float) -> Callable[[dict[str, Any]], None]:
    """The answers of a stage have this SQNR for every image."""
    key = f"sqnr_db.{name}"
    return lambda tensors: tensors.update({key: np.full_like(tensors[key], ratio_db)})


def with_nan(name: str, *place: int) -> Callable[[dict[str, Any]], None]:
    def change(tensors: dict[str, Any]) -> None:
        tensors[name][place] = np.nan

    return change


@dataclass(frozen=True)
class Accident:
    """What happens, and what check says of it: of which stage, by which rule, with which words."""

    happens: Happens
    stage: str
    rule: str
    words: str
    sealed: bool = True  # every hash of hashes is made anew afterwards


def ended_at(directory: Path, place: int, error: str, *, beside: bool = False) -> None:
    """The directory as a build leaves it that could not make the file of the row at ``place``.

    What stands ``beside`` fails alone, and ends nothing.
    """
    told = read(directory)
    unreached = told["stages"][place:]
    if not beside:
        told["error"] = error
    for row in unreached:
        file = directory / row["file"]
        file.unlink()
        workspace.note_of(file).unlink()
        row.update(dict.fromkeys(NOT_REACHED))
        row.update(details={}, subsets={}, verdict="not_run")
    if beside:
        unreached[0] |= {"verdict": "fail", "reasons": [error]}
    else:
        # What was shipped is no more.
        told["subsets"] = {}
    write(directory, told)
    names = {row["name"] for row in unreached}
    tensors = load_file(directory / ANSWERS)
    save_file({key: values for key, values in tensors.items() if key.split(".")[-1] not in names}, directory / ANSWERS)
    reseal(directory)


def first_exchanged(names: list[str]) -> list[str]:
    return [names[1], names[0], *names[2:]]


def renamed(told: dict[str, Any]) -> None:
    told["stages"][-1] |= {"name": "engine_tensorrt_rtx", "provider": None}


def twice(told: dict[str, Any]) -> None:
    told["stages"].append(told["stages"][-1])


def another_order(told: dict[str, Any]) -> None:
    told["stages"][2], told["stages"][3] = told["stages"][3], told["stages"][2]


def left_over(directory: Path, _: Path) -> None:
    """An engine of an earlier build, with its note."""
    name = "07-engine.ort.onnx"
    shutil.copy(directory / ENGINE, directory / name)
    write(directory, read(directory, "06-engine.json") | {"file": name}, "07-engine.json")


# Of a build that --rerun takes for whole all the same, where nothing but its files is looked at.
ALSO_RUN_AGAIN = {
    "rows gone": Accident(without("int8", "engine"), "int8", "P011", "int8 is missing: the recipe asks for it"),
    "only freeze left": Accident(only("freeze"), "export", "P011", "export is missing: the recipe asks for it"),
    "engine renamed": Accident(report(renamed), "engine", "P011", "engine is missing: the recipe asks for it"),
    "certificate not proven": Accident(
        row("int8", certificate__proven=False),
        "int8",
        "P014",
        "its certificate is not proven, though it refutes nothing",
    ),
    "answers of 5 dB": Accident(
        answers(of_so_many_db("int8", 5)), "int8", "P012", "in the report, and 5 by the saved answers"
    ),
    "classes reversed": Accident(
        report(reversed_),
        "freeze",
        "P013",
        "the classes of report.json are 9, 8, 7 from number 0 on, and those of 01-freeze",
    ),
}
OTHERS = {
    "hash patched, file spoiled": Accident(
        spoiled(INT8),
        "int8",
        "P015",
        "05-int8.json has another sha256 than the report",
        sealed=False,
    ),
    "weights that the note does not know": Accident(
        note("01-freeze.json", key={"stage": "freeze", "source": None, "parameters": {"weights": "0" * 64}}),
        "freeze",
        "P013",
        "01-freeze.safetensors holds other weights than its note tells of",
    ),
    "NaN in the reference": Accident(
        answers(with_nan("reference", 7, 3)),
        "report",
        "P012",
        "are NaN or infinity for 1 of 900 images",
    ),
    "another mean": Accident(
        report(lambda told: told["preprocessing"].update(mean=[0.5])),
        "freeze",
        "P013",
        "the preprocessing of report.json has mean [0.5], and that of 01-freeze.safetensors [0.305]",
    ),
    "another margin": Accident(
        report(lambda told: told["recipe"].update(max_drop=0.5)),
        "int8",
        "P011",
        "it was held to a drop of 0.01, and the recipe allows 0.5",
    ),
    "another margin, by hand": Accident(
        report(lambda told: told["recipe"].update(max_drop=0.5)),
        "report",
        "P015",
        "report.json is not what this build wrote: its content has another hash",
        sealed=False,
    ),
    "the hash of the report gone": Accident(
        report(lambda told: told.pop("content")), "report", "P015", "lacks the hash of its content", sealed=False
    ),
    "evidence of another build": Accident(
        from_other("evidence.json"),
        "report",
        "P015",
        "evidence.json is gone or not what this build wrote",
        sealed=False,
    ),
    "page of another build": Accident(
        from_other("report.html"),
        "report",
        "P015",
        "report.html is the page of another report",
        sealed=False,
    ),
    "notes exchanged": Accident(
        swapped("05-int8.json", "06-engine.json"),
        "int8",
        "P015",
        "05-int8.json is the note of the stage engine",
    ),
}
# Of the same kinds.
MORE = {
    "a row twice": Accident(report(twice), "engine", "P011", "engine is a row that the recipe does not ask for"),
    "a row more": Accident(
        report(lambda told: told["stages"].append({**told["stages"][3], "name": "equalise"})),
        "equalise",
        "P011",
        "equalise is a row that the recipe does not ask for",
    ),
    "a graph gone": Accident(
        without("simplify"),
        "simplify",
        "P011",
        "simplify is missing: the recipe asks for it, and the report has no row",
    ),
    "another order": Accident(
        report(another_order),
        "simplify",
        "P011",
        "fold_batchnorm stands where the recipe asks for simplify",
    ),
    "another role": Accident(
        row("int8", role="graph"),
        "int8",
        "P011",
        "its role is graph, and by the recipe quantised",
    ),
    "another precision": Accident(
        row("engine", precision="fp32"),
        "engine",
        "P011",
        "its precision is fp32, and by the recipe int8",
    ),
    "another source": Accident(
        row("int8", source="export"),
        "int8",
        "P011",
        "its source is export, and by the recipe fold_batchnorm",
    ),
    "a backend that runs nothing here": Accident(
        row("engine", provider=None, details__backend="tensorrt-rtx"),
        "engine",
        "P011",
        "it was made by tensorrt-rtx, and the recipe asks for onnxruntime",
    ),
    "an engine that never ran": Accident(row("engine", provider=None), "engine", "P002", f"{ENGINE} was never run"),
    "a row without its file": Accident(
        row("engine", file=None),
        "engine",
        "P001",
        "it has no file, though nothing before it failed",
    ),
    "no certificate": Accident(
        row("fold_batchnorm", certificate=None),
        "fold_batchnorm",
        "P014",
        "it has no certificate",
    ),
    "a certificate that refutes": Accident(
        row("int8", certificate__refuted=[{"module": "conv1", "found": "it"}]),
        "int8",
        "P014",
        "its certificate refutes something of which the row does not tell",
    ),
    "the certificate of another stage": Accident(
        report(lambda told: told["stages"][4].update(certificate=told["stages"][3]["certificate"])),
        "int8",
        "P014",
        "its certificate is that of fold_batchnorm",
    ),
    "another size": Accident(row("engine", bytes=7), "engine", "P014", "bytes, and the report tells of 7"),
    "more in 8 bits": Accident(
        row("engine", int8_share=1.0),
        "engine",
        "P015",
        "06-engine.json has another int8_share than the report",
    ),
    "another work": Accident(
        row("int8", work="all of it"),
        "int8",
        "P015",
        "05-int8.json has another work than the report",
    ),
    "no pair": Accident(
        graph(INT8, without_pairs),
        "int8",
        "P014",
        "05-int8.onnx holds no Q/DQ pair, and the report tells of int8",
    ),
    "classes of a graph exchanged": Accident(
        graph(INT8, says("classes", first_exchanged)),
        "int8",
        "P013",
        "the classes of 05-int8.onnx are 1, 0, 2 from number 0 on",
    ),
    "fewer classes": Accident(
        report(lambda told: told["classes"].pop()),
        "report",
        "P012",
        "the saved answers are of 10 classes, and the report has 9",
    ),
    "the std of one graph": Accident(
        graph("03-simplify.onnx", says("preprocessing", lambda record: record | {"std": [1.0]})),
        "simplify",
        "P013",
        "the preprocessing of 03-simplify.onnx has std [1.0], and that of 01-freeze.safetensors",
    ),
    "the contract of another preprocessing": Accident(
        lambda directory, _: write(
            directory,
            {**read(directory, "conformance/record.json"), "preprocessing": {"input_size": 64}},
            "conformance/record.json",
        ),
        "freeze",
        "P013",
        "the preprocessing of conformance/record.json has input_size 64",
    ),
    "a label too many": Accident(
        answers(lambda tensors: tensors["labels"].__setitem__(0, 10)),
        "report",
        "P012",
        "the saved labels go from 0 to 10",
    ),
    "labels that are no classes": Accident(
        answers(lambda tensors: tensors.update(labels=tensors["labels"].astype(np.float32))),
        "report",
        "P012",
        "the saved labels are float32, and no classes",
    ),
    "every image a copy": Accident(
        answers(lambda tensors: tensors["distinct"].fill(False)), "report", "P012", "is saved as the copy of another"
    ),
    "part of its answers gone": Accident(
        answers(lambda tensors: tensors.pop("step_cosine.engine")),
        "engine",
        "P012",
        "it was judged, and its answers are not saved",
    ),
    "a step that nothing gives": Accident(
        row("int8", step__max_abs=0.5), "int8", "P012", "its step.max_abs is 0.5 in the report"
    ),
    "better in the worst images": Accident(
        row("int8", spread__worst_db=34.5), "int8", "P012", "its spread.worst_db is 34.5 in the report"
    ),
    "a class that lost less": Accident(
        report(lambda told: told["subsets"]["classes"][0].update(lost=-1)),
        "report",
        "P012",
        "'lost': -1, 'gained':",
    ),
    "answers gone": Accident(
        answers(lambda tensors: tensors.pop("top1.engine")),
        "engine",
        "P012",
        "it was judged, and its answers are not saved",
    ),
    "answers of a stage that is none": Accident(
        answers(lambda tensors: tensors.update({"top1.equalise": tensors["top1.int8"]})),
        "report",
        "P012",
        "there are saved answers of equalise, which the report does not judge",
    ),
    "an SQNR of NaN": Accident(
        answers(with_nan("sqnr_db.int8", 5)),
        "int8",
        "P012",
        "its saved sqnr_db is NaN or infinity for 1 of 900 images",
    ),
    "an answer that is no class": Accident(
        answers(lambda tensors: tensors["top1.int8"].__setitem__(0, 99)),
        "int8",
        "P012",
        "its saved answers go from 0 to 99",
    ),
    "answers of another build": Accident(from_other(ANSWERS), "int8", "P012", "by the saved answers"),
    "fewer lost": Accident(row("engine", drop__lost=70), "engine", "P012", "its drop.lost is 70 in the report"),
    "more images": Accident(
        row("engine", accuracy__n=90_000),
        "engine",
        "P012",
        "its accuracy.n is 90000 in the report",
    ),
    "a note gone": Accident(
        gone("04-fold_batchnorm.json"),
        "fold_batchnorm",
        "P015",
        "04-fold_batchnorm.json is gone",
        sealed=False,
    ),
    "a note of another source": Accident(
        note("05-int8.json", key={"stage": "int8", "source": "0" * 64}),
        "int8",
        "P015",
        "05-int8.json tells that 05-int8.onnx was made from another file than 04-fold_batchnorm.onnx",
    ),
    "evidence gone": Accident(
        gone("evidence.json"),
        "report",
        "P015",
        "evidence.json is gone or not what",
        sealed=False,
    ),
    "a vector gone": Accident(
        gone("conformance/record.json"),
        "report",
        "P015",
        "conformance/record.json is gone or not what",
        sealed=False,
    ),
    "two builds mixed": Accident(
        from_other(INT8, "05-int8.json", ENGINE, "06-engine.json"),
        "int8",
        "P002",
        "05-int8.onnx was changed after the build wrote it",
        sealed=False,
    ),
    "a stage of an earlier build": Accident(
        left_over,
        "report",
        "P015",
        "07-engine.ort.onnx is of another build: no row of report.json tells of it",
    ),
}
ACCIDENTS = ALSO_RUN_AGAIN | OTHERS | MORE
