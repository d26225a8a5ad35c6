"""A bundle made into a version of the store: verified, built in a child process, and there as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from . import activation, child, container, contents, disk, preflight
from .errors import AgentError, Broken, Refused
from .store import BUILT, CURRENT, VERSIONS, sha256

if TYPE_CHECKING:
    from .container import Bundle
    from .device_facts import Facts
    from .store import Store

FILES = {"tensorrt": "engine.plan", "onnxruntime": "engine.onnx"}
LEAST_WORKSPACE = 64 * 2**20


def question(store: Store, bundle: Bundle, facts: Facts, asked: str) -> preflight.Question:
    """What preflight is asked about a bundle on this device; the store need not be there yet."""
    place = store.root
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    current = store.linked(CURRENT)
    return preflight.Question(
        facts,
        bundle.manifest,
        contents.parsed(bundle, "compatibility.json"),
        preflight.chosen(asked, bundle.manifest, facts),
        sum(member["size"] for member in bundle.manifest["members"]),
        shutil.disk_usage(place).free,
        store.built(current).get("device") if current else None,
    )


def answers(store: Store, asked: preflight.Question, now: Optional[float] = None) -> Any:
    """All that preflight says, and whether the bundle has expired."""
    seen = [int(store.built(name).get("released", 0)) for name in store.all()] if os.path.isdir(store.versions) else []
    late = preflight.expired(asked.manifest, time.time() if now is None else now, max(seen, default=0))
    return preflight.ask(asked) + ([late] if late else [])


def build(store: Store, path: str, facts: Facts, options: Any, heard: Callable[[str], None]) -> str:
    """The version that the bundle at ``path`` is on this device, built unless it is there; raises Refused or Broken.

    ``options`` has engine, workspace, timeout, allow_downgrade and allow_unknown.
    """
    bundle = container.opened(path, store.keys)
    bundle.check()
    contents.refuse(bundle)
    asked = question(store, bundle, facts, options.engine)
    said = answers(store, asked)
    if options.allow_unknown:
        said = [answer for answer in said if answer.verdict != "unknown"]
    preflight.refuse(said)
    activation.refuse_older(store, store.linked(CURRENT), bundle.manifest["released"], options.allow_downgrade)
    device = facts.device(asked.engine)
    with store.building():
        version = _free(store, bundle, device)
        if os.path.isdir(store.path(version)):
            heard(f"{version} is built already")
            return version
        with store.staging() as folder:
            bundle.unpack(folder)
            built = _engine(folder, bundle, asked.engine, facts.available, options, heard)
            note = {"released": bundle.manifest["released"], "bundle": bundle.digest, "device": device, **built}
            disk.write(os.path.join(folder, BUILT), [json.dumps(note, indent=1).encode()])
            os.chmod(folder, 0o755)  # noqa: S103
            for name in (*os.listdir(folder), "."):
                disk.sync(os.path.join(folder, name))
            os.rename(folder, store.path(version))
            disk.sync(store.versions)
    return version


def _free(store: Store, bundle: Bundle, device: Dict[str, Any]) -> str:
    """The version of this bundle that is whole and built for this device, or a name that is free."""
    stem = f"{bundle.manifest['released']}-{bundle.digest[:12]}"
    for number in range(1, 1000):
        version = f"{stem}-{number}"
        if not os.path.lexists(store.path(version)):
            return version
        try:
            store.whole(version)
        except AgentError:
            continue
        if store.built(version).get("device") == device:
            return version
    raise Refused(f"{stem}: a thousand versions of it are in {VERSIONS}; run gc")


def _engine(
    folder: str, bundle: Bundle, engine: str, available: int, options: Any, heard: Callable[[str], None]
) -> Dict[str, Any]:
    """Build in a child process, at the second try with half of the memory; the part of the note about it."""
    started = time.monotonic()
    workspace = options.workspace or max(LEAST_WORKSPACE, available // 2)
    path = os.path.join(folder, FILES[engine])
    job = dict(job_of(bundle, path), model=os.path.join(folder, "model.onnx"), workspace=workspace)
    cache = f"timing-{(bundle.manifest['model']['target'] or '').partition('@')[0]}.cache"
    if cache in bundle.places:
        job["timing_cache"] = os.path.join(folder, cache)
    try:
        said = child.call(f"{engine}_engine:build", job, options.timeout, heard)
    except Broken as error:
        heard(f"{error}; once more, with half of the memory")
        disk.discard(path)
        job["workspace"] = workspace // 2
        said = child.call(f"{engine}_engine:build", job, options.timeout, heard)
    for warning in said["warnings"]:
        heard(warning)
    seconds = round(time.monotonic() - started, 3)
    return {"engine": FILES[engine], "sha256": sha256(path), "seconds": seconds, "workspace": job["workspace"], **said}


def job_of(bundle: Bundle, engine: str) -> Dict[str, Any]:
    """What the engine modules need to know of a bundle, for the engine at the path ``engine``."""
    names = ("precision", "weak_flags", "scales", "dtype", "classes", "batches")
    return {"engine": engine, **{name: bundle.manifest["model"][name] for name in names}}
