"""Rollouts on real hosts: a fleet is never left half done, and of two deployments one wins on all of it."""

from __future__ import annotations

import time

import pytest

import unifyweaver_py as uw
from tests import controller
from tests.lab.lab import Host, Lab
from tests.lab.test_deploy import answer, current, declare, servers, settings
from tests.lab.test_locks import SLOW, elsewhere, locked, until
from tests.site import Site
from unifyweaver_py import effects


def outcomes(results: uw.HostResults) -> list[str]:
    return [str(each.args[1]) for each in results]


def impatient() -> None:
    """An unreachable host is given up after a second."""
    _, options = uw.deploy_method_config("web") or ("", {})
    uw.declare_deploy_method("web", "ssh", **{**options, "connect_timeout": 1})


def fails_on(host: Host, *hosts: Host) -> None:
    """The next deployment fails on `host`."""
    failing = {"start_command": "echo no luck >&2; exit 3"}
    uw.declare_service_hosts("web", {h.address: failing if h is host else {} for h in hosts})


@pytest.fixture
def fleet(lab: Lab, site: Site) -> list[Host]:
    """Three hosts on version 1."""
    hosts = lab.hosts[:3]
    declare(site, lab, *hosts)
    assert uw.deploy_to_all_hosts("web").ok
    return hosts


def test_failing_canary_leaves_the_rest_untouched(fleet: list[Host], site: Site) -> None:
    old = [servers(host) for host in fleet]
    uw.declare_rollout("web", batches=[1, "100%"])
    site.release("2", "broken")
    results = uw.deploy_to_all_hosts("web")
    first, *rest = outcomes(results)
    assert first.startswith("rolled_back_after_failure(rolled_back(")
    assert rest == ["skipped(max_failures)"] * 2
    assert not results.ok
    assert [answer(host) for host in fleet] == ["1"] * 3
    assert [servers(host) for host in fleet[1:]] == old[1:]
    assert not any(locked(host) for host in fleet)


def test_hosts_that_succeeded_go_back_with_the_fleet(fleet: list[Host], site: Site) -> None:
    before = [current(host) for host in fleet]
    uw.declare_rollout("web", batches=[1])
    site.release("2")
    fails_on(fleet[1], *fleet)
    results = uw.deploy_to_all_hosts("web")
    first, second, third = outcomes(results)
    assert (first, third) == ("rolled_back_with_fleet", "skipped(max_failures)")
    assert second.startswith("rolled_back_after_failure(rolled_back(")
    assert results.hosts[fleet[0].address] == "rolled_back_with_fleet"
    assert [current(host) for host in fleet] == before
    assert [answer(host) for host in fleet] == ["1"] * 3
    assert [len(servers(host)) for host in fleet] == [1] * 3
    assert uw.deployed_hash("web") == before[0]
    assert not any(locked(host) for host in fleet)


def test_first_deployment_of_a_fleet_that_fails_leaves_nothing_active(lab: Lab, site: Site) -> None:
    hosts = lab.hosts[:2]
    declare(site, lab, *hosts)
    uw.declare_rollout("web", batches=[1])
    fails_on(hosts[1], *hosts)
    first, second = outcomes(uw.deploy_to_all_hosts("web"))
    assert first == "rolled_back_with_fleet"
    assert second == "rolled_back_after_failure(error(no_rollback_available))"
    assert [(current(host), servers(host)) for host in hosts] == [("", [])] * 2
    assert uw.deployed_hash("web") is None


def test_stopped_rollout_is_gone_on_with(fleet: list[Host], site: Site) -> None:
    assert str(uw.resume_rollout("web")) == "error(no_rollout_to_resume)"
    uw.declare_rollout("web", batches=[1], on_failure="stop")
    site.release("2")
    fleet[1].link_down()
    impatient()
    first, second, third = outcomes(uw.deploy_to_all_hosts("web"))
    assert (first, third) == ("deployed", "skipped(max_failures)")
    assert second.startswith("error(deployment_failed(")
    assert [answer(host) for host in (fleet[0], fleet[2])] == ["2", "1"]
    process = servers(fleet[0])
    fleet[1].link_up()
    site.release("3")
    assert str(uw.resume_rollout("web")).startswith("error(release_changed(")
    site.release("2")
    assert outcomes(uw.resume_rollout("web")) == ["deployed"] * 3
    assert [answer(host) for host in fleet] == ["2"] * 3
    assert servers(fleet[0]) == process
    assert str(uw.resume_rollout("web")) == "error(no_rollout_to_resume)"


def test_rollout_of_a_killed_controller_is_gone_on_with_and_taken_back_whole(
    lab: Lab, fleet: list[Host], site: Site
) -> None:
    hosts = [host.address for host in fleet]
    site.release("2")
    slow_second = f"test $HOST != {hosts[1]} || {{ {SLOW}; }}"
    rollout = {"batches": [1]}
    with controller.begin(site, hosts, settings(lab), hook=slow_second, rollout=rollout) as process:
        until((fleet[1].srv / "begun").exists)
        process.kill()
        process.wait()
    assert [answer(host) for host in fleet] == ["2", "2", "1"]
    effects.set_ledger(site.folder.with_suffix(".sqlite3"))
    uw.declare_rollout("web", **rollout)
    fails_on(fleet[2], *fleet)
    first, second, third = outcomes(uw.resume_rollout("web"))
    assert (first, second) == ("rolled_back_with_fleet",) * 2
    assert third.startswith("rolled_back_after_failure(rolled_back(")
    assert [answer(host) for host in fleet] == ["1"] * 3
    assert [len(servers(host)) for host in fleet] == [1] * 3


def test_resuming_after_a_failure_goes_on_and_tells_what_had_failed(
    fleet: list[Host], site: Site
) -> None:
    uw.declare_rollout("web", batches=[1], on_failure="stop")
    site.release("2")
    fails_on(fleet[1], *fleet)
    failed = outcomes(uw.deploy_to_all_hosts("web"))[1]
    assert failed.startswith("rolled_back_after_failure(")
    assert outcomes(uw.resume_rollout("web")) == ["deployed", failed, "deployed"]
    assert [answer(host) for host in fleet] == ["2", "1", "2"]


def test_release_that_changed_is_noticed_behind_warnings_too(fleet: list[Host], site: Site) -> None:
    uw.declare_rollout("web", batches=[1], on_failure="stop")
    uw.declare_lifecycle_hook("web", "post_deploy", uw.custom("exit 1"))
    site.release("2")
    fails_on(fleet[1], *fleet)
    assert outcomes(uw.deploy_to_all_hosts("web"))[0].startswith("deployed_with_warnings(")
    site.release("3")
    assert str(uw.resume_rollout("web")).startswith("error(release_changed(")


def test_who_is_refused_leaves_the_others_rollout_to_be_resumed(
    lab: Lab, fleet: list[Host], site: Site
) -> None:
    hosts = [host.address for host in fleet]
    site.release("2")
    slow_second = f"test $HOST != {hosts[1]} || {{ {SLOW}; }}"
    rollout = {"batches": [1]}
    with controller.begin(site, hosts, settings(lab), hook=slow_second, rollout=rollout) as process:
        try:
            until((fleet[1].srv / "begun").exists)
            effects.set_ledger(site.folder.with_suffix(".sqlite3"))
            uw.declare_rollout("web", **rollout)
            assert outcomes(uw.deploy_to_all_hosts("web"))[0].startswith("error(locked(")
        finally:
            process.kill()
            process.wait()
    assert outcomes(uw.resume_rollout("web")) == ["deployed", "unchanged", "deployed"]
    assert [answer(host) for host in fleet] == ["2"] * 3


def test_host_that_went_back_before_its_controller_was_killed_does_not_go_back_twice(
    lab: Lab, fleet: list[Host], site: Site
) -> None:
    hosts = [host.address for host in fleet]
    site.release("2")
    assert uw.deploy_to_all_hosts("web").ok
    site.release("3")
    rollout = {"batches": [1]}
    slow_last = f"test $HOST != {hosts[2]} || {{ {SLOW}; }}"
    with controller.begin(site, hosts, settings(lab), hook=slow_last, rollout=rollout) as process:
        until((fleet[2].srv / "begun").exists)
        process.kill()
        process.wait()
    uw.rollback_service("web", host=hosts[0])  # the ledger of the killed one does not know
    effects.set_ledger(site.folder.with_suffix(".sqlite3"))
    uw.recover("web", host=hosts[2])
    uw.rollback_service("web", host=hosts[2])
    uw.declare_rollout("web", **rollout)
    fails_on(fleet[2], *fleet)
    assert outcomes(uw.resume_rollout("web"))[:2] == ["rolled_back_with_fleet"] * 2
    assert [answer(host) for host in fleet] == ["2"] * 3


@pytest.mark.parametrize("way", ["resume", "deploy"])
def test_fleet_that_was_going_back_goes_all_the_way(
    lab: Lab, fleet: list[Host], site: Site, way: str
) -> None:
    """The controller is killed there; what had made the rollout fail is mended, or fails again."""
    hosts = [host.address for host in fleet]
    site.release("2")
    rollout = {"batches": [1]}
    uw.declare_rollout("web", **rollout)
    fails = f"test $HOST != {hosts[2]}"
    slow_back = f"test $HOST != {hosts[1]} || grep -q 1 VERSION || {{ {SLOW}; }}"
    with controller.begin(
        site, hosts, settings(lab), before=fails, stopped=slow_back, rollout=rollout
    ) as process:
        until((fleet[1].srv / "begun").exists)
        process.kill()
        process.wait()
    effects.set_ledger(site.folder.with_suffix(".sqlite3"))
    if way == "resume":
        assert set(outcomes(uw.resume_rollout("web"))[:2]) == {"rolled_back_with_fleet"}
        assert str(uw.resume_rollout("web")) == "error(no_rollout_to_resume)"
    else:
        fails_on(fleet[2], *fleet)
        assert set(outcomes(uw.deploy_to_all_hosts("web"))[:2]) == {"rolled_back_with_fleet"}
    assert [answer(host) for host in fleet] == ["1"] * 3
    assert [len(servers(host)) for host in fleet] == [1] * 3
    assert not any(locked(host) for host in fleet)


def test_of_two_deployments_one_wins_on_all_hosts(lab: Lab, fleet: list[Host], site: Site) -> None:
    hosts = [host.address for host in fleet]
    site.release("2")
    last = f"test $HOST != {hosts[2]} || {{ {SLOW}; }}"
    with controller.begin(site, hosts, settings(lab), hook=last, rollout={}) as process:
        try:
            until(lambda: (fleet[2].srv / "begun").exists() and not locked(fleet[1]))
            assert locked(fleet[0])  # the gate's, though that host is done
            site.release("3")
            refused = uw.deploy_with_rollback("web")
            assert not refused
            assert {str(each).split(",")[0] for each in refused.hosts.values()} == {
                str(refused.hosts[hosts[0]]).split(",")[0]
            }
            assert "locked(" in str(refused.hosts[hosts[0]])
            assert [answer(host) for host in fleet] == ["2"] * 3
        finally:
            process.kill()
            process.wait()
    assert str(uw.deploy_with_rollback("web")) == "deployed"
    assert [answer(host) for host in fleet] == ["3"] * 3
    assert not any(locked(host) for host in fleet)


def test_gate_is_renewed_as_long_as_the_fleet_is_at_work(
    lab: Lab, fleet: list[Host], site: Site
) -> None:
    hosts = [host.address for host in fleet]
    uw.declare_service_hosts("web", {host: {"healthy_deadline": 1} for host in hosts})
    site.release("2")
    options = settings(lab, healthy_deadline=1)
    last = f"test $HOST != {hosts[2]} || {{ {SLOW}; }}"
    rollout = {"healthy_deadline": 1}
    with controller.begin(site, hosts, options, hook=last, rollout=rollout, lease=2) as process:
        try:
            until(lambda: (fleet[2].srv / "begun").exists() and not locked(fleet[1]))
            elsewhere(fleet[0])
            holder = fleet[0].srv / "services/web/run/lock/holder"
            first = holder.read_text()
            time.sleep(4)
            assert holder.read_text() != first
            assert "locked(" in str(uw.stop_service("web", host=hosts[0]))
        finally:
            process.kill()
            process.wait()
    until(lambda: str(uw.lock_status("web", host=hosts[0])) == "unlocked")


def test_host_that_is_cut_off_goes_back_by_itself_and_the_fleet_with_it(
    lab: Lab, site: Site
) -> None:
    hosts = lab.hosts[:2]
    declare(site, lab, *hosts, connect_timeout=1, healthy_deadline=2)
    assert uw.deploy_to_all_hosts("web").ok
    uw.declare_rollout("web", batches=[1], confirm_within=3, healthy_deadline=2)
    site.release("2")

    def cut(event: uw.Event | uw.Begin) -> None:
        match event:
            case uw.Begin(host, steps) if host == hosts[1].address and "reconnect" in steps:
                hosts[1].link_down()

    first, second = outcomes(uw.deploy_to_all_hosts("web", on_event=cut))
    assert first == "rolled_back_with_fleet"
    assert second.startswith("rolled_back_after_failure(error(rollback_failed(")
    until(lambda: [answer(host) for host in hosts] == ["1"] * 2)
    until(lambda: not locked(hosts[1]))
    hosts[1].link_up()
    assert [len(servers(host)) for host in hosts] == [1] * 2


def test_fleet_status_tells_what_every_host_is_like(fleet: list[Host], site: Site) -> None:
    began = time.time()
    good = uw.fleet_status("web")
    assert good.ok
    release = uw.deployed_hash("web")
    for row, host in zip(good, fleet, strict=True):
        assert (row.host, row.release) == (host.address, release)
        assert (row.process, row.health, row.drift) == ("running", "healthy", "none")
        assert row.since is not None
        assert began - 60 < row.since <= time.time()
    assert release[:8] in good._repr_html_()
    uw.stop_service("web", host=fleet[0].address)
    fleet[1].check("rm /srv/services/web/current")
    fleet[2].link_down()
    impatient()
    stopped, drifted, gone = uw.fleet_status("web")
    assert (stopped.process, stopped.health, stopped.since) == ("stopped", "unknown", None)
    assert (drifted.release, str(drifted.drift)) == ("none", str(uw.Term("drift", (release, "none"))))  # fmt: skip
    assert (gone.release, gone.drift) == ("unknown", "unknown")
    assert str(gone.process).startswith("unreachable(")
    assert not uw.fleet_status("web").ok


def test_spread_and_order_of_a_rule_decide_who_comes_first(lab: Lab, site: Site) -> None:
    hosts = [host.address for host in lab.hosts[:3]]
    declare(site, lab, *lab.hosts[:3])
    zones = dict(zip(hosts, ("a", "b", "b"), strict=True))
    uw.declare_service_hosts("web", {host: {"zone": zone} for host, zone in zones.items()})
    uw.declare_rollout("web", batches=[1, 2], spread="zone")
    results = uw.deploy_to_all_hosts("web")
    batches = [note.args[0] for event in results.events if event.step.startswith("batch") for note in event.notes]  # type: ignore[union-attr]  # fmt: skip
    assert [sorted(batch) for batch in batches] == [[hosts[1]], [hosts[0], hosts[2]]]  # type: ignore[arg-type]
