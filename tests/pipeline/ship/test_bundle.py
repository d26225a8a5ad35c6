"""Bundles as files: the same bytes again, every byte covered, and whatever else comes along refused with a sentence."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from shipping import ROOT, Shipped, names, refused

from pipeline.errors import BadRequest
from pipeline.ship import bundle, signing
from pipeline.ship.agent import container, contents, keys, manifest
from pipeline.ship.agent.errors import Refused


def test_the_same_build_key_and_date_give_the_same_bytes(shipped: Shipped, built: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.edge"
    done = shipped.pipeline(
        "create", built, "--key", shipped.key, "-o", other, "--goldens", 24, "--released", 1_790_000_000
    )
    assert done.returncode == 0, done.stderr
    assert other.read_bytes() == shipped.file.read_bytes()
    shipped.pipeline("agent", "--key", shipped.public, "-o", tmp_path / "agent.pyz")
    assert (tmp_path / "agent.pyz").read_bytes() == shipped.agent.read_bytes()


def test_verify_and_unpack_say_what_is_in_it(shipped: Shipped, built: Path, tmp_path: Path) -> None:
    done = shipped.pipeline("verify", shipped.file, "--key", shipped.public, "--json")
    said = json.loads(done.stdout)
    assert (said["model"]["arch"], said["model"]["precision"], said["model"]["batches"]) == (
        "resnext_tiny",
        "int8",
        [1, 8, 16],
    )
    done = shipped.pipeline("unpack", shipped.file, "--key", shipped.public, "-o", tmp_path / "members")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "members/model.onnx").read_bytes() == (built / "05-int8.onnx").read_bytes()
    assert set(manifest.REQUIRED) <= set(names(tmp_path / "members"))
    # A folder is read like a file, by the same signature.
    container.opened(str(tmp_path / "members"), shipped.trusted()).check()
    (tmp_path / "members/card.md").write_text("Best network in the world")
    with pytest.raises(Refused, match=r"card\.md is not what was signed"):
        container.opened(str(tmp_path / "members"), shipped.trusted()).check()
    again = ("unpack", shipped.file, "--key", shipped.public, "-o")
    assert "it is there already" in refused(shipped.pipeline(*again, tmp_path / "members"))
    # Whole or not at all: here the disk is as good as full.
    before = names(tmp_path)
    line = [sys.executable, "-m", "pipeline", "bundle", *map(str, (*again, tmp_path / "half"))]
    limited = f"ulimit -f 40; trap '' XFSZ; {shlex.join(line)}"
    full = subprocess.run(
        ["bash", "-c", limited], env=shipped.environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "it cannot be written (File too large); choose another place" in refused(full)
    assert names(tmp_path) == before


@pytest.mark.timeout(1800)  # 15 s of one processor
def test_five_thousand_mutants_are_refused(shipped: Shipped) -> None:
    line = [sys.executable, Path(__file__).with_name("mutations.py"), shipped.file, shipped.key, 5000]
    done = subprocess.run(
        list(map(str, line)),
        env={**shipped.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert sum(found["asked"].values()) == 5000
    assert found["peak_mb"] < 200


def test_every_byte_of_the_head_and_one_of_every_member(shipped: Shipped, tmp_path: Path) -> None:
    whole, found = shipped.file.read_bytes(), shipped.opened()
    path = tmp_path / "flipped.edge"
    starts = {offset: name for name, (_, offset, _, _) in found.places.items()}
    places = [*range(0, len(found.head), 7), *range(len(found.head) - 64, len(found.head)), *starts]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Refused, match=starts.get(place, "header|manifest|signed")):
            container.opened(str(path), shipped.trusted()).check()


def test_keys_in_rotation(shipped: Shipped, tmp_path: Path) -> None:
    name = signing.keygen(tmp_path / "next")
    assert stat.S_IMODE((tmp_path / "next").stat().st_mode) == 0o600
    new = tmp_path / "next.pub"
    sentence = refused(shipped.pipeline("verify", shipped.file, "--key", new))
    assert f"trusted are {name}" in sentence
    assert shipped.pipeline("verify", shipped.file, "--key", new, "--key", shipped.public).returncode == 0
    with pytest.raises(BadRequest, match="not overwritten"):
        signing.keygen(tmp_path / "next")


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "no private key"), ("-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n", "no private key")],
)
def test_keys_that_are_none(shipped: Shipped, built: Path, tmp_path: Path, content: str, words: str) -> None:
    key = tmp_path / "key"
    key.write_text(content)
    assert "chmod 600" in refused(shipped.pipeline("create", built, "--key", key, "-o", tmp_path / "x.edge"))
    key.chmod(0o600)
    assert words in refused(shipped.pipeline("create", built, "--key", key, "-o", tmp_path / "x.edge"))
    assert "holds no Ed25519 public key" in refused(shipped.pipeline("verify", shipped.file, "--key", key))
    assert names(tmp_path) == ["key"]


def test_what_cannot_come_along_is_said(shipped: Shipped, built: Path, tmp_path: Path) -> None:
    create = ("create", built, "--key", shipped.key, "-o", tmp_path / "x.edge")
    sentence = refused(shipped.pipeline(*create, "--agent", tmp_path / "none.pyz"))
    assert "--agent" in sentence
    assert "cannot be read (No such file or directory)" in sentence
    for text in ("nan", "0", "-1", "inf"):
        done = shipped.pipeline(*create, f"--max-latency-ms={text}")
        assert done.returncode == 2
        assert f"{text} is no time from 0 to 1e9 ms" in done.stderr
    assert not (tmp_path / "x.edge").exists()


def test_only_a_build_that_passed_is_shipped(shipped: Shipped, built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "build"
    shutil.copytree(built, copy)
    model = copy / "05-int8.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    sentence = refused(shipped.pipeline("create", copy, "--key", shipped.key, "-o", tmp_path / "x.edge"))
    assert "only what passed is shipped" in sentence
    assert "05-int8.onnx" in sentence
    assert not (tmp_path / "x.edge").exists()
    empty = refused(shipped.pipeline("create", tmp_path, "--key", shipped.key, "-o", tmp_path / "x.edge"))
    assert "no report.json" in empty


def test_data_in_other_files_is_refused(shipped: Shipped) -> None:
    import onnx
    from onnx.external_data_helper import set_external_data

    model = onnx.load_from_string(shipped.members()["model.onnx"])
    assert contents.graph.refuse(model.SerializeToString(), "x") is None
    tensor = next(each for each in model.graph.initializer if len(each.raw_data) > 8)
    set_external_data(tensor, "../../etc/passwd")
    with pytest.raises(Refused, match="in another file"):
        contents.graph.refuse(model.SerializeToString(), "x")
    path = shipped.again("external.edge", {"model.onnx": model.SerializeToString()})
    found = container.opened(str(path), shipped.trusted())
    found.check()
    with pytest.raises(Refused, match=r"model\.onnx: a tensor's data is in another file"):
        contents.refuse(found)


def test_no_links_pipes_or_folders(shipped: Shipped, tmp_path: Path) -> None:
    (tmp_path / "link.edge").symlink_to(shipped.file)
    os.mkfifo(tmp_path / "pipe.edge")
    for name in ("link.edge", "pipe.edge", "nothing.edge", "."):
        with pytest.raises(Refused, match=r"cannot be read|is no file"):
            container.opened(str(tmp_path / name), shipped.trusted())


def test_a_manifest_is_held_to_its_schema_even_when_signed(shipped: Shipped) -> None:
    key = signing.private(shipped.key)
    said = shipped.opened().manifest
    for wrong, words in (({"name": "../x"}, "name"), ({"expires": "never"}, "expires"), ({"model": []}, "model")):
        path = shipped.folder / "schema.edge"
        path.write_bytes(bundle.pack(key, {**said, **wrong}, shipped.members()))
        with pytest.raises(Refused, match=f"{words} of its manifest"):
            container.opened(str(path), shipped.trusted())


def test_flags_of_weak_typing_are_there_exactly_where_it_may_keep_the_types(shipped: Shipped) -> None:
    model = shipped.opened().manifest["model"]
    assert (model["typing"], model["weak_flags"]) == ("strong", None)
    for typing, weak_flags in (("strong", []), ("any", None), ("weak", None)):
        path = shipped.again("typing.edge", model={**model, "typing": typing, "weak_flags": weak_flags})
        with pytest.raises(Refused, match=rf"weak_flags of its model is .* where its typing is {typing}"):
            container.opened(str(path), shipped.trusted())
    path = shipped.again("typing.edge", model={**model, "typing": "any", "weak_flags": ["FP16"]})
    container.opened(str(path), shipped.trusted()).check()


def test_an_agent_without_keys_trusts_nobody(shipped: Shipped) -> None:
    assert keys.built_in() == {}
    with pytest.raises(Refused, match="no key is trusted here"):
        container.opened(str(shipped.file), {})
