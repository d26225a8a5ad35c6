"""What a bundle meets on devices that are not here: recorded facts against the data that travels in the bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.ship import bundle_members
from pipeline.ship.agent import device_facts, latency, preflight
from pipeline.ship.agent.device_facts import Facts
from pipeline.targets import table

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
ORIN = Facts(
    machine="aarch64", processor=None, model="NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
    module="jetson-orin-nx", l4t="36.4.3", gpu="Orin", sm="8.7", tensorrt="10.3.0", onnxruntime=None,
    memory=16 * GIB, available=8 * GIB, power_mode="25W", gpu_clocks=[306000000, 408000000, 918000000],
)  # fmt: skip
MODEL = {"target": "jetson-orin-nx@jp6.2", "precision": "int8-fp16", "opset": 19, "tensorrt": "10.3.0"}


def asked(here: Facts, free: int = 8 * GIB, active: Any = None, **model: Any) -> list[preflight.Answer]:
    data = json.loads(json.dumps(table.data(), default=str))
    told = {**MODEL, **model}
    manifest = {"model": {**told, **bundle_members.needs(told["precision"])}}
    engine = preflight.chosen("auto", manifest, here)
    return preflight.ask(preflight.Question(here, manifest, data, engine, 30 * 2**20, free, active))


def test_the_device_it_was_made_for() -> None:
    said = asked(ORIN)
    assert preflight.worst(said) == "go", said
    assert "power mode 25W; GPU at least, now, at most: 306, 408, 918 MHz" in [answer.sentence for answer in said]
    changed = {**ORIN.device("tensorrt"), "tensorrt": "8.6.2"}
    assert preflight.worst(asked(ORIN, active=changed)) == "rebuild"
    assert preflight.worst(asked(ORIN, active=ORIN.device("tensorrt"))) == "go"


NANO = replace(
    ORIN, model="NVIDIA Jetson Nano Developer Kit", module="jetson-nano", sm="5.3", l4t="32.7.1", tensorrt="8.2.1"
)
PC = replace(ORIN, machine="x86_64", model=None, module=None)
TX2 = replace(NANO, module="jetson-tx2")
JP5 = replace(ORIN, l4t="35.4.1", tensorrt="8.5.2.2")


@pytest.mark.parametrize(
    ("here", "model", "verdict", "words"),
    [
        (PC, {}, "refuse", "this is no Jetson that is known (x86_64)"),
        (replace(ORIN, module="jetson-agx-orin"), {}, "refuse", "for jetson-orin-nx, and this is jetson-agx-orin"),
        (replace(ORIN, machine="x86_64"), {}, "refuse", "for aarch64, this runs x86_64"),
        (replace(ORIN, sm="8.6"), {}, "refuse", "has SM 8.7, the driver here says 8.6"),
        (replace(ORIN, tensorrt=None), {}, "refuse", "install python3-libnvinfer"),
        (replace(ORIN, sm=None), {}, "refuse", "no GPU with a working driver"),
        (NANO, {"target": "jetson-nano@jp4.6.1"}, "refuse", "TensorRT 8.2.1 is too old: 8.5 or newer"),
        (NANO, {"target": "jetson-nano@jp4.6.1"}, "refuse", "jetson-nano computes in fp32, fp16, not in int8-fp16"),
        (TX2, {"target": "jetson-tx2", "precision": "int8-trt8"}, "refuse", "not in int8-trt8"),
        (replace(ORIN, tensorrt="12.0.0"), {}, "refuse", "newer than any that this agent knows"),
        (JP5, {}, "refuse", "TensorRT 8.5.2.2 does not keep the types of int8-fp16"),
        (JP5, {"precision": "int8-trt8", "opset": 17}, "go", "JetPack 5.1 brings TensorRT 8.5.2"),
        (replace(ORIN, tensorrt="11.4.0"), {}, "refuse", "TensorRT 11 before 11.4.1 does not support JetPack"),
        (replace(ORIN, tensorrt="11.4.0.5"), {}, "refuse", "TensorRT 11 before 11.4.1 does not support JetPack"),
        (replace(ORIN, tensorrt="10.13.3"), {}, "refuse", "names JetPack with 10.7 at most"),
        (replace(ORIN, tensorrt="10.7.0"), {}, "go", "up to 10.7.0 can be unpacked over JetPack 6.1"),
        (replace(ORIN, l4t="40.1"), {}, "unknown", "nothing is known of L4T 40.1; --allow-unknown"),
        (replace(ORIN, l4t="36.3.0"), {}, "unknown", "nothing is known of TensorRT 10.3.0 on JetPack 6.0"),
        (ORIN, {"opset": 21}, "refuse", "reads opset 20, the graph has 21"),
        (replace(ORIN, available=2**28), {}, "refuse", "256 MiB of memory are free"),
    ],
)  # fmt: skip
def test_each_device_that_is_not(here: Facts, model: dict[str, Any], verdict: str, words: str) -> None:
    said = asked(here, **model)
    assert preflight.worst(said) == verdict, said
    assert any(words in answer.sentence for answer in said), said


def test_a_full_disk() -> None:
    assert any("MiB of the disk are free" in answer.sentence for answer in asked(ORIN, free=2**20))
    assert preflight.worst(asked(ORIN, free=2**20)) == "refuse"


@pytest.mark.parametrize(
    ("now", "floor", "words"),
    [
        (1_800_000_000, 0, None),
        (1_900_000_001, 0, "expired at 1900000000"),
        (0, 0, "the clock here says 0, before the bundle was released"),
        (0, 1_900_000_001, "expired at 1900000000"),  # a newer release was seen here: it is later than the clock says
    ],
)
def test_a_bundle_that_expires_and_a_clock_in_1970(now: int, floor: int, words: str | None) -> None:
    said = preflight.expired({"expires": 1_900_000_000, "released": 1_790_000_000}, now, floor)
    assert (said is None) if words is None else (said is not None and words in said.sentence)
    assert preflight.expired({"expires": None, "released": 1_790_000_000}, 0, 0) is None


@pytest.mark.parametrize(
    ("model", "module"),
    [
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit", "jetson-orin-nano"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "jetson-agx-orin"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "jetson-xavier-nx"),
        ("Jetson-AGX", "jetson-agx-xavier"),
        ("quill", "jetson-tx2"),
        ("NVIDIA Jetson Nano Developer Kit", "jetson-nano"),
        ("Raspberry Pi 5", None),
    ],
)
def test_modules_by_the_words_of_the_device_tree(model: str, module: str | None) -> None:
    assert device_facts.module_of(model) == module
    assert module is None or module in table.data()["module"]


def test_facts_are_read_from_files(tmp_path: Path) -> None:
    for name, text in (
        (device_facts.TREE, "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0"),
        (device_facts.RELEASE, "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64"),
        (device_facts.MEMORY, "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n"),
        ("sys/class/devfreq/17000000.gpu/min_freq", "306000000\n"),
        ("sys/class/devfreq/17000000.gpu/cur_freq", "612000000\n"),
        ("sys/class/devfreq/17000000.gpu/max_freq", "918000000\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = device_facts.read(str(tmp_path))
    assert (found.module, found.l4t, found.available) == ("jetson-orin-nx", "36.4.3", 8000000 * 1024)
    assert found.gpu_clocks == [306000000, 612000000, 918000000]


@pytest.mark.parametrize(
    ("text", "processor"),
    [
        ("model name\t: Xeon\nflags\t: avx2 avx512_vnni", "Xeon with VNNI"),
        ("model name\t: Xeon\nflags\t: avx2", "Xeon"),
        # As L4T prints it: the name says nothing, and is the same on every Jetson.
        (
            "model name\t: ARMv8 rev 1 (v8l)\nFeatures\t: asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
            "ARM 0x41/0xd42 with dot products",
        ),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd07\n\nCPU implementer\t: 0x4e\nCPU part\t: 0x003\n",
         "ARM 0x41/0xd07 + ARM 0x4e/0x003"),
        ("processor\t: 0\n", None),
    ],
)  # fmt: skip
def test_a_processor_is_told_from_another(tmp_path: Path, text: str, processor: str | None) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    assert device_facts.read(str(tmp_path)).processor == processor


ORIN_NX = (
    "RAM 3046/15523MB (lfb 4x4MB) SWAP 0/7761MB (cached 0MB) CPU [3%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 99%@[{}] "
    "VIC_FREQ 729 APE 174 cpu@46.5C soc2@45C gpu@{}C tj@47C VDD_IN {}mW/4936mW"
    " VDD_CPU_GPU_CV 1200mW/1200mW VDD_SOC 1100mW/1100mW"
)
NANO_LINE = (
    "RAM 900/3964MB CPU [20%@1479] EMC_FREQ 0% GR3D_FREQ 61%@921 PLL@30C GPU@31.5C "
    "POM_5V_IN 4000/3900 POM_5V_GPU 1500/1400 POM_5V_CPU 500/500"
)
AGX = (
    "RAM 1/2MB GR3D_FREQ 99%@[1300,1300] GPU@50C "
    "VDD_GPU_SOC 8000mW/8000mW VDD_CPU_CV 2000mW/2000mW VIN_SYS_5V0 4000mW/4000mW"
)


def test_power_clocks_and_throttling_of_recorded_lines() -> None:
    found = latency.drawn([ORIN_NX.format(918, 55, milliwatts) for milliwatts in (10000, 12000)])
    assert found == {"watts": 11.0, "rails": ["VDD_IN"], "gpu_mhz": [918, 918], "gpu_celsius": 55.0, "throttled": False}
    hot = latency.drawn([ORIN_NX.format(mhz, 95, 9000) for mhz in (918, 918, 612)])
    assert (hot["throttled"], hot["gpu_mhz"], hot["gpu_celsius"]) == (True, [612, 918], 95.0)
    assert latency.drawn([NANO_LINE])["watts"] == 4.0
    assert latency.drawn([AGX]) | {"gpu_celsius": 50.0} == {
        "watts": 14.0, "rails": ["VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0"], "gpu_mhz": [1300, 1300],
        "gpu_celsius": 50.0, "throttled": False,
    }  # fmt: skip
    assert latency.drawn([]) == dict.fromkeys(("watts", "gpu_mhz", "gpu_celsius", "throttled")) | {"rails": []}
