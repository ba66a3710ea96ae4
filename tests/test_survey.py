"""What is looked at before a deployment: the host and, meanwhile, the sources."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import unifyweaver_py as uw
from tests.site import Site
from unifyweaver_py import Term, effects
from unifyweaver_py.effects import LiveEffects, using

SECONDS = 20


class Meeting(LiveEffects):
    """Real effects, of which the first script and the first scan each wait until the other has begun."""

    def __init__(self, ledger: Path) -> None:
        super().__init__(ledger)
        self.both = threading.Barrier(2, timeout=SECONDS)

    def shell(self, run: Term, target: Term, script: str, *more: Any) -> Term:
        if "'survey'" in script:
            self.both.wait()
        return super().shell(run, target, script, *more)

    def scan(self, run: Term, folder: str, patterns: Sequence[Any], needs: Sequence[str]) -> Term:
        self.both.wait()
        return super().scan(run, folder, patterns, needs)


class Failing(LiveEffects):
    """Real effects without a way to the host, whose scan takes long, or is a mistake."""

    def __init__(self, ledger: Path, *, mistaken: bool) -> None:
        super().__init__(ledger)
        self.mistaken = mistaken
        self.go_on = threading.Event()
        self.scanned = threading.Event()

    def shell(self, *arguments: Any) -> Term:
        if self.mistaken:
            return super().shell(*arguments)
        return Term("failed", ("connection_refused",))

    def scan(self, *arguments: Any) -> Term:
        if self.mistaken:
            raise ValueError("a mistake in the scan")
        try:
            assert self.go_on.wait(SECONDS)
            return super().scan(*arguments)
        finally:
            self.scanned.set()


@pytest.fixture
def site(tmp_path: Path, own_ledger: Path, free_port: int) -> Iterator[Site]:
    effects.set_ledger(own_ledger)
    site = Site(tmp_path / "site")
    options = {"remote_dir": str(tmp_path / "remote"), "port": free_port}
    site.declare({"localhost": {}}, method="local", **options)
    yield site
    uw.force_stop_service("web", 2)
    uw.undeclare_service("web")


def test_sources_are_read_while_the_host_is_looked_at(site: Site, own_ledger: Path) -> None:
    with using(Meeting(own_ledger)):
        result = site.deploy()
    assert str(result) == "deployed"
    *looks, lock = [event.step for event in result.events][:3]
    assert (sorted(looks), lock) == (["observe", "scan"], "lock")


def test_hooks_come_between(site: Site, tmp_path: Path) -> None:
    """They may build what is shipped."""
    built = site.folder / "VERSION"
    uw.declare_lifecycle_hook("web", "pre_deploy", Term("custom", (f"printf built >{built}",)))
    result = site.deploy()
    assert [event.step for event in result.events][:3] == ["observe", "pre_deploy_1", "scan"]
    assert (tmp_path / "remote" / "web" / "current" / "VERSION").read_text() == "built"


def test_what_is_wrong_with_the_host_is_told_at_once(site: Site, own_ledger: Path) -> None:
    with using(Failing(own_ledger, mistaken=False)) as failing:
        result = site.deploy()
        assert not failing.scanned.is_set()
        failing.go_on.set()
        assert failing.scanned.wait(SECONDS)
    assert str(result) == "error(deployment_failed(connection_refused))"
    assert [event.step for event in result.events] == ["observe", "result"]
    assert str(site.deploy()) == "deployed"


def test_what_a_scan_raises_is_raised(site: Site, own_ledger: Path) -> None:
    with using(Failing(own_ledger, mistaken=True)), pytest.raises(ValueError, match="mistake") as e:
        site.deploy()
    assert "scan" in {frame.name for frame in e.traceback}
    assert str(site.deploy()) == "deployed"
