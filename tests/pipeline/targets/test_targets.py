"""What a device can do, by the sourced table: cases read from the same sources by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date

import pytest
from conftest import ROOT

from pipeline.errors import BadRequest
from pipeline.targets import compatibility, table

# target, TensorRT, precision, on the DLA, and the verdict.
CASES = """
jetson-nano@jp4.6          -       fp16       -    refused
jetson-nano                -       int8       -    refused
jetson-nano                -       fp8        -    refused
jetson-nano@jp5.1          -       fp16       -    refused
jetson-nano                -       fp16       dla  refused
jetson-tx2                 -       int8       -    refused
jetson-tx2@jp4.6.4         -       -          -    go
jetson-xavier-nx@jp5.1     -       fp16       -    go
jetson-xavier-nx@jp5.1.2   -       fp16       dla  go
jetson-xavier-nx@jp5.1     -       int8       dla  refused
jetson-xavier-nx@jp5.1     -       int8       -    refused
jetson-xavier-nx@jp5.1     -       int8-trt8  -    go
jetson-xavier-nx@jp5.1     -       int8-trt8  dla  refused
jetson-orin-nano@jp6.0     -       int8-trt8  -    go
jetson-xavier-nx@jp4.6.1   -       int8-trt8  -    refused
jetson-xavier-nx@jp6.0     -       fp16       -    refused
jetson-agx-xavier@jp4.6.1  -       -          -    go
jetson-agx-xavier@jp5.1    10.3    fp16       -    unknown
jetson-agx-xavier          11.4.1  -          -    refused
jetson-orin-nano@jp6.2     -       int8-fp16  -    go
jetson-orin-nano@jp6.2     -       int8       -    go
jetson-orin-nano@jp6.2     -       fp8        -    refused
jetson-orin-nano@jp6.2     -       fp16       dla  refused
jetson-orin-nano@jp6.0     -       int8-fp16  -    refused
jetson-orin-nano@jp6.0     -       fp16       -    go
jetson-orin-nano@jp7.2     -       int8-fp16  -    go
jetson-orin-nano@jp7.0     -       fp16       -    refused
jetson-orin-nano@jp9.9     -       fp16       -    unknown
jetson-orin-nx@jp6.2.1     -       int8-fp16  -    go
jetson-orin-nx@jp6.2       10.7    int8-fp16  -    go
jetson-orin-nx@jp6.2       10.7.0  fp16       dla  go
jetson-orin-nx@jp6.2       10.8    int8-fp16  -    refused
jetson-orin-nx@jp6.0       10.7    fp16       -    unknown
jetson-orin-nx             10.13.3 fp16       -    refused
jetson-orin-nx@jp6.2       10.16.2 fp16       -    refused
jetson-orin-nx@jp6.2       11.0    fp16       -    refused
jetson-orin-nx@jp6.2       11.4.1  fp16       -    refused
jetson-orin-nx@jp7.2.2     11.4.1  fp16       -    unknown
jetson-orin-nx@jp7.2       -       fp16       dla  refused
jetson-agx-orin@jp7.2.2    11.4.1  -          -    go
jetson-agx-orin@jp7.2.2    11.4.1  fp16       dla  go
jetson-agx-orin@jp7.2.2    11.4.1  int8       dla  unknown
jetson-agx-orin@jp7.2.2    11.4.0  fp16       -    refused
jetson-agx-orin@jp7.2.2    11.4.0.5  fp16     -    refused
jetson-agx-orin@jp7.2.1    11.4.1  fp16       -    refused
jetson-agx-orin@jp7.2.2    -       fp16       -    unknown
jetson-agx-orin@jp6.1      -       fp16       dla  go
jetson-agx-orin@jp6.1      -       fp32       dla  refused
jetson-agx-orin            10.13.3 fp16       -    refused
jetson-thor                -       fp16       dla  refused
jetson-thor@jp7.0          -       fp8        -    go
jetson-thor@jp7.1          10.13   int8-fp16  -    go
jetson-thor@jp7.0          11.0    fp16       -    refused
jetson-thor@jp7.2.2        11.4.1  fp8        -    go
jetson-thor@jp6.2          -       fp16       -    refused
""".split("\n")[1:-1]


@pytest.mark.parametrize("case", CASES)
def test_the_table_answers(case: str) -> None:
    name, version, precision, dla, verdict = (None if word == "-" else word for word in case.split())
    assert name is not None
    asked = table.version(version) if version else None
    answers = compatibility.ask(table.target(name), asked, precision, dla == "dla")
    assert compatibility.worst(answers) == verdict, answers
    assert all(answer.source or answer.verdict == "unknown" for answer in answers)


def test_every_cell_has_a_source_and_every_source_a_date() -> None:
    held = table.data()
    rows = [*held["module"].values(), *held["jetpack"].values(), *held["tensorrt"], held["rtx"]]
    cells = [cell for row in rows for name, cell in row.items() if name not in {"through", "since"}]
    sources = {cell[1] for cell in cells} | {row["source"] for row in held["combination"]}
    assert len(cells) > 80
    assert sources <= held["source"].keys()
    assert all(isinstance(source["read"], date) and source["what"] for source in held["source"].values())
    for row in held["combination"]:
        assert set(row.get("modules", [])) <= held["module"].keys()


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("jetson-orin", "did you mean jetson-orin-nx, jetson-agx-orin"),
        ("jetson-orin-nx@6.2", "what follows @ is a JetPack"),
        ("jetson-orin-nx@jpsix", "is no version"),
    ],
)
def test_what_names_no_device_is_refused(target: str, part: str) -> None:
    with pytest.raises(BadRequest, match=part):
        table.target(target)


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", "doctor", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_says_it_in_sentences_and_by_its_exit_code() -> None:
    for arguments, code in (
        (("--target", "jetson-agx-orin@jp7.2.2", "--tensorrt", "11.4.1", "--dla"), 0),
        (("--target", "jetson-thor", "--dla"), 2),
        (("--target", "jetson-orin-nano@jp9.9"), 4),
        (("--precision", "int8"), 2),
    ):
        assert doctor(*arguments).returncode == code
    done = doctor("--target", "jetson-orin-nx@jp6.2", "--tensorrt", "11.0")
    assert "refused  TensorRT 11 before 11.4.1 does not support JetPack [" in done.stdout
    assert "read 2026-11-21]" in done.stdout


def test_this_machine_is_described_without_heavy_imports() -> None:
    done = doctor("--json")
    assert done.returncode == 0, done.stderr
    said = [answer["sentence"] for answer in json.loads(done.stdout)["answers"]]
    assert any(sentence.startswith("torch ") for sentence in said)
    assert "--engine onnxruntime builds and runs here" in said
    code = (
        "import sys; from pipeline.targets import machine; machine.answers(); "
        "print({'torch', 'onnxruntime', 'tensorrt_rtx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr
