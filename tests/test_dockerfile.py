"""The Dockerfile as text; .ci/image builds it, and uses what comes out."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

from conftest import ROOT

import pipeline

HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def findings(*flags: str) -> set[str]:
    command = [HADOLINT, "--format", "json", *flags, "Dockerfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {finding["code"] for finding in json.loads(done.stdout)}


def test_hadolint_finds_only_that_versions_of_debian_packages_are_not_pinned_and_there_the_file_says_why() -> None:
    assert findings() == set()
    assert findings("--disable-ignore-pragma") == {"DL3008"}


def test_the_image_is_labelled_with_the_version_of_the_package() -> None:
    assert f"ARG VERSION={pipeline.__version__}\n" in (ROOT / "Dockerfile").read_text()
