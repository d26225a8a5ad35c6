"""Weights by name, from a local server that answers as the Hugging Face Hub and as torchvision's do."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save

from pipeline.models import checkpoint, networks, published, specs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def network(arch: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    built = networks.build(specs.find(arch)[1], 10, 1, (0.5,), (0.5,))
    return {key: value.contiguous() for key, value in checkpoint.parameters(built).items()}


class Server(http.server.ThreadingHTTPServer):
    """``files`` of one model at one commit, with the hashes that the Hub would tell of what was uploaded."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.siblings: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []

    def upload(self, name: str, content: bytes, *, large: bool) -> None:
        self.files[name] = content
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        self.siblings[name] = {"rfilename": name, "size": len(content), "blobId": blob}
        if large:
            self.siblings[name]["lfs"] = lfs

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        self.server.requests.append(self.path)
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path in {"/api/models/someone/resnet", f"/api/models/someone/resnet/revision/{COMMIT}"}:
            model = {"id": "someone/resnet", "sha": COMMIT, "siblings": list(self.server.siblings.values())}
            self.send(json.dumps(model).encode(), {"Content-Type": "application/json"}, body=body)
        elif path.startswith(f"/someone/resnet/resolve/{COMMIT}/") and name in self.server.files:
            content = self.server.files[name]
            tag = hashlib.sha256(content).hexdigest()
            self.send(content, {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"'}, body=body)
        elif path.startswith("/models/") and name in self.server.files:
            self.send(self.server.files[name], {}, body=body)
        else:
            self.send_error(404)

    def send(self, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served
        served.shutdown()


def convert(server: Server, folder: Path, source: str, arch: str = "resnet_tiny") -> subprocess.CompletedProcess[str]:
    """``convert SOURCE`` in a process of its own, with caches in ``folder``."""
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "hub"), "XDG_CACHE_HOME": str(folder / "cache")}
    line = [sys.executable, "-m", "pipeline", "convert", source, str(folder / "out.safetensors"), "--arch", arch]
    environment = {**os.environ, **own, published.MIRROR: f"{server.url}/models/", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def refused(server: Server, folder: Path, source: str, arch: str = "resnet_tiny") -> str:
    done = convert(server, folder, source, arch)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "out.safetensors").exists()
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("large", [True, False])
def test_a_model_of_the_hub_is_pinned_to_its_commit_and_proven(server: Server, tmp_path: Path, large: bool) -> None:
    content = save(network("resnet_tiny"))
    server.upload("model.safetensors", content, large=large)
    server.upload("pytorch_model.bin", b"a pickle", large=large)
    done = convert(server, tmp_path, "hf:someone/resnet")
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(content).hexdigest()
    assert f"hf:someone/resnet at revision {COMMIT}, model.safetensors (SHA-256 {digest})" in done.stdout
    assert not [path for path in server.requests if "pytorch_model.bin" in path]
    assert checkpoint.read(tmp_path / "out.safetensors")["fc.bias"].equal(network("resnet_tiny")["fc.bias"])


def test_other_content_than_the_hub_tells_is_refused(server: Server, tmp_path: Path) -> None:
    content = save(network("resnet_tiny"))
    for large in (True, False):
        server.upload("model.safetensors", content, large=large)
        server.files["model.safetensors"] = content[:-4] + bytes(4)
        (folder := tmp_path / str(large)).mkdir()
        sentence = refused(server, folder, f"hf:someone/resnet@{COMMIT}/model.safetensors")
        assert "is not what the Hub says (its hash differs)" in sentence


def test_which_file_of_a_model_is_said_or_asked(server: Server, tmp_path: Path) -> None:
    assert "has: none, and pickles are not read from there" in refused(server, tmp_path, "hf:someone/resnet")
    server.upload("a.safetensors", save(network("resnet_tiny")), large=True)
    assert convert(server, tmp_path, "hf:someone/resnet").returncode == 0
    (tmp_path / "out.safetensors").unlink()
    server.upload("b.safetensors", save(network("resnet_tiny")), large=True)
    assert "one file was asked for; of .safetensors files that model has: a" in refused(
        server, tmp_path, "hf:someone/resnet"
    )
    assert "could not be fetched" in refused(server, tmp_path, "hf:someone/else")
    for odd in ("hf:resnet", "hf:a/b/pytorch_model.bin", "hf:../../x"):
        assert "write it as hf:OWNER/NAME[@REVISION][/FILE.safetensors]" in refused(server, tmp_path, odd)


def test_torchvisions_weights_are_proven_by_their_name_and_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    torch.save(network("resnet_tiny"), file)
    digits = hashlib.sha256(file.getvalue()).hexdigest()[:8]
    name = f"resnet_tiny-{digits}.pth"
    monkeypatch.setitem(published.PUBLISHED, "IMAGENET1K_V1", {"resnet_tiny": digits})
    monkeypatch.setenv(published.MIRROR, f"{server.url}/models")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(published.BadRequest, match=r"could not be fetched .*404.*give the file itself, or a mirror"):
        published.source("torchvision:IMAGENET1K_V1", "resnet_tiny")
    server.files[name] = b"something else"
    with pytest.raises(published.BadRequest, match="is not what torchvision published"):
        published.source("torchvision:IMAGENET1K_V1", "resnet_tiny")
    assert list(tmp_path.rglob("*.pth")) == []
    server.files[name] = file.getvalue()
    source = published.source("torchvision:IMAGENET1K_V1", "resnet_tiny")
    assert f"torchvision's IMAGENET1K_V1, {name} (SHA-256 {digits}" in source.origin
    requests = len(server.requests)
    assert published.source("torchvision:IMAGENET1K_V1", "resnet_tiny") == source
    assert len(server.requests) == requests
    source.path.write_bytes(b"changed")
    with pytest.raises(published.BadRequest, match="is not what torchvision published"):
        published.source("torchvision:IMAGENET1K_V1", "resnet_tiny")


def test_weights_that_torchvision_does_not_publish(server: Server, tmp_path: Path) -> None:
    sentence = refused(server, tmp_path, "torchvision:IMAGENET1K_V2", "resnet18")
    assert "publishes no such weights of --arch resnet18; take IMAGENET1K_V1" in sentence
    assert "it publishes none for this one" in refused(server, tmp_path, "torchvision:DEFAULT", "resnet50d")
    assert server.requests == []
