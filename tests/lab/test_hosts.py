"""State, backup, health, hooks and rollback belong to each host; what is said at length holds nothing up."""

from __future__ import annotations

import time

import unifyweaver_py as uw
from tests.lab.lab import Lab
from tests.lab.test_deploy import (
    answer,
    backup,
    current,
    declare,
    declare_all_hooks,
    events_of,
    rolled_back,
    rolled_back_after_failure,
    servers,
    steps,
)
from tests.site import Site


def test_second_hosts_failure_is_its_own(lab: Lab, site: Site) -> None:
    first, second = lab.hosts[:2]
    declare(site, lab, first, second)
    declare_all_hooks(first)
    assert str(site.deploy()) == "deployed"
    old = current(first), current(second)
    assert old[0] == old[1]
    for host in (first, second):
        assert events_of(host) == ["pre_deploy", "post_deploy"]
    site.release("2")
    failing = {"start_command": "echo no luck >&2; exit 3"}
    uw.declare_service_hosts("web", {first.address: {}, second.address: failing})
    result = site.deploy()
    assert result.hosts[first.address] == "deployed"
    assert str(result.hosts[second.address]) == rolled_back_after_failure(old[1])
    assert not result.ok
    assert events_of(first) == ["pre_deploy", "pre_shutdown", "post_shutdown", "post_deploy"]
    assert events_of(second) == [
        "pre_deploy", "pre_shutdown", "post_shutdown",
        "on_health_failure", "pre_rollback", "post_rollback",
    ]  # fmt: skip
    new = current(first)
    assert (new != old[0], backup(first), answer(first)) == (True, old[0], "2")
    assert (current(second), backup(second), answer(second)) == (old[1], "", "1")
    assert uw.deployed_hash("web") is None
    assert uw.deployed_hash("web", first.address) == new
    assert uw.deployed_hash("web", second.address) == old[1]
    assert uw.rollback_hash("web", first.address) == old[0]
    assert uw.rollback_hash("web", second.address) is None

    uw.declare_service_hosts("web", {first.address: {}, second.address: {}})
    assert str(uw.check_for_changes("web", first.address)) == "no_changes"
    assert str(uw.check_for_changes("web", second.address)).startswith("changed(")
    back = uw.rollback_service("web")
    assert str(back.hosts[first.address]) == rolled_back(old[0])
    assert str(back.hosts[second.address]) == "error(no_rollback_available)"
    assert (answer(first), answer(second)) == ("1", "1")


def test_long_complaints_hold_up_neither_hook_nor_preparation_nor_start(
    lab: Lab, site: Site
) -> None:
    """64 kB is what a pipe holds that nobody reads."""
    host = lab.hosts[0]
    complain = "head -c 300000 /dev/zero | tr '\\0' '!' >&2"
    declare(
        site, lab, host,
        prepare_command=complain,
        start_command=f'{complain}; exec python3 server.py --port "$PORT"',
    )  # fmt: skip
    for event in ("pre_deploy", "post_deploy", "pre_shutdown", "post_shutdown"):
        uw.declare_lifecycle_hook("web", event, uw.custom(complain))
    began = time.monotonic()
    assert str(site.deploy()) == "deployed"
    site.release("2")
    assert str(site.deploy()) == "deployed"
    assert str(uw.execute_hooks("web", "post_deploy")) == "ok"
    assert time.monotonic() - began < 40
    assert answer(host) == "2"
    assert (host.srv / "services/web/log/service.log").stat().st_size >= 600_000


RELUCTANT = """
import os, signal, threading
signal.signal(signal.SIGTERM, lambda *_: threading.Timer(3, os._exit, [0]).start())
import server
server.main()
"""


def test_old_process_that_does_not_let_go_is_not_taken_for_the_new_one(
    lab: Lab, site: Site
) -> None:
    """It answers on for three seconds after it was told to end; the new one never listens."""
    host = lab.hosts[0]
    (site.folder / "reluctant.py").write_text(RELUCTANT)
    start = 'test "$(cat VERSION)" = 1 && file=reluctant.py; exec python3 "${file:-server.py}" --port "$PORT"'
    declare(site, lab, host, healthy_deadline=2, start_command=start)
    assert str(site.deploy()) == "deployed"
    release = current(host)
    first = {pid for pid, command in host.processes().items() if "reluctant.py" in command}
    assert len(first) == 1
    site.release("2", "deaf")
    result = site.deploy()
    assert str(result) == rolled_back_after_failure(release)
    assert str(steps(result)["start"].outcome) == "failed(not_listening(8080))"
    assert steps(result)["stop"].seconds >= 2.5
    second = {pid for pid, command in host.processes().items() if "reluctant.py" in command}
    assert len(second) == 1
    assert second != first
    assert (answer(host), current(host)) == ("1", release)


def test_rollback_restores_the_process_and_not_only_the_files(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    site.release("2")
    site.deploy()
    [second] = servers(host)
    result = uw.rollback_service("web")
    assert str(result) == rolled_back(current(host))
    [first] = servers(host)
    assert first != second
    assert answer(host) == "1"
    assert {"stop", "switch", "start"} <= set(steps(result))
