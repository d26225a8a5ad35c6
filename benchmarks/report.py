"""The page of a build: how long it takes to make, how large it is, and how soon Chromium shows it.

    python -m benchmarks.report DIR [DIR …]

Of finished builds; needs the extra `browser` and chromium. Medians of nine, each in a new page.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.report import page

ROUNDS = 9
LOADED = "(() => { const [it] = performance.getEntriesByType('navigation'); return it.loadEventEnd - it.startTime })()"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR")
    directories = parser.parse_args().directories
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        found = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        print(f"Chromium {browser.version}\n\n| build | page | made in | first paint | loaded |\n|---|---|---|---|---|")
        for directory in directories:
            path, made = Path(folder, "page.html"), []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                path.write_text(page.html(directory))
                made.append(time.perf_counter() - started)
            opened = [_opened(browser, path) for _ in range(ROUNDS)]
            painted, loaded = (statistics.median(each) for each in zip(*opened, strict=True))
            kilobytes, seconds = path.stat().st_size / 1e3, statistics.median(made)
            print(f"| {directory} | {kilobytes:.0f} kB | {seconds:.2f} s | {painted:.0f} ms | {loaded:.0f} ms |")
        browser.close()


def _opened(browser: Any, path: Path) -> tuple[float, float]:
    """Milliseconds from the navigation to the first paint, and to the end of loading."""
    tab = browser.new_page()
    tab.goto(path.as_uri())
    # The policy of the page keeps Playwright's own waiting from running in it.
    while (painted := tab.evaluate(PAINTED)) is None:
        tab.wait_for_timeout(20)
    found = painted, tab.evaluate(LOADED)
    tab.close()
    return found


if __name__ == "__main__":
    main()
