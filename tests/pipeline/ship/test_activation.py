"""Which version is in use and which is gone back to, whatever was taken back or cut off before."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pipeline.ship.agent import activation
from pipeline.ship.agent.errors import Failed, Refused
from pipeline.ship.agent.store import CURRENT, PREVIOUS, Store

if TYPE_CHECKING:
    from pathlib import Path

    from shipping import Shipped


class Site(NamedTuple):
    """A store, the device it is on, and three verified versions, the oldest first; none is in use."""

    store: Store
    device: dict[str, Any]
    versions: list[str]

    @property
    def links(self) -> tuple[str | None, str | None]:
        return self.store.linked(CURRENT), self.store.linked(PREVIOUS)

    def activate(self, version: str, health: activation.Health = lambda _: None) -> str:
        return activation.activate(self.store, version, self.device, health)


@pytest.fixture(scope="module")
def origin(shipped: Shipped, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder, versions = tmp_path_factory.mktemp("activation") / "store", []
    for day in range(3):
        file = shipped.again(f"day-{day}.edge", released=1_790_000_100 + day)
        done = shipped.run("build", file, "--store", folder)
        assert done.returncode == 0, done.stderr
        versions.append(done.stdout.strip())
        assert shipped.run("verify", versions[-1], "--store", folder).returncode == 0
    store = Store(str(folder), shipped.trusted())
    return Site(store, store.built(versions[0])["device"], versions)


@pytest.fixture
def site(origin: Site, tmp_path: Path) -> Site:
    subprocess.run(["cp", "-a", origin.store.root, tmp_path / "store"], check=True)
    return origin._replace(store=Store(str(tmp_path / "store"), origin.store.keys))


def unwell(_: str) -> None:
    raise Failed("the camera is dark")


def full(_: str) -> None:
    raise OSError(28, "No space left on device")


def cut(_: str) -> None:
    raise KeyboardInterrupt


def broken(_: str) -> None:
    raise ValueError("half an answer")


@pytest.mark.parametrize("health", [unwell, full, broken])
def test_what_is_taken_back_leaves_both_links_as_they_were(site: Site, health: activation.Health) -> None:
    a, b, c = site.versions
    site.activate(a)
    site.activate(b)
    with pytest.raises(Failed, match=f"rolled back to {b}"):
        site.activate(c, health)
    assert site.links == (b, a)
    assert activation.gc(site.store, 0) == [c]
    assert activation.rollback(site.store, site.device) == f"{a} is active again, {b} is not"


def test_what_was_cut_off_is_never_gone_back_to(site: Site) -> None:
    a, b, c = site.versions
    site.activate(a)
    with pytest.raises(KeyboardInterrupt):
        site.activate(b, cut)
    assert site.store.pending()
    with pytest.raises(Failed, match=f"rolled back to {a}"):
        site.activate(c, unwell)
    assert (site.links, site.store.pending()) == ((a, None), {})


def test_an_activation_that_was_cut_off_is_asked_again_or_taken_back(site: Site) -> None:
    a, b, c = site.versions
    site.activate(a)
    site.activate(b)
    for again, links in (
        (lambda: site.activate(c), (c, b)),
        (lambda: site.activate(b), (b, a)),
        (lambda: activation.rollback(site.store, site.device), (b, a)),
    ):
        with pytest.raises(KeyboardInterrupt):
            site.activate(c, cut)
        assert set(site.versions) == set(site.store.all())
        assert activation.gc(site.store, 0) == []
        again()
        assert (site.links, site.store.pending()) == (links, {})
        site.store.point(CURRENT, b)
        site.store.point(PREVIOUS, a)


def test_rollback_keeps_what_is_well_where_the_switch_never_was(site: Site) -> None:
    a, b, c = site.versions
    site.activate(a)
    site.activate(b)
    site.store.note_pending({"version": c, "before": b, "previous": a})
    site.store.point(PREVIOUS, b)
    assert f"{b} is in use as before" in activation.rollback(site.store, site.device)
    assert (site.links, site.store.pending()) == ((b, a), {})


@pytest.mark.parametrize(("keep", "kept"), [(0, 0), (1, 1), (2, 2), (3, 2), (7, 2)])
def test_gc_keeps_as_many_of_the_others_as_it_is_told(site: Site, keep: int, kept: int) -> None:
    site.activate(site.versions[0])
    activation.gc(site.store, keep)
    assert set(site.store.all()) == {site.versions[0], *site.versions[3 - kept :]}


def test_there_is_nothing_before_the_first(site: Site) -> None:
    with pytest.raises(Failed, match="nothing is active"):
        site.activate(site.versions[0], unwell)
    assert site.links == (None, None)
    with pytest.raises(Refused, match="there is no version before the first"):
        activation.rollback(site.store, site.device)
