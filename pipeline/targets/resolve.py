"""What a target decides of a recipe: backends, the form of INT8, batches; refused before any work."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline import provenance
from pipeline.errors import BadRequest
from pipeline.targets import compatibility, table

if TYPE_CHECKING:
    from pipeline.recipe import Recipe

# Targets that are no Jetson, and the backend of each.
ENGINES = {"cpu": "onnxruntime", "gpu": "tensorrt", "rtx": "tensorrt-rtx"}
# TensorRT-RTX has no Jetson among its GPUs: its parser and builder stand in, for the nearest SM that it knows.
STAND_IN = {"jetson-thor": "120"}
OTHERWISE = "86"


def resolved(recipe: Recipe) -> Recipe:
    """``recipe`` with all that its target decides; raises BadRequest where it cannot be had there."""
    if recipe.target is None:
        if recipe.tensorrt is not None:
            raise BadRequest("--tensorrt goes with --target: it is the one on a Jetson")
        return recipe

    backend = ENGINES.get(recipe.target, "auto")
    if recipe.engine not in {"auto", backend}:
        raise BadRequest(f"--target {recipe.target} decides the engine: leave --engine {recipe.engine} out")
    if recipe.target != "cpu" and recipe.placement != "tensorrt":
        raise BadRequest(f"--target {recipe.target} reads pairs placed for tensorrt: leave --placement out")
    if backend == "auto":
        return _jetson(recipe)

    if recipe.tensorrt is not None:
        raise BadRequest(f"--tensorrt goes with a Jetson, not with --target {recipe.target}")
    if recipe.target == "cpu":
        return replace(recipe, engine=backend)
    precision = compatibility.form(recipe.precision, _tensorrt_here(recipe.target))
    return replace(recipe, engine=backend, precision=precision)


def _tensorrt_here(target: str) -> table.Version:
    """The TensorRT that builds for this machine's GPU or with TensorRT-RTX, which types as TensorRT 11 does."""
    if target == "gpu":
        installed = provenance.versions(("tensorrt",)).get("tensorrt")
        if installed:
            return table.version(installed)
    return (11,)


def _jetson(recipe: Recipe) -> Recipe:
    flag = f"--target {recipe.target}"
    target = table.target(str(recipe.target), ENGINES)
    name = target.module.name
    release = _release(target, flag)
    row = table.jetpack(release)
    tensorrt = recipe.tensorrt
    if not tensorrt and row is not None:
        tensorrt = row["tensorrt"]
    if not tensorrt:
        raise BadRequest(f"{flag}: nothing is known of the TensorRT there; name it by --tensorrt")

    version = table.version(tensorrt)
    precision = compatibility.form(recipe.precision, version)
    answers = compatibility.ask(replace(target, release=release), version, precision, recipe.dla_core is not None)
    if compatibility.worst(answers) != "go":
        reasons = [f"{answer.sentence} ({answer.verdict})" for answer in answers if answer.verdict != "go"]
        raise BadRequest(f"{flag} --precision {recipe.precision}: {'; '.join(reasons)}")
    if len(recipe.profiles or ()) > 1:
        raise BadRequest(
            f"{flag}: trtexec builds one profile; give one number to each of --min-batch, --opt-batch, --max-batch"
        )

    least, best, most = (recipe.profiles or [(1, 1, 1)])[0]
    dotted = ".".join(map(str, release))
    return replace(
        recipe,
        target=f"{name}@jp{dotted}",
        tensorrt=tensorrt,
        precision=precision,
        rtx_sm=recipe.rtx_sm or [STAND_IN.get(name, OTHERWISE)],
        min_batch=[least],
        opt_batch=[best],
        max_batch=[most],
    )


def _release(target: table.Target, flag: str) -> table.Version:
    """The JetPack that was named, or the only one whose TensorRT is known; raises BadRequest where several are."""
    if target.release is not None:
        return target.release
    releases = [row.name for row in table.jetpacks(target.module) if row["tensorrt"]]
    if len(releases) > 1:
        raise BadRequest(
            f"{flag}: on which JetPack? Name it, as in {target.module.name}@jp{releases[-1]}; "
            f"known: {', '.join(releases)}"
        )
    return table.version(releases[0])
