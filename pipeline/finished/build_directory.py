"""A finished build found again: its report, its recipe, and the very images that judged it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import workspace
from pipeline.console.news import say
from pipeline.errors import BadRequest
from pipeline.recipe import Recipe
from pipeline.report.ledger import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.data.images import Images
    from pipeline.stage import Role, Tolerance


def report(directory: Path) -> dict[str, Any]:
    """The report of the build in ``directory``; raises BadRequest where there is none."""
    found = workspace.read_note(directory / "report.json")
    if found.get("schema") != SCHEMA:
        raise BadRequest(f"{directory} holds no report.json of schema {SCHEMA}; give the directory of a finished build")
    return found


def damaged(directory: Path, error: Exception) -> BadRequest:
    """The sentence for a report that lacks what it should hold."""
    return BadRequest(f"{directory / 'report.json'} is not whole ({error!r}); build again")


def touched(directory: Path) -> list[str]:
    """Which files of the build are not what it wrote, each in a few words."""
    try:
        rows = [row for row in workspace.read_note(directory / "report.json").get("stages") or () if row["file"]]
        written = [(directory / Path(row["file"]).name, row["sha256"]) for row in rows]
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(directory, error) from error
    return [why for path, digest in written if (why := workspace.other(path, digest)) is not None]


def recipe_of(directory: Path) -> Recipe:
    """What was asked for when ``directory`` was built; raises BadRequest where its report does not say it."""
    try:
        said = report(directory)["recipe"]
        # A knob that is newer than the build had its default then.
        asked = {knob.name: said.get(knob.name, knob.default) for knob in fields(Recipe)}
        paths = {knob.name for knob in fields(Recipe) if knob.metadata.get("type") is Path}
        knobs: dict[str, Any] = {
            name: Path(value) if name in paths and value else value for name, value in asked.items()
        }
        return Recipe(**knobs)
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(directory, error) from error


def test_images(directory: Path) -> Images:
    """The images that judged the build in ``directory``; raises BadRequest where they are not the same any more."""
    from pipeline.data import sampling, sets

    recipe = recipe_of(directory)
    try:
        digest = report(directory)["images"]["test"]
    except (KeyError, TypeError) as error:
        raise damaged(directory, error) from error
    data = sets.load(recipe)
    images = sampling.test(recipe, data, data.preprocessing.adjusted(recipe))
    if images.digest != digest:
        raise BadRequest(
            f"--data {recipe.data} no longer gives the {len(images)} images that judged {directory}; "
            "restore them or build again"
        )
    return images


def stage_files(directory: Path, stage: str | None) -> tuple[Path, Path]:
    """The file that ``stage`` was made from, and the one it made; without a name the first failed, else the noisiest.

    Where one is not what the build wrote, a line says so: it is what it is now that is looked into. Raises BadRequest
    where there is no such stage, or its files are gone.
    """
    found = report(directory)
    try:
        rows = {row["name"]: row for row in found["stages"] if row["file"]}
        # Where channels were rescaled or weights retrained the same name means other values.
        comparable = [
            name
            for name, row in rows.items()
            if _onnx(row) and _onnx(rows.get(row["source"], {})) and not _others(row["certificate"] or {})
        ]
        failed = [name for name in comparable if rows[name]["verdict"] == "fail"]
        noise = {name: _noise(rows[name]) for name in comparable}
        name = stage or next(iter(failed), None) or max(noise, key=lambda item: noise[item], default=None)
        if name not in comparable:
            raise BadRequest(
                f"--stage {stage}: {directory} has {', '.join(comparable) or 'no stage'} to be looked into"
            )
        chosen = [rows[rows[name]["source"]], rows[name]]
        paths = [directory / Path(row["file"]).name for row in chosen]
        for path, row in zip(paths, chosen, strict=True):
            if (why := workspace.other(path, row["sha256"])) is None:
                continue
            if not path.is_file():
                raise BadRequest(f"{directory}: {why}; build again")
            say(f"{why}: this looks at what it is now")
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(directory, error) from error
    return paths[0], paths[1]


def last_judged(directory: Path) -> tuple[Path, float]:
    """The last file of the build that was judged, and the confidence of its bounds; raises BadRequest without one."""
    found = report(directory)
    try:
        rows = [row for row in found["stages"] if row["accuracy"]]
        if not rows:
            raise BadRequest(f"{directory} has no judged file; build again")
        path, digest = directory / Path(rows[-1]["file"]).name, rows[-1]["sha256"]
        confidence = float(found["recipe"]["confidence"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise damaged(directory, error) from error
    if (why := workspace.other(path, digest)) is not None:
        raise BadRequest(f"{directory}: {why}; build again")
    return path, confidence


def engine_files(directory: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Each engine of the build and the details of its stage; raises BadRequest where one is not what was built."""
    try:
        said = report(directory)
        rows = [row for row in said["stages"] if row["name"].startswith("engine") and row["file"]]
        found = [(directory / Path(row["file"]).name, row["sha256"], dict(row["details"])) for row in rows]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise damaged(directory, error) from error
    if not found:
        raise BadRequest(
            f"{directory} has no engine, and its verdict is {said.get('verdict')}; check {directory} says why"
        )
    for path, digest, _ in found:
        if (why := workspace.other(path, digest)) is not None:
            raise BadRequest(f"{directory}: {why}; build again")
    return [(path, details) for path, _, details in found]


def _others(certificate: dict[str, Any]) -> bool:
    return bool(certificate.get("rescaled") or certificate.get("retrained"))


def _onnx(row: dict[str, Any]) -> bool:
    return str(row.get("file")).endswith(".onnx")


def _noise(row: dict[str, Any]) -> float:
    ratio = row["step"]["sqnr_db"] if row["step"] else 0.0
    return -1e3 if ratio is None else -float(ratio)


# The roles of rows that were written before 0.2, which had a name only.
ROLES: dict[str, Role] = {
    "freeze": "reference",
    "export": "graph",
    "simplify": "graph",
    "fold_batchnorm": "graph",
    "equalise": "recovery",
    "qat": "recovery",
    "int8": "quantised",
    "fp8": "quantised",
    "halve": "typing",
    "fp16": "typing",
    "float_weights": "typing",
    "uint8_input": "input",
}


def role_of(row: Mapping[str, Any]) -> tuple[Role, str | None]:
    """The role of a row of report.json, and its precision; None where that is the recipe's."""
    if "role" in row:
        return row["role"], row["precision"]
    name = str(row["name"])
    beside = name.startswith("fp16_")
    name = name.removeprefix("fp16_")
    return "engine" if name.startswith("engine") else ROLES[name], "fp16" if beside else None


def bounds(directory: Path, stage: str, **asked: float | None) -> Tolerance:
    """The bounds of ``stage`` in the build, with those of ``asked`` that are not None in their place."""
    from pipeline.building import plan

    recipe = recipe_of(directory)
    role, precision = role_of(next(row for row in report(directory)["stages"] if row["name"] == stage))
    found = plan.bounds(stage, role, precision or recipe.precision, recipe)
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    return replace(found, **given)
