"""The command `report`, and a page of it as a browser reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT

from pipeline.errors import BadRequest
from pipeline.report import evidence, page

if TYPE_CHECKING:
    from pathlib import Path


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


def png() -> str:
    from pipeline.report.evidence import _png as made

    return made(np.zeros((1, 8, 8), np.float32))


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**read(path), **keys}))


def change_answers(copy: Path) -> None:
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
        change(copy / name, answers=hashlib.sha256(kept).hexdigest())
