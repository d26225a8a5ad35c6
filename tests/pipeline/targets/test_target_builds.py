"""A target decides engine, placement and the form of INT8; for a Jetson the build ends in a recipe that runs there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from faults import array

from exporters import trtexec
from exporters.certify import certify
from exporters.float_weights import float_weights
from pipeline.building import backends
from pipeline.errors import BadRequest
from pipeline.precisions import PRECISIONS
from pipeline.recipe import Recipe
from pipeline.targets import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

XAVIER, ORIN = "jetson-xavier-nx@jp5.1", "jetson-orin-nx@jp6.2"

# target, precision → engine, placement, precision, TensorRT, backends.
CASES = f"""
cpu             int8  → onnxruntime  onnxruntime  int8       -        onnxruntime
cpu             fp32  → onnxruntime  tensorrt     fp32       -        onnxruntime
rtx             int8  → tensorrt-rtx tensorrt     int8-fp16  -        tensorrt-rtx
rtx             fp16  → tensorrt-rtx tensorrt     fp16       -        tensorrt-rtx
{XAVIER}        int8  → auto         tensorrt     int8-trt8  8.5.2    onnxruntime,tensorrt-rtx,device
{XAVIER}        fp16  → auto         tensorrt     fp16       8.5.2    onnxruntime,tensorrt-rtx,device
jetson-agx-orin@jp6.0 int8 → auto    tensorrt     int8-trt8  8.6.2    onnxruntime,tensorrt-rtx,device
{ORIN}          int8  → auto         tensorrt     int8-fp16  10.3.0   onnxruntime,tensorrt-rtx,device
{ORIN}          int8-fp16 → auto     tensorrt     int8-fp16  10.3.0   onnxruntime,tensorrt-rtx,device
jetson-thor@jp7.2 fp8 → auto         tensorrt     fp8        10.16.2  onnxruntime,tensorrt-rtx,device
""".split("\n")[1:-1]


@pytest.mark.parametrize("case", CASES)
def test_what_a_target_decides(case: str) -> None:
    (target, precision), (engine, placement, form, tensorrt, names) = (part.split() for part in case.split("→"))
    found = resolve.resolved(Recipe(arch="resnet18", target=target, precision=precision))
    told = (found.engine, found.placement, found.precision, found.tensorrt or "-")
    assert told == (engine, placement, form, tensorrt)
    backends.refuse(found)
    assert [backend.name for backend in backends.chosen(found)] == names.split(",")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"target": "jetson-orin-nx"}, "on which JetPack. Name it, as in jetson-orin-nx@jp7.2; known: 5.1, 6.0, 6.1"),
        ({"target": "orin-nx@jp6.2"}, "did you mean jetson-orin-nx"),
        ({"target": "jetson-nano@jp4.6.1"}, "TensorRT 8.2.1 reads opset 13 and fp32 is written with 17 .refused"),
        ({"target": "jetson-thor@jp7.0", "dla_core": 0}, "jetson-thor has no DLA .refused"),
        ({"target": ORIN, "dla_core": 0, "precision": "int8"}, "a DLA computes in fp16 and int8, not int8-fp16"),
        ({"target": ORIN, "tensorrt": "11.4.1"}, "TensorRT 11.4.1 needs JetPack 7.2.2 or newer"),
        ({"target": ORIN, "precision": "fp8"}, "jetson-orin-nx computes in fp32, fp16, int8, int8-fp16 .refused"),
        ({"target": ORIN, "engine": "onnxruntime"}, "decides the engine: leave --engine onnxruntime out"),
        ({"target": "jetson-orin-nx@jp9"}, "nothing is known of the TensorRT there; name it by --tensorrt"),
        ({"target": ORIN, "max_batch": [1, 4]}, "trtexec builds one profile"),
        ({"target": "cpu", "tensorrt": "10.3"}, "--tensorrt goes with a Jetson"),
        ({"tensorrt": "10.3"}, "--tensorrt goes with --target"),
        ({"target": ORIN, "precision": "int8", "placement": "onnxruntime"}, "reads pairs placed for tensorrt: leave"),
        ({"target": "gpu"}, "no NVIDIA GPU"),
    ],
)
def test_what_cannot_be_had_there_is_refused_before_any_work(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        backends.refuse(resolve.resolved(Recipe(arch="resnet18", **asked)))


@pytest.fixture(scope="module")
def jetsons(cli: Cli, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """INT8 for a TensorRT 8 and for a TensorRT 10; not to be changed."""
    found = {}
    for target in (XAVIER, ORIN):
        found[target] = tmp_path_factory.mktemp("jetson") / "out"
        flags = ("--arch", "resnext_tiny", "--precision", "int8", "--target", target, "--weights", weights)
        cli.report(*flags, "--workspace", "1G", "-o", found[target])
    return found


@pytest.mark.parametrize(("target", "form"), [(XAVIER, "float_weights"), (ORIN, "halve")])
def test_the_build_for_a_jetson_is_judged_here_built_by_its_stand_in_and_ends_in_a_recipe(
    jetsons: dict[str, Path], target: str, form: str
) -> None:
    report = json.loads((jetsons[target] / "report.json").read_text())
    rows = {row["name"]: row for row in report["stages"]}
    ours, beside = list(rows)[-7:-3], list(rows)[-3:]
    assert ours == [form, "engine", "engine_tensorrt_rtx", "engine_device"]
    assert beside == ["fp16", "fp16_engine_tensorrt_rtx", "fp16_engine_device"]
    assert [rows[name]["verdict"] for name in ours] == ["pass", "pass", "not_run", "not_run"]
    assert rows["engine_tensorrt_rtx"]["int8_share"] == 1
    assert {rows[name]["source"] for name in ours[1:]} == {form}
    assert any("stand in for those of the device" in sentence for sentence in report["not_proven"])


# A trtexec that writes down what it was told, and an engine.
TRTEXEC = """#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{number}] # trtexec"
for each in "$@"; do case $each in --saveEngine=*) echo plan > "${{each#--saveEngine=}}";; esac; done
echo "$@" >> "$(dirname "$0")/told"
"""


def on_device(folder: Path, number: int | None) -> subprocess.CompletedProcess[str]:
    """The recipe in ``folder``, run where a trtexec of that version is."""
    if number is not None:
        (folder / "bin").mkdir()
        (folder / "bin" / "trtexec").write_text(TRTEXEC.format(number=number))
        (folder / "bin" / "trtexec").chmod(0o755)
    (script,) = folder.glob("*.sh")
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    line = ["sh", script, "out.engine"]
    return subprocess.run(line, env={"PATH": path}, capture_output=True, text=True, check=False)


@pytest.fixture
def shipped(jetsons: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """What goes to the device: the recipe and its graph."""
    for target, folder in jetsons.items():
        (tmp_path / target).mkdir()
        for path in (*folder.glob("??-engine_device.sh"), *folder.glob("07-*.onnx")):
            shutil.copy(path, tmp_path / target)
    return {target: tmp_path / target for target in jetsons}


@pytest.mark.parametrize(
    ("target", "number", "flags"),
    [(XAVIER, 8502, ["--int8", "--fp16", "--buildOnly"]), (ORIN, 100300, ["--stronglyTyped", "--skipInference"])],
)
def test_the_recipe_builds_on_the_device(shipped: dict[str, Path], target: str, number: int, flags: list[str]) -> None:
    done = on_device(shipped[target], number)
    assert done.returncode == 0, done.stderr
    assert (shipped[target] / "out.engine").read_text() == "plan\n"
    _, told = (shipped[target] / "bin" / "told").read_text().splitlines()
    shapes = [f"--{end}Shapes=images:1x1x32x32" for end in ("min", "opt", "max")]
    assert told.split()[2:] == [*flags, *shapes, "--profilingVerbosity=detailed", "--memPoolSize=workspace:1024"]


def test_a_recipe_that_cannot_be_followed_says_so_and_writes_nothing(shipped: dict[str, Path]) -> None:
    folder = shipped[ORIN]
    done = on_device(folder, None)
    assert (done.returncode, "there is no trtexec here" in done.stderr) == (2, True)
    done = on_device(folder, 101602)
    assert done.returncode == 2
    assert f"made for TensorRT 10.3.0 (100300) of {ORIN}, here is 101602: build again with --target" in done.stderr
    model = next(folder.glob("*.onnx"))
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    shutil.rmtree(folder / "bin")
    done = on_device(folder, 100300)
    assert (done.returncode, "is not the file that was judged: copy it again" in done.stderr) == (2, True)
    model.unlink()
    shutil.rmtree(folder / "bin")
    assert "is not beside this script: copy it there" in on_device(folder, 100300).stderr
    assert not list(folder.glob("out.engine*"))


def test_what_a_trtexec_lacks_is_refused() -> None:
    def lines(version: str, precision: str, **options: Any) -> str:
        row = PRECISIONS[precision]
        told = {
            "target": "jetson",
            "tensorrt": version,
            "typing": row.typing,
            "weak_flags": row.weak_flags,
            **options,
        }
        return trtexec.script("x.sh", "a.onnx", "0", (3, 8, 8), precision, told)

    with pytest.raises(ValueError, match=r"8\.5\.2 has no --builderOptimizationLevel"):
        lines("8.5.2", "fp16", builder_optimization_level=4)
    with pytest.raises(ValueError, match=r"there is no recipe for TensorRT 8\.2\.1"):
        lines("8.2.1", "fp16")
    with pytest.raises(ValueError, match=r"8\.6\.2 does not keep the types of int8-fp16"):
        lines("8.6.2", "int8-fp16")
    told = lines("10.3.0", "fp16", dla_core=1, builder_optimization_level=4, profiles=[[1, 2, 4]])
    for flag in ("--useDLACore=1", "--allowGPUFallback", "--builderOptimizationLevel=4", "--optShapes=images:2x3x8x8"):
        assert f"  {flag} \\\n" in told or f"  {flag}\n" in told
    assert "--allowGPUFallback" not in lines("10.3.0", "fp16", dla_core=1, no_gpu_fallback=True)
    assert "Typed" not in lines("11.4.1", "fp16")


def test_weights_in_float32_keep_their_levels_and_a_changed_one_is_refuted(built: Path, tmp_path: Path) -> None:
    src, dst = built / "05-int8.onnx", tmp_path / "a.onnx"
    assert float_weights(src, dst).startswith("14 INT8 weights")
    assert all(not i.name.endswith("_quantized") for i in onnx.load(dst).graph.initializer)
    certificate = certify(src, dst)
    assert (certificate.proven, certificate.largest) == (True, 0)
    model = onnx.load(dst)
    name = next(i.name for i in model.graph.initializer if "layer2.0.conv2" in i.name and i.name.endswith("_float"))
    array(name, lambda weight: weight * 1.1)(model)
    onnx.save(model, tmp_path / "b.onnx")
    assert {item.module for item in certify(src, tmp_path / "b.onnx").refuted} == {"layer2.0.conv2"}


def test_dry_run_says_what_would_be_done_and_does_nothing(cli: Cli, tmp_path: Path) -> None:
    flags = ("--arch", "resnext_tiny", "--precision", "int8", "--target", ORIN, "-o", tmp_path / "out")
    done = cli(*flags, "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("resnext_tiny in int8-fp16; weights trained here")
    assert "10-engine_device.sh by device, not run here" in lines
    assert "13-fp16_engine_device.sh by device, not run here" in lines
    assert lines[-1] == f"all in {tmp_path / 'out'}; nothing was done"
    assert f"--target {ORIN}: int8 is int8-fp16 there" in done.stderr
    assert not (tmp_path / "out").exists()
