"""The page in a real browser: Chromium loads it alone, axe finds nothing, and a keyboard is enough."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Self

import pytest
from synthetic import Made, directory

from pipeline.api import Result
from pipeline.report import compare, page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.browser

WIDTHS = (1400, 1200, 390, 320)
OPEN = "document.querySelectorAll('details').forEach(each => each.open = true)"
# What the browser asked for, though the policy of the page keeps it from the network.
ASKED = "performance.getEntriesByType('resource').map(each => each.name).filter(name => !name.startsWith('data:'))"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "these tests need Debian's chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        # In a container, and as root, Chromium has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(built: Path, mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished build, an unfinished one, two side by side, a notebook's frame, ten classes and a thousand."""
    folder = tmp_path_factory.mktemp("pages")
    directory(folder / "of-ten", Made(10, 100, lost=2, groups=3, threshold=0.9, beside=0.2))
    directory(folder / "of-thousand", Made(1000, 8, lost=8, changed=0.004, groups=40))
    stopped = shutil.copytree(built, folder / "stopped")
    (stopped / "report.json").unlink()
    frame = Result("pass", built, {})._repr_html_()
    texts = {
        "finished": page.html(built),
        "unfinished": page.html(stopped),
        "compared": compare.html(built, mixed),
        "ten": page.html(folder / "of-ten"),
        "thousand": page.html(folder / "of-thousand"),
        "notebook": f'<!DOCTYPE html><html lang="en"><title>a notebook</title><main><h1>a</h1>{frame}</main></html>',
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in texts}


class Tab:
    """A page that is open, and what went wrong while it was opened."""

    def __init__(self, chromium: Any, path: Path, width: int = 1200, **context: Any) -> None:
        self.context = chromium.new_context(viewport={"width": width, "height": 900}, **context)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


NAMES = ("finished", "unfinished", "compared", "notebook", "ten", "thousand")


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_alone_and_says_nothing(chromium: Any, pages: dict[str, Path], name: str) -> None:
    with Tab(chromium, pages[name]) as tab:
        assert tab.said == []
        assert [url for url in tab.asked if not url.startswith(("data:", "about:"))] == [pages[name].as_uri()]
        assert tab.page.evaluate(ASKED) == []
        frame = tab.page.frames[-1]
        assert frame.locator("h1").count() == 1
        assert frame.evaluate("getComputedStyle(document.querySelector('h1')).fontWeight") == "700"  # styled


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing(chromium: Any, pages: dict[str, Path], name: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # axe is a script, and the page runs none: the policy is set aside for it, and for nothing else here.
    with Tab(chromium, pages[name], bypass_csp=True, color_scheme=scheme) as tab:
        tab.page.evaluate(OPEN)
        found = Axe().run(tab.page).response
        assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found["violations"]] == []
        assert "color-contrast" in {each["id"] for each in found["passes"]} or name == "notebook"


def test_axe_would_find_something(chromium: Any, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    bad = tmp_path / "bad.html"
    bad.write_text('<html><body style="background:#fff"><p style="color:#ccc">pale<img src="data:,"></body></html>')
    with Tab(chromium, bad) as tab:
        found = {each["id"] for each in Axe().run(tab.page).response["violations"]}
    assert {"color-contrast", "image-alt", "html-has-lang"} <= found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["finished", "unfinished", "compared", "ten", "thousand"])
def test_it_fits_every_width(chromium: Any, pages: dict[str, Path], name: str, width: int) -> None:
    with Tab(chromium, pages[name], width) as tab:
        tab.page.evaluate(OPEN)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1400, 390])
def test_the_dot_of_a_class_stands_between_its_bounds_and_in_its_row(
    chromium: Any, pages: dict[str, Path], width: int
) -> None:
    with Tab(chromium, pages["thousand"], width) as tab:
        rows = tab.page.locator(".losses").first.locator("tbody tr").all()
        assert len(rows) == 30
        for row in rows[:5]:
            whole, dot, bar = (row.bounding_box(), *(row.locator(each).bounding_box() for each in (".value", ".bound")))
            middle = dot["x"] + dot["width"] / 2
            assert bar["x"] - 1 <= middle <= bar["x"] + bar["width"] + 1
            assert whole["x"] <= bar["x"]
            assert bar["x"] + bar["width"] <= whole["x"] + whole["width"]
            assert whole["y"] <= dot["y"] <= whole["y"] + whole["height"] - dot["height"]


def test_a_keyboard_reaches_and_opens_everything(chromium: Any, pages: dict[str, Path]) -> None:
    with Tab(chromium, pages["finished"]) as tab:
        wanted = tab.page.locator("a[href], summary, [tabindex='0']").count()
        reached = []
        for _ in range(wanted):
            tab.page.keyboard.press("Tab")
            reached.append(tab.page.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
            outline = tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", reached[-1]
            if tab.page.evaluate("document.activeElement.tagName") == "SUMMARY":
                tab.page.keyboard.press("Enter")
                assert tab.page.evaluate("document.activeElement.parentElement.open")
        assert "To the report" in reached[0]
        assert len(set(reached)) == wanted >= 5


def test_on_paper_it_is_dark_on_white_and_nothing_is_folded(chromium: Any, pages: dict[str, Path]) -> None:
    with Tab(chromium, pages["finished"], color_scheme="dark") as tab:
        folded = tab.page.locator("details figure").first
        assert not folded.is_visible()
        tab.page.emulate_media(media="print")
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert tab.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert folded.bounding_box()["height"] > 50
        assert tab.page.pdf(format="A4").startswith(b"%PDF")


def test_a_hostile_name_runs_nothing(chromium: Any, built: Path, tmp_path: Path) -> None:
    copy, bad = shutil.copytree(built, tmp_path / "copy"), "<img src=x onerror=\\\"document.title='run'\\\">"
    path = copy / "report.json"
    path.write_text(path.read_text().replace("handwritten digits", bad))
    (tmp_path / "a.html").write_text(page.html(copy))
    with Tab(chromium, tmp_path / "a.html") as tab:
        assert tab.page.title().endswith("Pass")
        assert "onerror" in tab.page.inner_text("main")
        assert tab.said == []


def test_the_policy_holds_where_escaping_would_not(chromium: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages["finished"].read_text()
    bad = tmp_path / "bad.html"
    bad.write_text(
        text.replace("</main>", "<script>document.title='run'</script><img src='http://localhost:9/x'></main>")
    )
    with Tab(chromium, bad) as tab:
        assert tab.page.title().endswith("Pass")
        assert len(tab.said) == 2  # the browser names both as refused
        assert all("Content Security Policy" in said for said in tab.said)
