"""The page of a build shows what the files say."""

from __future__ import annotations

import html
import io
import json
import shlex
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT, TINY
from pages import Page, change, change_answers, png, read, refusal, refused, report
from PIL import Image

from pipeline import recipe as recipes
from pipeline.__main__ import parser
from pipeline.api import Result
from pipeline.report import evidence, figures, page

if TYPE_CHECKING:
    from conftest import Cli


@pytest.fixture(scope="module")
def shown(built: Path) -> Page:
    found = Page((built / page.FILE).read_text("utf-8"))
    assert found.open == []
    return found


def test_a_build_ends_with_a_page_that_can_load_and_run_nothing(built: Path, shown: Page) -> None:
    policy = next(each["content"] for each in shown.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not {"script", "link", "iframe", "form", "object", "embed"} & {tag for tag, _ in shown.elements}
    for _, attributes in shown.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert page.html(built) == (built / page.FILE).read_text("utf-8")


def test_its_figures_are_those_of_report_json(built: Path, shown: Page) -> None:
    told = read(built / "report.json")
    rows = {row["name"]: row for row in told["stages"]}
    engine, drop = rows["engine"], rows["engine"]["drop"]
    top1 = [f"{100 * rows[name]['accuracy']['top1']:.2f}" for name in ("freeze", "engine")]
    assert shown.text.startswith("resnext_tiny in int8: Pass")
    assert f"Pass top-1 {top1[0]} % → {top1[1]} %" in shown.text
    bounds = " to ".join(f"{100 * drop[name]:.2f}".replace("-", "−") for name in ("lower", "upper"))
    assert f"95 % bounds {bounds}; 1.00 allowed. Judged on 900 test images." in shown.text
    for row in rows.values():
        assert html.unescape(row["work"]) in shown.text
        assert row["drift"]["sqnr_db"] is None or f"{row['drift']['sqnr_db']:.1f}" in shown.text
    assert engine["sha256"] in shown.text
    assert all(sentence in shown.text for sentence in told["not_proven"])
    assert len(shown.of_class("interval")) == len(rows)


def test_its_histograms_count_every_value_and_mark_what_is_clipped(built: Path, shown: Page) -> None:
    tensors = read(built / "report.json")["stages"][4]["details"]["tensors"]
    assert len(shown.of_class("histogram")) == len(tensors)
    for account in tensors.values():
        counts, width = account["histogram"], account["seen"] / 32
        assert (len(counts), sum(counts)) == (32, account["values"])
        assert all(count >= 0 for count in counts)
        last = min(31, int(account["amax"] / width))  # the bin in which the range ends
        assert sum(counts[last + 1 :]) <= account["beyond"] + 1 <= sum(counts[last:]) + 2


def test_its_images_are_those_whose_answer_flipped(built: Path, copy: Path) -> None:
    kept, found = read(built / evidence.FILE), safetensors.numpy.load_file(built / "answers.safetensors")
    before, after = found["reference"].argmax(1), found["top1.engine"]
    assert len(kept["flips"]) == min(24, int((before != after).sum()))
    moved = sorted(zip(*(each[before != after].tolist() for each in (found["labels"], before, after)), strict=True))
    assert sorted((flip["label"], flip["before"], flip["after"]) for flip in kept["flips"]) == moved
    for flip in kept["flips"]:
        assert Image.open(io.BytesIO(b64decode(flip["png"]))).size == (32, 32)
    # However few flipped in this build: a page of flips that is known.
    flip = {"name": "an <image>", "label": 3, "before": 3, "after": 8, "png": png()}
    change(copy / evidence.FILE, flips=[flip, {**flip, "before": 8, "after": 3}, {**flip, "before": 1}])
    change_answers(copy)
    shown = Page(page.html(copy))
    assert [each["alt"] for each in shown.all("img")] == ["Test image an <image>, of class 3"] * 3
    assert [len(shown.of_class(kind)) for kind in ("lost", "gained", "other")] == [1, 1, 1]
    assert "3 of 900 test images are answered otherwise" in shown.text
    assert "2 lost (right before), 1 gained (right now)" in shown.text
    assert shown.text.count("+1") == shown.text.count("−1") + 1 == 3 or shown.text.count("−2") == 1


def test_its_drift_along_the_depth_is_that_of_debug(built: Path) -> None:
    line = [sys.executable, "-m", "pipeline", "debug", str(built), "--samples", "4", "--json"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    told, kept = json.loads(done.stdout), read(built / evidence.FILE)["depth"]
    assert (kept["good"], kept["bad"], kept["images"]) == (told["good"], told["bad"], 4)
    assert [step["module"] for step in kept["steps"]] == [step["module"] for step in told["steps"]]
    for mine, other in zip(kept["steps"], told["steps"], strict=True):
        assert mine["own"] == pytest.approx(other["own_db"], abs=0.01)
        assert mine["total"] == pytest.approx(other["accumulated_db"], abs=0.01)


def test_its_map_is_what_describe_says(built: Path, mixed: Path, shown: Page) -> None:
    line = [sys.executable, "-m", "pipeline", "describe", str(built), "--json"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    (told,) = json.loads(done.stdout)
    cells = [each for tag, each in shown.elements if tag == "li" and "cell" in str(each.get("class"))]
    assert len(cells) == told["counts"]["layers"]
    words = [str(each["class"]).split()[1] for each in cells]
    assert words.count("reformat") == told["counts"]["reformats"]
    convolutions = [str(each["class"]).split()[1] for each in cells if ": QLinearConv" in str(each["title"])]
    assert convolutions == ["int8"] * told["counts"]["convolutions_in_8_bits"]
    assert Page((mixed / page.FILE).read_text()).of_class("fp16")  # the form of the engine, not of the recipe


def test_every_picture_says_what_it_shows(shown: Page) -> None:
    for tag, attributes in shown.elements:
        if tag == "svg" and attributes.get("role") == "img":
            assert len(attributes["aria-label"] or "") > 20
        assert tag != "img" or attributes["alt"]
    assert [tag for tag, _ in shown.elements if tag in {"h1", "h2"}].count("h1") == 1


def test_a_build_that_runs_or_was_killed_shows_what_there_is(cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(cli.command(*TINY, "-o", output), env=cli.environment, stderr=subprocess.DEVNULL)
    try:
        while not (output / "02-export.json").exists():
            assert process.poll() is None
            time.sleep(0.02)
        assert report(output).returncode == 0  # while it runs and holds the directory
    finally:
        process.kill()
        process.wait()
    assert report(output).stdout == f"{output / page.FILE}\n"
    shown = Page((output / page.FILE).read_text())
    assert "Unfinished No verdict" in shown.text
    assert "02-export.onnx" in shown.text
    cli.report(*TINY, "-o", output)
    assert "in int8: Pass" in Page((output / page.FILE).read_text()).text


def test_a_build_that_failed_says_why_first(cli: Cli, weights: Path, tmp_path: Path) -> None:
    calibration = tmp_path / "noise.npy"
    np.save(calibration, np.random.default_rng(0).integers(0, 9, (64, 1, 32, 32)).astype(np.uint8))
    told = cli.report(*TINY, "--weights", weights, "--calib-data", calibration, "-o", tmp_path / "out", expect=1)
    shown = Page((tmp_path / "out" / page.FILE).read_text())
    assert "in int8: Fail" in shown.text
    assert f"int8: {told['stages'][4]['reasons'][0]}" in shown.text
    assert shown.text.index("int8: ") < shown.text.index("The chain of stages")
    assert "no engine judged" in shown.text
    assert "not reached" in shown.text


def test_the_history_of_a_training_is_drawn(cli: Cli, weights: Path, tmp_path: Path) -> None:
    own = tmp_path / "weights.safetensors"
    shutil.copy(weights, own)
    lines = [{"epoch": n, "loss": 2 / n, "val_loss": 2.1 / n, "top1": 1 - 1 / n, "note": "x"} for n in range(1, 6)]
    (tmp_path / "history.jsonl").write_text("\n".join(map(json.dumps, lines)))
    output = tmp_path / "out"
    cli.report("--arch", "resnext_tiny", "--engine", "onnxruntime", "--weights", own, "-o", output)
    assert read(output / evidence.FILE)["history"]["rows"][1] == {
        "epoch": 2,
        "loss": 1.0,
        "val_loss": 1.05,
        "top1": 0.5,
    }
    shown = Page((output / page.FILE).read_text())
    labels = [each["aria-label"] for each in shown.all("svg") if "epochs" in (each.get("aria-label") or "")]
    assert labels == ["Loss over 5 epochs: loss, val_loss", "Accuracy over 5 epochs: top1"]
    assert "Nothing was calibrated" in shown.text


def test_two_builds_side_by_side(built: Path, mixed: Path, copy: Path, tmp_path: Path) -> None:
    done = report("--compare", built, mixed, "-o", tmp_path / "two.html")
    assert done.returncode == 0, done.stderr
    shown = Page((tmp_path / "two.html").read_text())
    answers = [safetensors.numpy.load_file(each / "answers.safetensors")["top1.engine"] for each in (built, mixed)]
    assert f"they answer {(answers[0] != answers[1]).sum()} of them differently" in shown.text
    assert "precision int8 int8-fp16" in shown.text
    assert "halve –" in shown.text
    assert any("of A and of B" in (each.get("aria-label") or "") for each in shown.all("svg"))
    told = read(copy / "report.json")
    change(copy / "report.json", images={**told["images"], "test": "0" * 64})
    assert report("--compare", built, copy, "-o", tmp_path / "two.html").returncode == 0
    assert "Not comparable image by image" in Page((tmp_path / "two.html").read_text()).text
    assert "they are the same build" in refused("--compare", built, built)
    (copy / "report.json").unlink()
    assert "has no judged file" in refused("--compare", built, copy)


def test_requests_that_make_no_sense(built: Path, tmp_path: Path) -> None:
    assert "takes the directory of a build" in refused()
    assert "takes the directory of a build" in refused(built, "--compare", built, tmp_path)
    assert "no report.json and no file of a stage" in refusal(tmp_path)
    assert "cannot be written" in refused(built, "-o", tmp_path / "no" / "a.html")


def test_open_starts_the_users_browser_or_says_that_there_is_none(built: Path, tmp_path: Path) -> None:
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    out = tmp_path / "a.html"
    assert report(built, "-o", out, "--open", BROWSER=f"{browser} %s").returncode == 0
    assert seen.read_text().strip() == out.as_uri()
    sentence = refused(built, "-o", out, "--open", BROWSER="", PATH=str(tmp_path / "none"), DISPLAY="")
    assert f"open {out} yourself" in sentence


def test_the_command_asks_for_the_same(built: Path) -> None:
    told = read(built / "report.json")["recipe"]
    for other in ({}, {"target": "cpu", "placement": "onnxruntime"}, {"mean": [0.5], "allow_fallback": ["simplify"]}):
        asked = {**told, **other}
        words = shlex.split(page.command(asked))
        assert words[:4] == ["python", "-m", "pipeline", "build"]
        again = recipes.from_arguments(parser()[0].parse_args(words[3:]))
        for name in recipes.NAMES:
            value = getattr(again, name)
            assert (str(value) if isinstance(value, Path) else value) == asked[name], name


def test_a_notebook_shows_the_page_in_a_frame(built: Path) -> None:
    told = read(built / "report.json")
    (frame,) = Page(Result("pass", built, told)._repr_html_()).all("iframe")
    assert frame["srcdoc"] == (built / page.FILE).read_text("utf-8")
    assert "sandbox" in frame


def test_timings_are_shown_where_they_are_of_this_build(copy: Path) -> None:
    line = [sys.executable, "-m", "pipeline", "bench", str(copy), "--vs", "onnxruntime", "--seconds", "2"]
    assert subprocess.run(line, cwd=ROOT, capture_output=True, check=False).returncode == 0
    told = read(copy / "bench.json")["rows"][0]["milliseconds"]["50"]
    assert f"{told:.3g}" in Page(page.html(copy)).text
    assert "Timed in turns" in Page(page.html(copy)).text
    change(copy / "bench.json", answers="0" * 64)
    assert "were not measured for this build" in Page(page.html(copy)).text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (28.4, 51), (-3, 250), (0.01, 0.011), (5, 5), (0, 0)])
def test_ticks_are_few_round_and_hold_all(low: float, high: float) -> None:
    found = figures.ticks(low, high)
    assert found[0] <= low <= high <= found[-1]
    assert 2 <= len(found) <= 7
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_a_line_is_broken_where_nothing_was_measured() -> None:
    drawn = figures.lines({"a": [1.0, 2.0, None, 4.0], "b": [None] * 4})
    paths = [line["path"] for line in drawn["lines"]]
    assert (paths[0].count("M"), paths[0].count("L"), paths[0].count("h0")) == (2, 1, 1)
    assert paths[1] == ""
