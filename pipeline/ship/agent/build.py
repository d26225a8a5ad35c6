"""A bundle made into a version of the store: verified, built in a child process, and there as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List

from . import activation, child, container, contents, disk, preflight
from .errors import AgentError, Broken, Refused
from .store import BUILT, CURRENT, VERSIONS, sha256

if TYPE_CHECKING:
    from .container import Bundle
    from .device_facts import Facts
    from .store import Store

FILES = {"tensorrt": "engine.plan", "onnxruntime": "engine.onnx"}
# Bytes of memory that a builder gets where little is free; by default it gets half of what is.
LEAST_WORKSPACE = 64 * 2**20


def question(store: Store, bundle: Bundle, facts: Facts, engine: str) -> preflight.Question:
    """What preflight is asked about a bundle on this device; the store need not be there yet.

    ``engine`` is one of preflight.ENGINES, or auto.
    """
    # The disk that the store will be on: that of the nearest folder that is there.
    nearest = store.root
    while not os.path.isdir(nearest):
        nearest = os.path.dirname(nearest)
    current = store.linked(CURRENT)
    return preflight.Question(
        facts=facts,
        manifest=bundle.manifest,
        data=contents.parsed(bundle, "compatibility.json"),
        engine=preflight.chosen(engine, bundle.manifest, facts),
        size=sum(member["size"] for member in bundle.manifest["members"]),
        free=shutil.disk_usage(nearest).free,
        active=store.built(current).get("device") if current else None,
    )


def answers(store: Store, about: preflight.Question, allow_unknown: bool) -> List[preflight.Answer]:
    """All that preflight says, and whether the bundle has expired; what is unknown is left out where it is allowed."""
    rows = preflight.ask(about)
    late = preflight.expired(about.manifest, time.time(), _latest_release(store))
    if late is not None:
        rows.append(late)
    if allow_unknown:
        rows = [answer for answer in rows if answer.verdict != "unknown"]
    return rows


def _latest_release(store: Store) -> int:
    """The latest release in the store, seconds since 1970: a clock that is right is not behind it. 0 without any."""
    if not os.path.isdir(store.versions):
        return 0
    releases = [int(store.built(version).get("released", 0)) for version in store.all()]
    return max(releases, default=0)


def build(store: Store, path: str, facts: Facts, options: Any, heard: Callable[[str], None]) -> str:
    """The version that the bundle at ``path`` is on this device, built unless it is there; raises Refused or Broken.

    ``options`` has engine, workspace, timeout, allow_downgrade and allow_unknown.
    """
    bundle = container.opened(path, store.keys)
    bundle.check()
    contents.refuse(bundle)
    about = question(store, bundle, facts, options.engine)
    preflight.refuse(answers(store, about, options.allow_unknown))
    activation.refuse_older(store, store.linked(CURRENT), bundle.manifest["released"], options.allow_downgrade)
    device = facts.device(about.engine)
    with store.building():
        version = _free(store, bundle, device)
        if os.path.isdir(store.path(version)):
            heard(f"{version} is built already")
            return version
        with store.staging() as folder:
            bundle.unpack(folder)
            engine_note = _engine(folder, bundle, about.engine, facts.available, options, heard)
            note = {"released": bundle.manifest["released"], "bundle": bundle.digest, "device": device, **engine_note}
            disk.write(os.path.join(folder, BUILT), [json.dumps(note, indent=1).encode()])

            # Readable for the application. Then all of it is on the disk before it gets its name.
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
            continue  # damaged: nothing of it is used, and this one gets the next number
        if store.built(version).get("device") == device:
            return version
    raise Refused(f"{stem}: a thousand versions of it are in {VERSIONS}; run gc")


def _engine(
    folder: str, bundle: Bundle, engine: str, available: int, options: Any, heard: Callable[[str], None]
) -> Dict[str, Any]:
    """Build in a child process, at the second try with half of the memory; the part of the note about it."""
    started = time.monotonic()
    path = os.path.join(folder, FILES[engine])
    job = job_of(bundle, path)
    job["model"] = os.path.join(folder, "model.onnx")
    job["workspace"] = options.workspace or max(LEAST_WORKSPACE, available // 2)
    target = bundle.manifest["model"]["target"] or ""
    timing_cache = f"timing-{target.partition('@')[0]}.cache"
    if timing_cache in bundle.places:
        job["timing_cache"] = os.path.join(folder, timing_cache)

    function = f"{engine}_engine:build"
    try:
        outcome = child.call(function, job, options.timeout, heard)
    except Broken as error:
        heard(f"{error}; once more, with half of the memory")
        disk.discard(path)
        job["workspace"] //= 2
        outcome = child.call(function, job, options.timeout, heard)
    for warning in outcome["warnings"]:
        heard(warning)
    return {
        "engine": FILES[engine],
        "sha256": sha256(path),
        "seconds": round(time.monotonic() - started, 3),
        "workspace": job["workspace"],
        **outcome,
    }


def job_of(bundle: Bundle, engine: str) -> Dict[str, Any]:
    """What the engine modules need to know of a bundle, for the engine at the path ``engine``."""
    model = bundle.manifest["model"]
    names = ("precision", "weak_flags", "scales", "dtype", "classes", "batches")
    return dict({name: model[name] for name in names}, engine=engine)
