"""One operation at a time on a service's host: leases on real hosts, and controllers in processes of their own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import unifyweaver_py as uw
from tests import controller
from tests.lab.lab import Host, Lab
from tests.lab.test_deploy import answer, current, declare, servers, settings, steps
from tests.site import Site

HELD = 20  # seconds in which all racing controllers have begun
SLOW = "touch /srv/begun; sleep 60"
"""A hook that is still at work when something happens to its controller."""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def at_work(lab: Lab, host: Host, site: Site) -> Iterator[subprocess.Popen[str]]:
    """A controller whose deployment of version 2 is in the middle of a hook, after the switch."""
    site.release("2")
    with controller.begin(site, [host.address], settings(lab), hook=SLOW) as process:
        try:
            until((host.srv / "begun").exists)
            yield process
        finally:
            process.kill()


def locked(host: Host) -> bool:
    return (host.srv / "services/web/run/lock").exists()


def elsewhere(host: Host) -> None:
    """As if the holder of the lock ran on another machine."""
    who = host.srv / "services/web/run/lock/who"
    words = who.read_text().split()
    who.write_text(" ".join(["another", *words[1:3], "alice@laptop", *words[4:]]) + "\n")


def test_every_operation_gives_the_lock_back(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    for version in ("1", "2"):
        site.release(version)
        site.deploy()
        assert not locked(host)
    site.release("3", "broken")
    for operation in (
        site.deploy,
        lambda: uw.rollback_service("web"),
        lambda: uw.stop_service("web"),
        lambda: uw.start_service("web"),
        lambda: uw.graceful_stop("web"),
    ):
        steps_taken = steps(operation())
        assert {"lock", "unlock"} <= set(steps_taken) or "undo_lock_1" in steps_taken
        assert not locked(host)


def test_who_comes_second_is_refused_and_told_who_is_at_work(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    with at_work(lab, host, site):
        before = int(time.time())
        for result in (site.deploy(), uw.rollback_service("web"), uw.stop_service("web")):
            match result.term:
                case uw.Term("error", (uw.Term("locked", (owner, since, purpose)),)):
                    assert "@" in str(owner)
                    assert before - 60 < int(str(since)) <= before
                    assert purpose == "deployment"
                case other:
                    pytest.fail(str(other))
            assert "lock" not in steps(result)
        assert answer(host) == "2"


def test_killed_controller_of_this_machine_is_succeeded_at_once(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    with at_work(lab, host, site) as process:
        process.kill()
        process.wait()
        site.release("3")
        begun = time.monotonic()
        assert str(site.deploy()) == "deployed"
        assert time.monotonic() - begun < 10
    assert answer(host) == "3"
    assert len(servers(host)) == 1
    assert "sleep 60" not in " ".join(host.processes().values())
    assert not locked(host)


def test_lease_of_another_machine_is_waited_for(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    site.release("2")
    options = settings(lab, healthy_deadline=2)
    hook = "touch /srv/begun; sleep 4"
    with controller.begin(site, [host.address], options, hook=hook, lease=2) as process:
        until((host.srv / "begun").exists)
        elsewhere(host)
        process.kill()
    site.release("3")
    assert str(site.deploy()).startswith("error(locked('alice@laptop',")
    assert str(site.deploy(lock_wait=0.5)).startswith("error(locked('alice@laptop',")
    begun = time.monotonic()
    assert str(site.deploy(lock_wait=30)) == "deployed"
    assert 1 < time.monotonic() - begun < 20
    assert answer(host) == "3"


def test_script_without_its_lock_changes_nothing_more(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    before = current(host)
    lose = "mv /srv/services/web/run/lock /srv/lost"
    uw.declare_lifecycle_hook("web", "pre_shutdown", uw.custom(lose))
    site.release("2")
    result = site.deploy()
    assert str(steps(result)["drain"].outcome) == "failed(lock_lost)"
    assert str(steps(result)["stop"].outcome) == "failed(lock_lost)"
    assert (current(host), answer(host)) == (before, "1")
    assert len(servers(host)) == 1


def test_of_two_deployments_one_wins(lab: Lab, site: Site) -> None:
    race(lab, site, 2)


@pytest.mark.soak
def test_of_twenty_deployments_one_wins(lab: Lab, site: Site) -> None:
    race(lab, site, 20)


def race(lab: Lab, site: Site, count: int) -> None:
    """Each deploys a version of its own to a fleet; who is second finds it locked, on all hosts."""
    hosts = lab.hosts[:2]
    sites = [Site(site.folder.parent / f"site{number}") for number in range(count)]
    for number, each in enumerate(sites):
        each.release(str(number))
    options = settings(lab, healthy_deadline=60)
    processes = [
        controller.begin(each, [host.address for host in hosts], options, hook=f"sleep {HELD}")
        for each in sites
    ]
    results = [process.communicate(timeout=120)[0].strip() for process in processes]
    winners = [number for number, result in enumerate(results) if result == "deployed"]
    assert len(winners) == 1, results
    refused = [result for result in results if "locked(" in result and "deployed" not in result]
    assert len(refused) == count - 1, results
    assert [answer(host) for host in hosts] == [str(winners[0])] * len(hosts)
    assert [len(servers(host)) for host in hosts] == [1] * len(hosts)
    assert not any(locked(host) for host in hosts)
