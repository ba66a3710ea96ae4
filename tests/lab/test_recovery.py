"""What is left of an operation whose controller was killed: finished, undone, or undone by the host itself."""

from __future__ import annotations

import time

import pytest

import unifyweaver_py as uw
from tests import controller
from tests.lab.lab import Host, Lab
from tests.lab.test_deploy import answer, backup, current, declare, servers, settings, steps
from tests.lab.test_locks import locked, until
from tests.site import Site

SLOW = "touch /srv/begun; sleep 60"


@pytest.fixture
def host(lab: Lab, site: Site) -> Host:
    """A host on which version 2 runs, and version 1 is the rollback point."""
    host = lab.hosts[0]
    declare(site, lab, host)
    for version in ("1", "2"):
        site.release(version)
        assert str(site.deploy()) == "deployed"
    site.release("3")
    return host


def intent(host: Host) -> str:
    path = host.srv / "services/web/run/intent"
    return path.read_text().strip() if path.exists() else ""


def kill_at(lab: Lab, host: Host, site: Site, **how: object) -> None:
    """A controller that deploys what is next is killed when its hook has begun."""
    with controller.begin(site, [host.address], settings(lab), **how) as process:  # type: ignore[arg-type]
        until((host.srv / "begun").exists)
        process.kill()
    (host.srv / "begun").unlink()


def the_status(results: uw.Result) -> str:
    [result] = results
    return str(result.args[1])


def test_controller_killed_between_stop_and_start(lab: Lab, site: Site, host: Host) -> None:
    before = current(host), backup(host)
    kill_at(lab, host, site, stopped=SLOW)
    assert servers(host) == []
    assert intent(host).split()[1:4] == [*before, before[0]]
    assert the_status(uw.recover("web", backend="dry")) == f"undone('{before[0]}')"
    assert servers(host) == []
    assert the_status(uw.recover("web")) == f"undone('{before[0]}')"
    assert (current(host), backup(host), answer(host)) == (*before, "2")
    assert (intent(host), locked(host)) == ("", False)
    assert "sleep 60" not in " ".join(host.processes().values())
    assert the_status(uw.recover("web")) == "nothing_to_recover"


def test_deploying_again_starts_what_ran_and_goes_on(lab: Lab, site: Site, host: Host) -> None:
    before = current(host)
    kill_at(lab, host, site, stopped=SLOW)
    result = site.deploy()
    assert str(result) == "deployed"
    assert str(steps(result)["recovery"].outcome) == f"undone('{before}')"
    assert (answer(host), backup(host), len(servers(host))) == ("3", before, 1)
    assert (intent(host), locked(host)) == ("", False)


@pytest.mark.soak
def test_deploying_what_fails_again_leaves_what_ran_running(
    lab: Lab, site: Site, host: Host
) -> None:
    before = current(host)
    kill_at(lab, host, site, stopped=SLOW)
    site.release("4", "broken")
    assert "rolled_back(" in str(site.deploy())
    assert (answer(host), current(host)) == ("2", before)


@pytest.mark.soak
def test_what_runs_when_its_controller_is_killed_is_finished(
    lab: Lab, site: Site, host: Host
) -> None:
    before = current(host)
    kill_at(lab, host, site, hook=SLOW)
    assert the_status(uw.recover("web")) == f"completed('{current(host)}')"
    assert (answer(host), backup(host)) == ("3", before)
    assert str(site.deploy()) == "unchanged"
    assert (intent(host), locked(host)) == ("", False)


def test_intent_costs_no_command_and_is_gone_afterwards(lab: Lab, site: Site, host: Host) -> None:
    execs, connections = host.execs, host.connections
    assert str(site.deploy()) == "deployed"
    assert (host.execs - execs, host.connections - connections) == (4, 1)
    for operation in (
        lambda: uw.stop_service("web"),
        lambda: uw.start_service("web"),
        lambda: uw.rollback_service("web"),
    ):
        assert operation().ok
        assert {"intend", "settle"} <= set(steps(operation()))
        assert intent(host) == ""
    site.release("4", "broken")
    assert "rolled_back(" in str(site.deploy())
    assert intent(host) == ""


# ---- the host goes back by itself --------------------------------------------------------------------


def watchdogs(host: Host) -> list[str]:
    """What there is of a watchdog: its files, but for the mark that it went back, and its processes."""
    files = [path.name for path in (host.srv / "services/web/run").glob("watch.*")]
    files = [name for name in files if not name.endswith(".undone")]
    return files + [command for command in host.processes().values() if "/run/watch." in command]


def came_back(host: Host, release: str) -> None:
    """The host has gone back by itself to this release, of version 2, and nothing is left of that."""
    until(lambda: not watchdogs(host))
    assert (current(host), answer(host), len(servers(host))) == (release, "2", 1)
    assert (intent(host), locked(host)) == ("", False)


def test_confirmed_in_time_nothing_is_left_of_the_watchdog(
    lab: Lab, site: Site, host: Host
) -> None:
    armed: list[list[str]] = []
    uw.declare_lifecycle_hook("web", "pre_shutdown", uw.custom("true"))
    execs, connections = host.execs, host.connections

    def watch(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin) and "health" in event.steps:
            armed.append(watchdogs(host))
            [file] = (host.srv / "services/web/run").glob("watch.*")
            assert file.stat().st_mode & 0o777 == 0o600

    result = site.deploy(confirm_within=30, on_event=watch)
    assert str(result) == "deployed"
    assert [len(seen) for seen in armed] == [2]
    assert (host.execs - execs, host.connections - connections) == (4, 2)
    until(lambda: not watchdogs(host))
    assert (answer(host), intent(host), locked(host)) == ("3", "", False)
    assert str(site.deploy()) == "unchanged"


def test_host_goes_back_when_the_network_is_gone(lab: Lab, site: Site, host: Host) -> None:
    before = current(host), backup(host)
    declare(site, lab, host, connect_timeout=1, healthy_deadline=2)

    def cut(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin) and "reconnect" in event.steps:
            host.link_down()

    result = site.deploy(confirm_within=1, on_event=cut)
    assert str(result).startswith("rolled_back_after_failure(error(rollback_failed(")
    came_back(host, before[0])
    assert backup(host) == before[1]
    host.link_up()
    assert str(uw.recover("web")) == "[result('" + host.address + "',nothing_to_recover)]"
    assert str(site.deploy(confirm_within=30)) == "deployed"


def test_host_goes_back_when_the_controller_is_killed(lab: Lab, site: Site, host: Host) -> None:
    before = current(host)
    site.release("3", "mute")
    with controller.begin(
        site, [host.address], settings(lab, healthy_deadline=30), confirm_within=2
    ) as process:
        until(lambda: current(host) != before and len(servers(host)) == 1)
        process.kill()
    assert len(watchdogs(host)) == 2
    came_back(host, before)


@pytest.mark.soak
def test_first_deployment_that_nobody_confirms_leaves_nothing(lab: Lab, site: Site) -> None:
    host = lab.hosts[1]
    site.release("1", "mute")
    with controller.begin(site, [host.address], settings(lab), confirm_within=1) as process:
        until(lambda: len(servers(host)) == 1)
        process.kill()
    until(lambda: not watchdogs(host))
    assert (current(host), servers(host), intent(host)) == ("", [], "")


def test_controller_that_comes_too_late_is_told_and_the_host_is_whole(
    lab: Lab, site: Site, host: Host
) -> None:
    before = current(host)

    def wait(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin) and "confirm" in event.steps:
            time.sleep(2)

    result = site.deploy(confirm_within=1, on_event=wait)
    assert str(result) == "error(deployment_failed(not_confirmed_in_time))"
    came_back(host, before)


@pytest.mark.soak
def test_failure_in_time_is_undone_by_the_controller(lab: Lab, site: Site, host: Host) -> None:
    before = current(host)
    site.release("3", "broken")
    result = site.deploy(confirm_within=30)
    assert str(result) == f"rolled_back_after_failure(rolled_back('{before}'))"
    came_back(host, before)


@pytest.mark.soak
def test_who_takes_over_disarms(lab: Lab, site: Site, host: Host) -> None:
    kill_at_health(lab, host, site)
    assert len(watchdogs(host)) == 2
    site.release("4")
    assert str(site.deploy()) == "deployed"
    until(lambda: not watchdogs(host))
    assert answer(host) == "4"


def kill_at_health(lab: Lab, host: Host, site: Site) -> None:
    """A controller is killed that waits for the health of a release which never answers."""
    before = current(host)
    site.release("3", "mute")
    with controller.begin(site, [host.address], settings(lab), confirm_within=60) as process:
        until(lambda: current(host) != before and len(servers(host)) == 1)
        process.kill()
