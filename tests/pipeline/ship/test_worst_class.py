"""The class that lost most: in the manifest of a bundle, on its card, and on the device."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from shipping import refused

from pipeline.ship import bundle_members
from pipeline.ship.agent import container, verify
from pipeline.ship.agent.errors import Refused

if TYPE_CHECKING:
    from pathlib import Path

    from shipping import Shipped


def bounds(shipped: Shipped, **worst: Any) -> dict[str, Any]:
    """Those of the bundle, with another worst class."""
    found: dict[str, Any] = shipped.opened().manifest["bounds"]
    return {**found, "worst_class": {**found["worst_class"], **worst}}


def test_the_manifest_has_it_from_the_report(shipped: Shipped, built: Path) -> None:
    said = shipped.opened().manifest["bounds"]["worst_class"]
    report = json.loads((built / "report.json").read_text())
    (row,) = [row for row in report["stages"] if row["name"] == "int8"]
    classes = row["subsets"]["classes"]
    worst = classes["worst"]
    assert said == {
        "name": worst["name"],
        "images": worst["n"],
        "lost": worst["lost"],
        "gained": worst["gained"],
        "lower": worst["lower"],
        "upper": worst["upper"],
        "at_most": classes["at_most"],
    }
    card = shipped.members()["card.md"].decode()
    assert "\n- worst class: " in card
    assert f"no class lost more than {100 * classes['at_most']:.2f} points.\n" in card
    assert "images a class: only losses above " in card


def test_the_agent_tells_it(shipped: Shipped, tmp_path: Path) -> None:
    worst = {"name": "Größe", "images": 90, "lost": 4, "gained": 1, "at_most": 0.0812}
    path = shipped.again("class.edge", bounds=bounds(shipped, **worst))
    store = tmp_path / "store"
    assert shipped.run("build", path, "--store", store, "--quiet").returncode == 0
    found = "lost 3.33 points (4 lost, 1 gained of 90 images); no class lost more than 8.12"
    done = shipped.run("verify", "--store", store, "--quiet")
    assert done.stdout.splitlines()[1] == f"worst class where it was judged: Größe {found}"
    # A terminal that has no such letter gets its number.
    done = shipped.run("status", "--store", store, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert f"worst class where it was judged: Gr\\xf6\\xdfe {found}" in done.stdout
    (row,) = json.loads(shipped.run("status", "--store", store, "--json").stdout)["versions"]
    assert row["worst_class"] == [f"worst class where it was judged: Größe {found}"]


def test_a_bundle_of_before_says_nothing_of_classes(shipped: Shipped, tmp_path: Path) -> None:
    older = shipped.opened().manifest["bounds"]
    del older["worst_class"]
    path = shipped.again("older.edge", bounds=older)
    store = tmp_path / "store"
    assert shipped.run("build", path, "--store", store, "--quiet").returncode == 0
    for verb in ("verify", "status"):
        done = shipped.run(verb, "--store", store, "--quiet")
        assert done.returncode == 0, done.stderr
        assert "class" not in done.stdout
    unknown = container.opened(
        str(shipped.again("unknown.edge", bounds={**older, "worst_class": None})), shipped.trusted()
    )
    assert verify.worst_class(unknown) == []


@pytest.mark.parametrize(
    "worst",
    [
        {"name": "x" * 201},
        {"name": "two\nlines"},
        {"name": "\x1b[2J"},
        {"name": 3},
        {"images": 0},
        {"images": 9.0},
        {"lost": -1},
        {"lost": True},
        {"gained": 10**10},
        {"images": 90, "lost": 80, "gained": 11},
        {"lower": -1.01},
        {"lower": 0.2, "upper": 0.1},
        {"upper": "0.1"},
        {"at_most": 1.5},
        {"more": 1},
    ],
    ids=str,
)
def test_nonsense_is_refused(shipped: Shipped, worst: dict[str, Any]) -> None:
    path = shipped.again("nonsense.edge", bounds=bounds(shipped, **worst))
    with pytest.raises(Refused, match="worst_class"):
        container.opened(str(path), shipped.trusted())


@pytest.mark.parametrize("worst", [[], "Shirt", 7, {}], ids=str)
def test_what_is_no_class_is_refused(shipped: Shipped, worst: Any) -> None:
    path = shipped.again("none.edge", bounds={**shipped.opened().manifest["bounds"], "worst_class": worst})
    assert "worst_class" in refused(shipped.run("preflight", path))
    # Nor has any other table of the manifest room for it.
    model = {**shipped.opened().manifest["model"], "worst_class": None}
    with pytest.raises(Refused, match="lacks or has too much: 'worst_class'"):
        container.opened(str(shipped.again("model.edge", model=model)), shipped.trusted())


@pytest.mark.parametrize(
    ("name", "shipped_name"),
    [("Größe", "Größe"), ("a\x1b[2Jb", "a\ufffd[2Jb"), ("x" * 300, "x" * 199 + "…"), ("\ud800", "\ufffd"), ("", "")],
)
def test_any_name_of_a_class_can_be_shipped(name: str, shipped_name: str) -> None:
    """Classes are folders, which may be called anything; the device is told what it can print."""
    assert bundle_members._printable(name) == shipped_name
