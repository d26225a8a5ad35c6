"""How the verdict by class and by group is told, and what a median hides: at the terminal and on the page."""

from __future__ import annotations

import json
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from pages import Page, change, read
from synthetic import NAMES, Made, directory

from pipeline.report import compare, hidden, page, subsets, terminal
from pipeline.stage import CLASSES, Family, StageRow, Subset

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes, three groups, a threshold, and a file beside that fails."""
    output = tmp_path_factory.mktemp("ten") / "build"
    directory(output, Made(10, 100, lost=2, groups=3, threshold=0.9, beside=0.2))
    return output


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand classes, of which one is lost."""
    output = tmp_path_factory.mktemp("thousand") / "build"
    directory(output, Made(1000, 8, lost=8, changed=0.004, groups=40))
    return output


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that no line is too long for."""
    monkeypatch.setenv("COLUMNS", "400")


def shown(build: Path) -> Page:
    found = Page(page.html(build))
    assert found.open == []
    return found


def told(build: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    terminal.show(read(build / "report.json"), "in a test")
    return capsys.readouterr().out.splitlines()


def rows_of(build: Path) -> dict[str, Any]:
    return {row["name"]: row for row in read(build / "report.json")["stages"]}


def test_the_terminal_names_the_worst_class_and_the_worst_group(ten: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(ten, capsys)
    families = rows_of(ten)["engine"]["subsets"]
    classes, cameras = families["classes"], families["camera"]
    assert classes["worst"]["name"] == "<b>goldfish</b> & co"
    most = f"no class lost more than {100 * classes['at_most']:.2f} points"
    counts = "(2 lost, 0 gained of 100 images)"
    assert f"worst class: <b>goldfish</b> & co lost 2.00 points, none of them proven {counts}; {most}" in lines
    shows = f"only losses above {100 * classes['shows']:.1f} points would show"
    assert f"100 images a class: {shows} (10 are allowed unless --max-class-drop says less)" in lines
    assert any(line.startswith(f"worst camera: {cameras['worst']['name']} lost ") for line in lines)
    assert any(line.startswith(f"{cameras['least']} to {cameras['most']} images a camera: ") for line in lines)


def test_the_terminal_says_what_a_median_hides(ten: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(ten, capsys)
    row = rows_of(ten)["engine"]
    spread = row["spread"]
    worst = f"one in 100 keeps {spread['worst_db']:.1f} dB or less, the median {row['drift']['sqnr_db']:.1f}"
    below = f"2 images are below 15 dB, at most {100 * spread['below_upper']:.2f} % of all"
    assert f"worst images: {worst}; {below}" in lines
    noisiest = next(line for line in lines if line.startswith("noisiest images: "))
    assert re.findall(r"val/\d+\.png", noisiest) == [noisy["name"] for noisy in spread["noisiest"]]
    before, after = spread["lead"]
    error = "{:.2f} → {:.2f} %".format(*(100 * share for share in spread["calibration_error"]))
    lead = f"lead of the first logit {before:.2f} → {after:.2f} in the median"
    assert f"confidence: {lead}; expected calibration error {error}" in lines
    assert any(line.startswith("softmax 0.9: 0.") and line.endswith(" rise)") for line in lines)


def test_what_stands_beside_has_a_line_of_its_own(ten: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = rows_of(ten)["fp16_engine"]["reasons"]
    assert reasons
    lines = told(ten, capsys)
    (beside,) = [line for line in lines if "fp16_engine: " in line]
    assert beside.startswith("beside, not shipped: fp16 fail (fp16_engine: ")
    assert lines[-1] == "verdict: PASS, in a test"
    found = shown(ten)
    assert not found.of_class("reason")
    assert f"Beside, not shipped: fp16 fail (fp16_engine: {reasons[0]}" in found.text
    assert found.text.startswith("resnext_tiny in int8: Pass")


def test_lines_fit_a_narrow_terminal(
    ten: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in told(ten, capsys)]
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("worst class: ") for line in lines)


def test_a_name_cannot_move_the_cursor(ten: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = read(ten / "report.json")
    for row in report["stages"][1:3]:
        row["subsets"]["classes"]["worst"] |= {"name": NAMES[4], "value": 0.01}
    (tmp_path / "report.json").write_text(json.dumps(report))
    lines = told(tmp_path, capsys)
    assert any(line.startswith("worst class: with\ufffd[31m a colour lost 1.00 points") for line in lines)
    assert "\x1b" not in "".join(lines)


def said(value: float, lower: float, shows: float | None, **family: Any) -> list[str]:
    """The sentences on a family whose worst class lost so much."""
    worst = Subset("Shirt", 50, 4, 1, value, lower, 0.2)
    known = {"least": 50, "most": 50, "allowed": 0.05, "asked": True, "at_most": 0.09, **family}
    told = Family(count=10, shows=shows, worst=worst, failed=[], verdict="pass", reasons=[], **known)
    return list(subsets.sentences({CLASSES: told}))


def test_a_class_that_is_proven_to_have_lost_and_one_that_lost_none() -> None:
    proven, unseen = said(0.06, 0.012, 0.173)
    counts = "(4 lost, 1 gained of 50 images)"
    most = "no class lost more than 9.00 points"
    assert proven == f"worst class: Shirt lost 6.00 points, at least 1.20 of them proven {counts}; {most}"
    assert unseen == "50 images a class: only losses above 17.3 points would show (5 are allowed)"
    none, unseen = said(0.0, -0.05, None, least=1, most=1)
    assert none == f"worst class: none of 10 lost more images than it gained; {most}"
    assert unseen == "1 image a class: no loss would show (5 are allowed)"


def test_the_page_has_every_class_once_with_its_counts(ten: Path, thousand: Path) -> None:
    for build in (ten, thousand):
        found = shown(build)
        listed = read(build / "report.json")["subsets"]
        pictures = found.of_class("loss-bar")
        assert len(pictures) == sum(min(subsets.FIRST, len(each)) for each in listed.values())
        for each in listed["classes"][: subsets.FIRST]:
            bounds = f"{100 * each['lower']:.2f} to {100 * each['upper']:.2f}".replace("-", "−")
            row = f"{each['n']} {each['lost']} {each['gained']} {100 * each['value']:.2f} {bounds}".replace(" -", " −")
            assert re.search(rf"{re.escape(each['name'])} (failed )?{re.escape(row)}", found.text)
        words = [name for text in found.words for name in text.strip().split(" · ")]
        for each in listed["classes"]:
            assert each["name"] in words


def test_the_names_of_classes_are_text(ten: Path) -> None:
    text = page.html(ten)
    assert "&lt;b&gt;goldfish&lt;/b&gt; &amp; co" in text
    assert "<b>goldfish" not in text


def test_the_others_are_listed_by_their_counts(thousand: Path) -> None:
    listed = read(thousand / "report.json")["subsets"]["classes"]
    found = shown(thousand)
    assert "The other 970, by their counts" in found.text
    kinds = {(each["n"], each["lost"], each["gained"]) for each in listed[subsets.FIRST :]}
    assert found.text.count("Images each") == 2  # of the classes, and of the cameras
    for n, lost, gained in kinds:
        counts = (n, lost, gained)
        counted = [each for each in listed[subsets.FIRST :] if (each["n"], each["lost"], each["gained"]) == counts]
        value = f"{100 * (lost - gained) / n:.2f}".replace("-", "−")
        assert re.search(rf"{re.escape(counted[-1]['name'])} {n} {lost} {gained} {value} ", found.text)
    (picture, _) = [each["aria-label"] for each in found.all("svg") if "worst first" in (each.get("aria-label") or "")]
    assert picture == "Loss in points of 1000 of 1000, with bounds, the worst first; the tables below have the figures"


def test_what_the_images_cannot_see_is_said_once(thousand: Path) -> None:
    text = shown(thousand).text
    assert text.count("8 images a class: no loss would show (10 are allowed unless --max-class-drop says less)") == 1


def test_a_class_that_failed_is_marked(tmp_path: Path) -> None:
    report = directory(tmp_path / "build", Made(10, 100, lost=60))
    assert report["verdict"] == "fail"
    assert "<b>goldfish</b> & co failed 100 60 0 60.00" in shown(tmp_path / "build").text


def test_more_groups_than_are_listed(tmp_path: Path) -> None:
    directory(tmp_path / "build", Made(10, 500, lost=2, groups=2600))
    count = rows_of(tmp_path / "build")["engine"]["subsets"]["camera"]["count"]
    assert count > 2000
    found = shown(tmp_path / "build")
    assert f"By camera {count} groups, worst first" in found.text
    assert f"{count - 2000} more are not listed; none of them is worse." in found.text


def test_the_page_says_what_a_median_hides(ten: Path) -> None:
    text = shown(ten).text
    spread = rows_of(ten)["engine"]["spread"]
    assert f"Worst image in 100 {spread['worst_db']:.1f} dB" in text
    assert "Below 15 dB 2 of 1000; at most 0.63 %" in text
    assert "Cross a softmax of 0.9 " in text
    for noisy in spread["noisiest"]:
        assert f"{noisy['name']} {noisy['sqnr_db']:.1f}".replace("-", "−") in text


def test_warnings_stand_under_the_header(ten: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(ten, tmp_path / "copy")
    assert not shown(copy).of_class("warnings")
    change(copy / "report.json", warnings=["The network is no better than guessing."])
    text = shown(copy).text
    assert text.index("Worth a look The network is no better than guessing.") < text.index("The chain of stages")
    assert "warning: The network is no better than guessing." in told(copy, capsys)


def test_a_build_of_before_classes_were_judged(ten: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(ten, tmp_path / "copy")
    report = read(copy / "report.json")
    for name in ("subsets", "groups"):
        del report[name]
    for row in report["stages"]:
        for name in ("subsets", "spread"):
            del row[name]
    (copy / "report.json").write_text(json.dumps(report))
    text = shown(copy).text
    assert "Not known: this build was made by a version that kept no answers by class. Build again." in text
    assert "Not known: this build was made by a version that kept less of each image. Build again." in text
    assert terminal.NO_CLASSES in told(copy, capsys)
    compared = Page(compare.html(ten, copy)).text
    assert "Worst class <b>goldfish</b> & co –" in compared


def test_both_worst_classes_stand_side_by_side(ten: Path, thousand: Path) -> None:
    found = Page(compare.html(ten, thousand)).text
    assert "Worst class <b>goldfish</b> & co <b>goldfish</b> & co" in found
    assert "Its loss of top-1, points 2.00 " in found


def test_a_page_of_a_thousand_classes_is_made_at_once(thousand: Path) -> None:
    started = time.process_time()
    assert len(page.html(thousand)) < 500_000
    assert time.process_time() - started < 2


def test_what_did_not_run_beside_has_no_verdict() -> None:
    def row(name: str, verdict: str, *reasons: str) -> StageRow:
        return StageRow(name, "engine", "fp16", verdict=verdict, reasons=list(reasons))

    assert list(hidden.beside([row("a", "not_run")], "int8")) == []
    rows = [row("fp16_halve", "undecided", "too few"), row("fp16_engine", "not_run")]
    assert list(hidden.beside(rows, "int8")) == ["beside, not shipped: fp16 undecided (fp16_halve: too few)"]
    assert list(hidden.beside([row("fp16", "pass")], "int8")) == ["beside, not shipped: fp16 pass"]
    assert list(hidden.beside(rows, "fp16")) == []
