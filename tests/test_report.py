"""The page of a build shows what the files say; what is hostile is text, and what is missing is told."""

from __future__ import annotations

import html
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT, TINY
from PIL import Image

from pipeline import recipe as recipes
from pipeline.__main__ import parser
from pipeline.api import Result
from pipeline.errors import BadRequest
from pipeline.report import evidence, figures, page

if TYPE_CHECKING:
    from conftest import Cli

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Every element with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [each for _, each in self.elements if name in (each.get("class") or "").split()]


def report(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", "report", *map(str, arguments)]
    told = {**os.environ, **environment}
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, env=told)


def refused(*arguments: object, **environment: str) -> str:
    done = report(*arguments, **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    return sentence


def refusal(directory: Path) -> str:
    """The same sentence, without a process of its own."""
    with pytest.raises(BadRequest) as raised:
        page.html(directory)
    return str(raised.value)


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


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
    flip = {"name": "an <image>", "label": 3, "before": 3, "after": 8, "png": _png()}
    _change(copy / evidence.FILE, flips=[flip, {**flip, "before": 8, "after": 3}, {**flip, "before": 1}])
    _change_answers(copy)
    shown = Page(page.html(copy))
    assert [each["alt"] for each in shown.all("img")] == ["Test image an <image>, of class 3"] * 3
    assert [len(shown.of_class(kind)) for kind in ("lost", "gained", "other")] == [1, 1, 1]
    assert "3 of 900 test images are answered otherwise" in shown.text
    assert "2 lost (right before), 1 gained (right now)" in shown.text
    assert shown.text.count("+1") == shown.text.count("−1") + 1 == 3 or shown.text.count("−2") == 1


def _png() -> str:
    from pipeline.report.evidence import _png as made

    return made(np.zeros((1, 8, 8), np.float32))


def _change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**read(path), **keys}))


def _change_answers(copy: Path) -> None:
    """Three answers of the engine that differ from the network's: 3 → 8 twice where 3 is right, once the other way."""
    import hashlib

    path = copy / "answers.safetensors"
    found = safetensors.numpy.load_file(path)
    labels, reference = found["labels"], found["reference"].copy()
    threes, eights = np.flatnonzero(labels == 3)[:2], np.flatnonzero(labels == 8)[:1]
    for chosen, answer in ((threes, 3), (eights, 3)):
        reference[chosen] = np.eye(10, dtype=np.float32)[answer]
    top1 = reference.argmax(1).astype(np.int32)
    top1[threes], top1[eights] = 8, 8
    kept = safetensors.numpy.save({**found, "reference": reference, "top1.engine": top1})
    path.write_bytes(kept)
    for name in ("report.json", evidence.FILE):
        _change(copy / name, answers=hashlib.sha256(kept).hexdigest())


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


def test_names_of_classes_and_folders_are_text(copy: Path) -> None:
    bad = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}'
    told = read(copy / "report.json")
    told["classes"] = [bad] * 10
    told["error"] = told["not_proven"][0] = told["sources"]["data"] = told["recipe"]["arch"] = bad
    told["stages"][3] |= {"work": bad, "reasons": [bad], "file": bad}
    (copy / "report.json").write_text(json.dumps(told))
    _change_answers(copy)
    kept = read(copy / evidence.FILE)
    kept["depth"]["steps"][3]["module"] = kept["engines"][0]["file"] = bad
    kept["flips"] = [{"name": bad, "label": 3, "before": 3, "after": 8, "png": _png()}]
    kept["engines"][0]["layers"][3] |= {"name": bad, "modules": [bad], "kind": bad}
    (copy / evidence.FILE).write_text(json.dumps(kept))
    shown = Page(page.html(copy))
    assert not shown.all("script")
    assert len(shown.all("img")) == 1
    assert not [name for _, attributes in shown.elements for name in attributes if name.startswith("on")]
    assert shown.text.count("<script>alert(1)</script>") > 20
    assert "{{ 7*7 }}" in shown.text


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00\x01", '{"schema": 1}', '{"schema": 2}'])
def test_a_damaged_report_is_refused(copy: Path, content: str) -> None:
    (copy / "report.json").write_text(content)
    assert str(copy) in refusal(copy)


def test_where_it_is_refused_the_page_stays(copy: Path) -> None:
    (copy / "report.json").write_text("{")
    before = (copy / page.FILE).read_bytes()
    assert "report.json is damaged" in refused(copy)
    assert (copy / page.FILE).read_bytes() == before
    assert not list(copy.glob(".unfinished*"))


@pytest.mark.parametrize(
    "change",
    [
        {"stages": 3},
        {"verdict": None},
        {"verdict": "great"},
        {"recipe": []},
        {"classes": ["0"]},
        {"speed": {"value": "x"}},
        {"environment": {}},
    ],
    ids=str,
)
def test_a_report_that_makes_no_sense_is_refused(copy: Path, change: dict[str, Any]) -> None:
    _change(copy / "report.json", **change)
    if "classes" in change:
        _change_answers(copy)
    assert "is not whole" in refusal(copy)


def test_answers_that_were_touched_are_refused(copy: Path) -> None:
    (copy / "answers.safetensors").write_bytes(b"0" * 64)
    assert "is not what this build wrote" in refusal(copy)
    (copy / "answers.safetensors").unlink()
    assert "cannot be read" in refusal(copy)


def test_evidence_that_is_gone_or_anothers_is_told_and_a_damaged_one_refused(copy: Path) -> None:
    _change(copy / evidence.FILE, answers="0" * 64)
    assert "Not measured: evidence.json is that of another build" in Page(page.html(copy)).text
    (copy / evidence.FILE).write_text("{")
    assert "evidence.json is damaged" in refusal(copy)
    (copy / evidence.FILE).unlink()
    shown = Page(page.html(copy))
    assert "Not measured: there is no evidence.json" in shown.text
    assert shown.of_class("histogram")


@pytest.mark.parametrize("png", ["PHN2Zz48L3N2Zz4=", "no base64", ""])
def test_an_image_that_is_none_is_refused(copy: Path, png: str) -> None:
    _change(copy / evidence.FILE, flips=[{"name": "a", "label": 1, "before": 1, "after": 2, "png": png}])
    assert "build again" in refusal(copy)


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
    _change(copy / "report.json", images={**told["images"], "test": "0" * 64})
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
    for change in ({}, {"target": "cpu", "placement": "onnxruntime"}, {"mean": [0.5], "allow_fallback": ["simplify"]}):
        asked = {**told, **change}
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
    _change(copy / "bench.json", answers="0" * 64)
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
