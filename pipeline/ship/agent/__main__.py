"""The agent on a device: argv to one verb and its exit code."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from typing import Any, Callable, Dict, Iterator, List, Optional

from . import AGENT_VERSION, activation, build, container, device_facts, disk, keys, latency, preflight, receive, verify
from .errors import AgentError, Broken, Failed, Refused
from .store import CURRENT, PREVIOUS, Store

EPILOG = "exit codes: 0 done, 1 not the network that was judged or not well, 2 refused, 3 a step failed"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="edge-agent", description=__doc__, epilog=EPILOG)
    top.add_argument("--version", action="version", version=str(AGENT_VERSION))
    verbs = top.add_subparsers(dest="verb", metavar="VERB")
    for name, (_, text) in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text, epilog=EPILOG)
        verb.add_argument(
            "--store", default="/var/lib/edge-agent", metavar="DIR", help="of all versions (default: %(default)s)"
        )
        verb.add_argument("--key", action="append", default=[], metavar="PUB", help="trusted beside those built in")
        verb.add_argument("--json", action="store_true", help="print the result as JSON")
        verb.add_argument("--quiet", action="store_true", help="no progress")
        for flags, options in FLAGS.get(name, ()):
            verb.add_argument(*flags, **options)
    return top


_BUNDLE = (("bundle",), {"metavar": "BUNDLE"})
_ONE = (("id",), {"metavar": "ID", "nargs": "?", "help": "of status (default: the newest)"})
_ENGINE = (
    ("--engine",),
    {"choices": ("auto", *preflight.ENGINES), "default": "auto", "help": "(default: %(default)s)"},
)
_UNKNOWN = (("--allow-unknown",), {"action": "store_true", "help": "go on where nothing is known of a combination"})
_OLDER = (("--allow-downgrade",), {"action": "store_true", "help": "take a release older than the one in use"})
_TIMEOUT = (
    ("--timeout",),
    {"type": float, "default": 3600, "metavar": "S", "help": "of native code (default: %(default)s)"},
)
FLAGS: Dict[str, Any] = {
    "preflight": (_BUNDLE, _ENGINE, _UNKNOWN),
    "build": (
        _BUNDLE,
        _ENGINE,
        _UNKNOWN,
        _OLDER,
        _TIMEOUT,
        (("--workspace",), {"type": int, "metavar": "BYTES", "help": "(default: half of the free memory)"}),
    ),
    "verify": (
        _ONE,
        _TIMEOUT,
        (("--loader",), {"default": "", "metavar": "MODULE:FUNCTION", "help": "of your own: path to pixels (C, H, W)"}),
    ),
    "activate": (
        _ONE,
        _OLDER,
        _TIMEOUT,
        (("--health-cmd",), {"metavar": "CMD", "help": "in a shell; not 0 rolls back (default: the goldens again)"}),
        (("--health-seconds",), {"type": float, "default": 60, "metavar": "S", "help": "(default: %(default)s)"}),
    ),
    "bench": (
        _ONE,
        (("--batch",), {"type": int, "default": 1, "metavar": "N"}),
        (("--seconds",), {"type": float, "default": 10, "metavar": "S"}),
        (("--against",), {"metavar": "FILE", "help": "an earlier bench --json under the same conditions"}),
    ),
    "gc": (
        (("--keep",), {"type": int, "default": 0, "metavar": "N", "help": "of the others, the newest (default: 0)"}),
    ),
    "update": (_BUNDLE,),
}


def main(argv: Optional[List[str]] = None) -> int:
    """One verb; every failure is one sentence and its exit code."""
    top = parser()
    arguments = top.parse_args(argv)
    if arguments.verb is None:
        top.error("name a verb")
    try:
        result = VERBS[arguments.verb][0](arguments)
    except AgentError as error:
        return _ended(error)
    except OSError as error:
        return _ended(disk.explained(error, arguments.verb))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; status says what is in use\n")
        return 130
    except Exception as error:  # noqa: BLE001 - Python's own exit code 1 would say that the network is another
        return _ended(Broken(f"a fault of this agent, or a store that was changed ({type(error).__name__}: {error})"))
    code = result.pop("exit", 0)
    text = "\n".join(result["lines"])
    if arguments.json:
        text = json.dumps(result, indent=1)
    # The name of a class may hold what this terminal cannot write.
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    return int(code)


def _ended(error: AgentError) -> int:
    sys.stderr.write(f"error: {error}\n")
    return error.exit_code


def _store(arguments: Any) -> Store:
    trusted = dict(keys.built_in(), **keys.read(arguments.key))
    return Store(arguments.store, trusted)


def _existing_store(arguments: Any) -> Store:
    """The store, which must be there; raises Refused where it is none, or others can write to it."""
    store = _store(arguments)
    store.refuse()
    return store


def _progress(arguments: Any) -> Callable[[str], None]:
    """What shows a line of progress, nothing with --quiet."""

    def say(line: str) -> None:
        if not arguments.quiet:
            sys.stderr.write(f"{line}\n")

    return say


def _preflight(arguments: Any) -> Dict[str, Any]:
    store = _store(arguments)
    facts = device_facts.read()
    bundle = container.opened(arguments.bundle, store.keys)
    question = build.question(store, bundle, facts, arguments.engine)
    answers = build.answers(store, question, arguments.allow_unknown)
    verdict = preflight.worst(answers)
    lines = [f"{answer.verdict:<8} {answer.sentence}" for answer in answers]
    return {
        "verdict": verdict,
        "answers": [vars(answer) for answer in answers],
        "facts": vars(facts),
        "exit": Refused.exit_code if verdict in ("unknown", "refuse") else 0,
        "lines": [*lines, f"verdict: {verdict}"],
    }


def _build(arguments: Any) -> Dict[str, Any]:
    store = _store(arguments)
    container.opened(arguments.bundle, store.keys)  # before anything is made for a bundle that nobody signed
    store.make()
    version = build.build(store, arguments.bundle, device_facts.read(), arguments, _progress(arguments))
    return {"version": version, "lines": [version], **store.built(version)}


def _verify(arguments: Any) -> Dict[str, Any]:
    store = _existing_store(arguments)
    version = store.named(arguments.id)
    device = _device(store, version)
    figures = verify.verify(store, version, device, arguments.loader, arguments.timeout, _progress(arguments))
    line = (
        f"{version}: {figures['goldens']} goldens keep {figures['sqnr_db']:.1f} dB of PyTorch, "
        f"{figures['judged_db']:.1f} of the file that was judged, "
        f"{100 * figures['agreement']:.2f} % with PyTorch's answer; "
        f"99 % of runs within {figures['latency']['p99_ms']:.3f} ms; verified"
    )
    lines = [line, *verify.worst_class(container.opened(store.path(version), store.keys))]
    return {"version": version, "lines": lines, **figures}


def _activate(arguments: Any) -> Dict[str, Any]:
    store = _existing_store(arguments)
    version = store.named(arguments.id)

    def goldens(_: str) -> None:
        verify.measured(store, version, arguments.timeout, _progress(arguments), latency=False)

    health: activation.Health = goldens
    if arguments.health_cmd:
        health = activation.command(arguments.health_cmd, arguments.health_seconds)
    line = activation.activate(store, version, _device(store, version), health, arguments.allow_downgrade)
    return {"version": version, "lines": [line]}


def _rollback(arguments: Any) -> Dict[str, Any]:
    store = _existing_store(arguments)
    line = activation.rollback(store, _device(store, store.linked(PREVIOUS)))
    return {"version": store.linked(CURRENT), "lines": [line]}


def _device(store: Store, version: Optional[str]) -> Dict[str, Any]:
    """What the engine of ``version`` depends on, as it is here."""
    built_for = store.built(version).get("device") if version else None
    engine = (built_for or {}).get("engine", "onnxruntime")
    return device_facts.read().device(str(engine))


def _status(arguments: Any) -> Dict[str, Any]:
    store = _existing_store(arguments)
    rows = list(_rows(store))
    pending = store.pending()
    lines = []
    for row in rows:
        lines.append(f"{row['version']}: {', '.join(row['is'])}")
        lines += [f"  {sentence}" for sentence in row["worst_class"]]
    lines = lines or ["no version yet"]
    if pending:
        lines.append(f"pending: {pending['version']} was not asked whether it is well; activate it again, or rollback")
    return {"versions": rows, "active": store.linked(CURRENT), "pending": pending or None, "lines": lines}


def _rows(store: Store) -> Iterator[Dict[str, Any]]:
    """Each version: what it is linked as, and whether it may be used or why not."""
    links = {store.linked(PREVIOUS): "previous", store.linked(CURRENT): "active"}
    for version in store.all():
        states = [links[version]] if version in links else []
        loadable = True
        worst_class: List[str] = []
        try:
            bundle = store.loadable(version, _device(store, version))
            worst_class = verify.worst_class(bundle)
            states.append("verified")
        except AgentError as error:
            states.append(str(error))
            loadable = False
        yield {"version": version, "is": states, "loadable": loadable, "worst_class": worst_class}


def _bench(arguments: Any) -> Dict[str, Any]:
    store = _existing_store(arguments)
    version = store.named(arguments.id or store.linked(CURRENT))
    store.loadable(version, _device(store, version))
    # Before anything is measured: a file that is none would cost the whole run.
    before = _earlier_bench(arguments.against) if arguments.against else None

    result = latency.bench(store, version, arguments.batch, arguments.seconds, _progress(arguments))
    lines = latency.lines(result)
    if before is not None:
        lines += latency.compared(before, result)
    return dict(result, lines=lines)


def _earlier_bench(path: str) -> Dict[str, Any]:
    """The result in a file of bench --json; raises Refused where it holds none."""
    try:
        with open(path, encoding="utf-8") as file:
            result: Dict[str, Any] = json.load(file)
        float(result["latency"]["p50_ms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"--against {path}: it holds no result of bench --json ({error!r})") from error
    return result


def _gc(arguments: Any) -> Dict[str, Any]:
    store = _existing_store(arguments)
    removed = activation.gc(store, max(0, arguments.keep))
    uploading = False
    try:
        removed += receive.discard(store)
    except Refused:
        uploading = True

    lines = [f"removed {name}" for name in removed]
    if uploading:
        lines.append("an upload that goes on was left")
    return {"removed": removed, "lines": lines or ["nothing to remove"]}


def _update(arguments: Any) -> Dict[str, Any]:
    """Replace this agent by the one in a bundle that it verified."""
    bundle = container.opened(arguments.bundle, _store(arguments).keys)
    own = os.path.abspath(sys.argv[0])
    if not os.path.isfile(own) or not own.endswith(".pyz"):
        raise Refused(f"update replaces an agent of one file, and this one runs from {own}")
    if "agent.pyz" not in bundle.places:
        raise Refused(f"{arguments.bundle} carries no agent; make it with bundle create --agent")
    folder = os.path.dirname(own)
    # Beside the old one, so that it takes its place in one step.
    fresh = os.path.join(folder, f"{disk.UNFINISHED}{os.path.basename(own)}")
    disk.discard(fresh)
    disk.write(fresh, bundle.pieces("agent.pyz"), 0o755)
    if _version_of(fresh) < AGENT_VERSION:
        disk.discard(fresh)
        raise Failed("the agent of the bundle does not start here, or is older; this one stays")
    shutil.copymode(own, fresh)
    os.replace(fresh, own)
    disk.sync(folder)
    return {"lines": [f"{own} is the agent of {arguments.bundle} now"]}


def _version_of(agent: str) -> int:
    """What the agent at this path says of itself; -1 where it does not start here."""
    command = [sys.executable, agent, "--version"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)  # noqa: S603
    except subprocess.SubprocessError:
        return -1
    text = done.stdout.strip()
    return int(text) if text.isdigit() else -1


def _install(arguments: Any) -> Dict[str, Any]:
    path = receive.install(_store(arguments), os.path.abspath(sys.argv[0]))
    return {"path": path, "lines": [f"{path} is the agent of this store"]}


def _receive(arguments: Any) -> Dict[str, Any]:
    def answer(row: Dict[str, Any]) -> None:
        sys.stdout.write(f"{json.dumps(row)}\n")
        # The sender waits for each line.
        sys.stdout.flush()

    receive.receive(_store(arguments), receive.lines(sys.stdin.fileno()), answer)
    return {"lines": []}


VERBS: Dict[str, Any] = {
    "install": (_install, "put this agent into its store, which is made"),
    "receive": (_receive, "take a bundle that python -m pipeline ship sends"),
    "preflight": (_preflight, "say whether a bundle can become an engine here: go, rebuild or refuse"),
    "build": (_build, "build the engine of a bundle; nothing that is in use changes"),
    "verify": (_verify, "ask the engine the goldens, itself and its pace"),
    "activate": (_activate, "use a verified version; taken back where it is not well"),
    "rollback": (_rollback, "use the version before again"),
    "status": (_status, "all versions and what they are"),
    "bench": (_bench, "how fast the engine in use is, at which power"),
    "gc": (_gc, "remove what is neither in use nor the one before"),
    "update": (_update, "replace this agent by the one that travels in a bundle"),
}

if __name__ == "__main__":
    sys.exit(main())
