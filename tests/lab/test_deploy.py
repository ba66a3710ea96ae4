"""Deployments to real hosts: real files over real SSH, real processes, real HTTP."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.lab.lab import Host, Lab
from tests.site import Site
from unifyweaver_py import Term, effects

BASE = "/srv/services"


def declare(site: Site, lab: Lab, *hosts: Host, **options: object) -> None:
    site.declare({host.address: {} for host in hosts}, **settings(lab, **options))


def settings(lab: Lab, **options: object) -> dict[str, object]:
    return {
        "user": "root",
        "key_file": str(lab.key_file),
        "agent": False,
        "known_hosts": str(lab.known_hosts),
        "remote_dir": BASE,
        "port": 8080,
        "healthy_deadline": 5,
        **options,
    }


def answer(host: Host, path: str = "/", port: int = 8080) -> str:
    fetch = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode(), end='')"
    result = host.run(f"python3 -c \"{fetch}\" 'http://127.0.0.1:{port}{path}'")
    return result.stdout


def current(host: Host) -> str:
    return _link(host, "current")


def backup(host: Host) -> str:
    return _link(host, ".backup")


def _link(host: Host, name: str) -> str:
    path = host.srv / "services" / "web" / name
    return Path(os.readlink(path)).name if path.is_symlink() else ""


def servers(host: Host) -> list[int]:
    """The pids of the deployed processes."""
    return sorted(pid for pid, command in host.processes().items() if "server.py" in command)


def steps(result: uw.Result) -> dict[str, uw.Event]:
    return {event.step: event for event in result.events}


def notes(result: uw.Result, name: str) -> list[tuple[object, ...]]:
    return [
        note.args
        for event in result.events
        for note in event.notes
        if isinstance(note, Term) and note.name == name
    ]


def rolled_back(release: str) -> str:
    return str(Term("rolled_back", (release,)))


def rolled_back_after_failure(release: str) -> str:
    return f"rolled_back_after_failure({rolled_back(release)})"


# ---- one host ---------------------------------------------------------------------------------------


def test_first_deployment_ships_starts_and_answers(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    (site.folder / "bin").mkdir()
    (site.folder / "bin" / "tool").write_text("#!/bin/sh\n")
    (site.folder / "bin" / "tool").chmod(0o755)
    (site.folder / "link").symlink_to("bin/tool")
    declare(site, lab, host)
    result = site.deploy()
    assert str(result) == "deployed"
    assert result.ok
    assert answer(host) == "1"
    assert current(host) == uw.release_hash("web") == uw.deployed_hash("web", host.address)
    assert backup(host) == ""
    release = host.srv / "services" / "web" / "releases" / current(host)
    assert (release / "bin" / "tool").stat().st_mode & 0o777 == 0o755
    assert (release / "server.py").read_bytes() == (site.folder / "server.py").read_bytes()
    assert os.readlink(release / "link") == "bin/tool"


def test_at_most_one_connection_and_four_execs(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    assert str(site.deploy()) == "deployed"
    site.release("2")
    before = host.connections, host.execs
    assert str(site.deploy()) == "deployed"
    assert (host.connections - before[0], host.execs - before[1]) <= (1, 4)
    before = host.connections, host.execs
    assert str(site.deploy()) == "unchanged"
    assert (host.connections - before[0], host.execs - before[1]) == (1, 1)


def test_unchanged_touches_neither_process_nor_rollback_point(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    site.release("2")
    site.deploy()
    before = backup(host), servers(host)
    assert str(site.deploy()) == "unchanged"
    assert (backup(host), servers(host)) == before
    assert before[0]


def test_change_replaces_the_process_and_keeps_the_former_release(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    first = current(host)
    site.release("2")
    assert uw.check_for_changes("web") == Term("changed", (first, uw.release_hash("web")))
    assert str(site.deploy()) == "deployed"
    assert answer(host) == "2"
    assert backup(host) == first == uw.rollback_hash("web")
    assert len(servers(host)) == 1


def test_change_of_the_port_is_a_change_and_is_rolled_back_with_the_files(
    lab: Lab, site: Site
) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    declare(site, lab, host, port=8081)
    assert str(site.deploy()) == "deployed"
    assert answer(host, port=8081) == "1"
    assert answer(host, port=8080) == ""
    assert str(uw.rollback_service("web")).startswith("rolled_back(")
    assert answer(host, port=8080) == "1"


def test_stopped_service_is_started_again(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    assert str(uw.stop_service("web")) == "stopped"
    assert str(uw.service_status("web")) == "stopped"
    assert str(uw.deploy_service("web")) == "deployed(no_changes)"
    assert answer(host) == "1"
    assert str(uw.service_status("web", host.address)) == "running"


def test_unhealthy_release_is_rolled_back_with_its_reasons(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    first = current(host)
    site.release("2", "broken")
    result = site.deploy()
    assert str(result) == rolled_back_after_failure(first)
    assert not result.ok
    assert answer(host) == "1"
    assert current(host) == first
    assert backup(host) == ""
    probes = notes(result, "probe")
    assert ("http://127.0.0.1:8080/health", 500) in probes
    log = [str(line) for (line,) in notes(result, "log")]
    assert "health: broken as told" in log
    assert len(log) <= 20


def test_redirect_is_told_and_unhealthy(lab: Lab, site: Site) -> None:
    declare(site, lab, lab.hosts[0])
    site.release("1", "redirect")
    result = site.deploy()
    assert str(result) == "rolled_back_after_failure(error(no_rollback_available))"
    assert 'redirect(302,"/login")' in str(steps(result)["health"].outcome)


def test_first_deployment_unhealthy_leaves_nothing_active(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.release("1", "broken")
    result = site.deploy()
    assert str(result) == "rolled_back_after_failure(error(no_rollback_available))"
    assert current(host) == ""
    assert servers(host) == []
    assert uw.deployed_hash("web") is None


@pytest.mark.parametrize(
    ("behaviour", "reason"), [("crash", "exited(3)"), ("deaf", "not_listening(8080)")]
)
def test_process_that_ends_or_never_listens_is_rolled_back(
    lab: Lab, site: Site, behaviour: str, reason: str
) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, healthy_deadline=2)
    site.deploy()
    site.release("2", behaviour)
    result = site.deploy()
    assert str(result).startswith("rolled_back_after_failure(rolled_back(")
    assert str(steps(result)["start"].outcome) == f"failed({reason})"
    assert answer(host) == "1"


def test_failed_deployment_tried_again_keeps_the_rollback_point(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    site.release("2")
    site.deploy()
    before = current(host), backup(host)
    site.release("3", "broken")
    for _ in range(2):
        result = site.deploy(force=True)
        assert str(result).startswith("rolled_back_after_failure(rolled_back(")
        assert (current(host), backup(host)) == before
    assert str(uw.rollback_service("web")) == rolled_back(before[1])
    assert answer(host) == "1"


def test_rollback_by_hand_and_none_left(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    hashes = []
    for version in ("1", "2", "3"):
        site.release(version)
        site.deploy()
        hashes.append(current(host))
    assert str(uw.rollback_service("web")) == rolled_back(hashes[1])
    assert answer(host) == "2"
    assert str(uw.rollback_service("web")) == rolled_back(hashes[0])
    assert answer(host) == "1"
    assert str(uw.rollback_service("web")) == "error(no_rollback_available)"
    assert str(uw.rollback_service("web", to=hashes[2])) == rolled_back(hashes[2])
    assert answer(host) == "3"


def test_old_releases_are_pruned_but_not_the_active_or_the_rollback_point(
    lab: Lab, site: Site
) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, keep_releases=2)
    for version in "12345":
        site.release(version)
        assert str(site.deploy()) == "deployed"
    kept = sorted(path.name for path in (host.srv / "services/web/releases").iterdir())
    assert kept == sorted([current(host), backup(host)])


def test_service_outlives_the_deployment_and_its_output_does_not_hold_it(
    lab: Lab, site: Site
) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.release("1", "noisy")
    assert str(site.deploy()) == "deployed"
    assert answer(host) == "1"
    log = host.srv / "services/web/log/service.log"
    assert log.stat().st_size > 1_000_000


def test_forked_worker_may_own_the_port_and_is_stopped_with_its_group(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.release("1", "forks")
    assert str(site.deploy()) == "deployed"
    assert len(servers(host)) == 2
    assert str(uw.stop_service("web")) == "stopped"
    assert servers(host) == []


def test_port_taken_by_another_process_is_not_our_health(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    host.check(
        "cd /srv && (setsid python3 -m http.server 8080 --bind 127.0.0.1 >/dev/null 2>&1 &) ; sleep 0.7"
    )
    result = site.deploy()
    assert str(steps(result)["start"].outcome) == "failed(port_in_use(8080))"
    assert "http.server" in " ".join(host.processes().values())


def test_reused_pid_is_never_signalled(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    record = host.srv / "services/web/run/process"
    pid, born, *rest = record.read_text().split()
    record.write_text(" ".join([pid, str(int(born) + 1), *rest[:-1], "another"]) + "\n")
    assert str(uw.force_stop_service("web", 1)) == "stopped"
    assert len(servers(host)) == 1


def test_stubborn_process_is_killed_at_the_timeout(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.release("1", "stubborn")
    site.deploy()
    assert str(uw.force_stop_service("web", 1)) == "force_stopped"
    assert servers(host) == []


# ---- stopping gracefully ----------------------------------------------------------------------------


def hold(host: Host, seconds: float) -> None:
    fetch = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=60).read()"
    url = f"http://127.0.0.1:8080/hold?{seconds}"
    host.check(f"(setsid python3 -c '{fetch}' '{url}' >/dev/null 2>&1 &) ; sleep 0.7")


def test_graceful_stop_waits_for_connections_that_end(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    hold(host, 3)
    began = time.monotonic()
    assert str(uw.graceful_stop("web", drain_timeout=20)) == "stopped"
    assert 1 < time.monotonic() - began < 10
    assert servers(host) == []


def test_graceful_stop_ends_a_connection_that_never_ends(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    hold(host, 600)
    result = uw.graceful_stop("web", drain_timeout=1, force_after=2)
    assert str(result) == "force_stopped"
    assert ("1",) in notes(result, "connections")
    assert servers(host) == []


def test_drain_tells_the_service_and_ends_with_the_last_connection(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, drain_endpoint="/drain")
    site.deploy()
    assert str(uw.drain_connections("web", timeout=5)) == "drained"
    hold(host, 600)
    assert str(uw.drain_connections("web", timeout=1)) == "timeout"
    assert len(servers(host)) == 1


# ---- hooks ------------------------------------------------------------------------------------------


def say(event: str) -> Term:
    words = '$EVENT $SERVICE $HOST $PORT $(basename "$PWD")'
    return uw.custom(f'echo "{words}" >> /srv/events; test ! -e /srv/fail-{event}')


def declare_all_hooks(host: Host) -> None:
    for event in (
        "pre_deploy", "post_deploy", "pre_shutdown", "post_shutdown",
        "on_health_failure", "pre_rollback", "post_rollback",
    ):  # fmt: skip
        uw.declare_lifecycle_hook("web", event, say(event))


def events_of(host: Host) -> list[str]:
    path = host.srv / "events"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.split()[0] for line in lines]


def test_each_hook_runs_once_where_it_belongs(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    declare_all_hooks(host)
    assert str(site.deploy()) == "deployed"
    line = (host.srv / "events").read_text().splitlines()[-1]
    assert line == f"post_deploy web {host.address} 8080 {current(host)}"
    assert events_of(host) == ["pre_deploy", "post_deploy"]
    site.release("2")
    site.deploy()
    assert events_of(host) == ["pre_deploy", "pre_shutdown", "post_shutdown", "post_deploy"]
    site.release("3", "broken")
    site.deploy()
    assert events_of(host) == [
        "pre_deploy", "pre_shutdown", "post_shutdown",
        "on_health_failure", "pre_rollback", "post_rollback",
    ]  # fmt: skip
    uw.graceful_stop("web")
    assert events_of(host) == ["pre_shutdown", "post_shutdown"]


@pytest.mark.parametrize(
    ("event", "result"),
    [
        ("pre_deploy", "error(pre_deploy_failed(error(hook_failed(custom("),
        ("post_deploy", "deployed_with_warnings(error(hook_failed(custom("),
        ("pre_shutdown", "error(deployment_failed(pre_shutdown_hook_failed(error(hook_failed("),
    ],
)
def test_failing_hook(lab: Lab, site: Site, event: str, result: str) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    declare_all_hooks(host)
    (host.srv / f"fail-{event}").touch()
    site.release("2")
    assert str(site.deploy()).startswith(result)
    assert answer(host) == ("2" if event == "post_deploy" else "1")


def test_failing_health_check_hook_after_deployment_rolls_back(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    uw.declare_lifecycle_hook("web", "post_deploy", uw.custom("true"))
    uw.declare_lifecycle_hook("web", "post_deploy", "health_check")
    site.release("2", "fragile")
    site.deploy()
    site.release("3", "broken")
    assert str(site.deploy()).startswith("rolled_back_after_failure(rolled_back(")
    assert answer(host) == "2"


def test_hook_actions(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(
        site, lab, host, save_state_command="cp VERSION /srv/saved", warmup_endpoint="/warm",
        drain_signal="USR1",
    )  # fmt: skip
    site.deploy()
    for action in ("save_state", "warm_cache", "health_check", "drain_connections"):
        uw.declare_lifecycle_hook("web", "pre_shutdown", action)
    result = uw.execute_hooks("web", "pre_shutdown")
    assert str(result) == "ok"
    assert (host.srv / "saved").read_text() == "1"
    assert ("http://127.0.0.1:8080/warm", 200) in notes(result, "probe")
    assert ("http://127.0.0.1:8080/health", 200) in notes(result, "probe")


def test_hook_that_leaves_a_process_behind_does_not_hold_the_deployment(
    lab: Lab, site: Site
) -> None:
    declare(site, lab, lab.hosts[0])
    uw.declare_lifecycle_hook("web", "post_deploy", uw.custom("sleep 600 & echo started"))
    began = time.monotonic()
    assert str(site.deploy()) == "deployed"
    assert time.monotonic() - began < 30


def test_pre_deploy_hook_may_build_what_is_shipped(tmp_path: Path) -> None:
    effects.set_ledger(tmp_path / "ledger.sqlite3")
    site = Site(tmp_path / "local site")
    site.declare({"localhost": {}}, "local", remote_dir=str(tmp_path / "remote"), port=18099)
    made = site.folder / "MADE"
    uw.declare_lifecycle_hook("web", "pre_deploy", uw.custom(f"echo built > '{made}'"))
    try:
        assert str(site.deploy()) == "deployed"
        assert (tmp_path / "remote/web/current/MADE").read_text() == "built\n"
    finally:
        uw.force_stop_service("web", 2)
        uw.undeclare_service("web")


# ---- several hosts ----------------------------------------------------------------------------------


def test_one_host_in_trouble_neither_delays_nor_fails_another(lab: Lab, site: Site) -> None:
    good, down, wrong, full = lab.hosts[:4]
    site.folder.joinpath("ballast").write_bytes(os.urandom(12_000_000))
    declare(site, lab, good, down, wrong, full, connect_timeout=4)
    uw.declare_service_hosts(
        "web",
        {
            down.address: {},
            wrong.address: {"known_hosts": str(lab.wrong_known_hosts(wrong))},
            full.address: {},
            good.address: {},
        },
    )
    down.link_down()
    full.limit_disk(8)
    done: dict[str, float] = {}

    def listen(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Event) and event.step == "result":
            done[event.host] = time.monotonic()

    results = uw.deploy_to_all_hosts("web", on_event=listen)
    outcomes = {str(result.args[0]): str(result.args[1]) for result in results}
    assert list(outcomes) == [down.address, wrong.address, full.address, good.address]
    assert outcomes[good.address] == "deployed"
    assert outcomes[wrong.address] == "error(deployment_failed(host_key_mismatch))"
    assert outcomes[full.address] == "error(deployment_failed(no_space))"
    assert outcomes[down.address] in (
        "error(deployment_failed(timeout))",
        "error(deployment_failed(unreachable('No route to host')))",
    )
    assert done[good.address] < done[down.address]
    assert answer(good) == "1"
    assert (full.srv / "services/web/releases").is_dir()
    assert list((full.srv / "services/web/releases").iterdir()) == []


def test_link_cut_in_the_middle_of_a_transfer_leaves_the_old_release_running(
    lab: Lab, site: Site
) -> None:
    host, other = lab.hosts[:2]
    declare(site, lab, host, other, connect_timeout=3)
    assert str(site.deploy()) == "deployed"
    before = current(host)
    site.release("2")
    site.folder.joinpath("ballast").write_bytes(os.urandom(200_000_000))

    def cut() -> None:
        for _ in range(1000):
            time.sleep(0.01)
            partial = list((host.srv / "services/web/releases").glob(".partial-*/ballast"))
            if partial and partial[0].stat().st_size > 1_000_000:
                host.link_down()
                return

    cutter = threading.Thread(target=cut)
    cutter.start()
    result = site.deploy()
    cutter.join()
    host.link_up()
    assert result.hosts[other.address] == "deployed"
    cut_short = str(result.hosts[host.address])
    assert cut_short.startswith(
        ("error(deployment_failed(timeout", "error(deployment_failed(unreach")
    )
    assert current(host) == before
    assert answer(host) == "1"
    site.folder.joinpath("ballast").unlink()
    assert str(site.deploy()) == "deployed"
    assert answer(host) == "2"


def test_all_hosts_agreeing_give_one_term(lab: Lab, site: Site) -> None:
    declare(site, lab, *lab.hosts[:3])
    assert str(site.deploy()) == "deployed"
    assert str(site.deploy(host=lab.hosts[1].address)) == "unchanged"
    shutil.rmtree(lab.hosts[2].srv / "services/web/releases")
    assert uw.deployed_hash("web") == uw.release_hash("web")


# ---- looking first ----------------------------------------------------------------------------------


def test_dry_run_and_plan_change_nothing(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    site.release("2")
    before = current(host), backup(host), servers(host)
    plan = uw.deployment_plan("web")
    assert [step.args[0] for step in plan] == [
        "observe", "scan", "lock", "stage", "intend", "keep", "drain", "stop", "switch", "start", "health",
        "confirm", "commit", "prune", "settle", "unlock", "record",
    ]  # fmt: skip
    assert str(site.deploy(backend="dry")) == "deployed"
    assert (current(host), backup(host), servers(host)) == before
    site.deploy()
    assert [step.args[0] for step in uw.deployment_plan("web")] == ["observe", "scan"]


def test_file_edited_during_the_shipment_is_refused(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    big = site.folder / "ballast"
    big.write_bytes(os.urandom(60_000_000))

    def edit(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin) and "stage" in event.steps:
            (site.folder / "VERSION").write_text("edited")

    result = site.deploy(on_event=edit)
    assert "verification_failed('VERSION')" in str(result)
    assert current(host) == ""


# ---- what is prepared, shared, and bounded in time ----------------------------------------------------


def test_preparation_runs_in_the_staged_release_and_its_failure_leaves_the_active_one(
    lab: Lab, site: Site
) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, prepare_command="cp VERSION PREPARED")
    site.deploy()
    assert (host.srv / "services/web/current/PREPARED").read_text() == "1"
    process = servers(host), current(host)
    declare(site, lab, host, prepare_command="echo no compiler >&2; exit 4")
    site.release("2")
    result = site.deploy()
    assert str(result) == 'error(deployment_failed(command_failed(4,["no compiler"])))'
    assert (servers(host), current(host)) == process
    releases = host.srv / "services/web/releases"
    assert [path.name for path in releases.iterdir()] == [current(host)]


def test_shared_paths_survive_releases(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, shared_paths=["data/uploads"])
    site.deploy()
    host.check("echo kept > /srv/services/web/current/data/uploads/file")
    site.release("2")
    site.deploy()
    assert host.check("cat /srv/services/web/current/data/uploads/file") == "kept\n"


def test_what_was_not_declared_is_neither_shipped_nor_deleted(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    (site.folder / "private.key").write_text("secret")
    (site.folder / ".env").write_text("secret")
    declare(site, lab, host)
    uw.declare_service_sources("web", ["**", uw.exclude("*.key")])
    site.deploy()
    host.check("echo rows > /srv/services/web/shared/database")
    site.release("2")
    site.deploy()
    release = host.srv / "services/web/releases" / current(host)
    assert sorted(path.name for path in release.iterdir()) == [
        ".unifyweaver", "BEHAVIOUR", "VERSION", "server.py",
    ]  # fmt: skip
    assert host.check("cat /srv/services/web/shared/database") == "rows\n"


def test_command_over_its_time_is_ended_and_told(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, command_timeout=1)
    uw.declare_lifecycle_hook("web", "pre_deploy", uw.custom("sleep 600"))
    result = site.deploy()
    assert str(result).endswith("custom('sleep 600'),timeout))))")
    assert not any("sleep 600" in command for command in host.processes().values())


def test_environment_and_start_command_reach_the_process_whole(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    awkward = "a 'b' \"c\" $(touch /srv/pwned) `touch /srv/pwned` \\ \n;&|"
    declare(site, lab, host, env={"AWKWARD": awkward})
    site.deploy()
    assert answer(host, "/env?AWKWARD") == awkward
    declare(site, lab, host, start_command='A="1 2" exec python3 server.py --port "$PORT"')
    assert str(site.deploy()) == "deployed"
    assert answer(host, "/env?A") == "1 2"
    assert not (host.srv / "pwned").exists()


def test_host_options_are_compared_beside_the_release(lab: Lab, site: Site) -> None:
    first, second = lab.hosts[:2]
    declare(site, lab, first, second)
    site.deploy()
    release = current(first)
    uw.declare_service_hosts("web", {first.address: {}, second.address: {"port": 8085}})
    result = site.deploy()
    assert result.hosts == {first.address: "unchanged", second.address: "deployed"}
    assert answer(second, port=8085) == "1"
    assert current(first) == release
    assert current(second).startswith(release)
    assert uw.deployed_hash("web") == release


@pytest.mark.parametrize("during", ["start", "post_deploy_1"])
def test_ctrl_c_ends_the_waiting_and_undoes(lab: Lab, site: Site, during: str) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, healthy_deadline=60)
    site.deploy()
    before = current(host)
    site.release("2", "deaf" if during == "start" else "healthy")
    uw.declare_lifecycle_hook("web", "post_deploy", uw.custom("sleep 60"))

    def interrupt(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin) and during in event.steps:
            main = threading.main_thread().ident
            threading.Timer(0.7, signal.pthread_kill, [main, signal.SIGINT]).start()

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        print(site.deploy(on_event=interrupt))
    assert time.monotonic() - began < 10
    assert current(host) == before
    assert answer(host) == "1"
    assert len(servers(host)) == 1


def test_release_that_was_unhealthy_is_not_deployed_again_unchanged(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    site.release("2", "broken")
    assert str(site.deploy()).startswith("rolled_back_after_failure(rolled_back(")
    bad = Term("error", (Term("known_bad_release", (uw.release_hash("web"),)),))
    result = site.deploy()
    assert result.term == bad
    assert set(steps(result)) == {"observe", "scan", "result"}
    assert str(site.deploy(force=True)).startswith("rolled_back_after_failure(rolled_back(")
    site.release("2")
    assert str(site.deploy()) == "deployed"
    site.release("2", "broken")
    assert site.deploy().term == bad
    assert answer(host) == "2"


# ---- what an attack found ----------------------------------------------------------------------------


def test_output_without_end_hides_no_step(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    flood = "head -c 30000000 /dev/zero | tr '\\0' x"
    uw.declare_lifecycle_hook("web", "post_shutdown", uw.custom(flood))
    site.release("2")
    result = site.deploy()
    assert str(result) == "deployed"
    assert {"switch", "start", "health", "commit"} <= set(steps(result))
    assert answer(host) == "2"


def test_what_others_may_not_read_here_they_may_not_there(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, env={"PASSWORD": "secret"})
    (site.folder / "secret.conf").write_text("secret")
    (site.folder / "secret.conf").chmod(0o600)
    site.deploy()
    modes = host.check(
        "cd /srv/services/web && stat -c %a current/secret.conf current/server.py"
        " current/.unifyweaver/start run log"
    )
    assert modes.split() == ["600", "644", "600", "700", "700"]


def test_process_with_a_newline_in_its_name_misleads_nobody(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    [pid] = servers(host)
    forged = f"\\n999 9 {pid}\\n"
    name = f"import time; open('/proc/self/comm', 'w').write('{forged}'); time.sleep(60)"
    host.check(f'(setsid python3 -c "{name}" >/dev/null 2>&1 &) ; sleep 0.5')
    began = time.monotonic()
    assert str(uw.stop_service("web")) == "stopped"
    assert time.monotonic() - began < 8
    assert "time.sleep(60)" in " ".join(host.processes().values())


def test_leader_with_a_newline_in_its_name_is_still_ours(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    command = (
        "exec python3 -c \"open('/proc/self/comm', 'w').write('a) S\\n1 2'); import runpy, sys;"
        " sys.argv = ['server.py', '--port', '8080']; runpy.run_path('server.py', run_name='__main__')\""
    )
    declare(site, lab, host, start_command=command)
    assert str(site.deploy()) == "deployed"
    assert str(uw.stop_service("web")) == "stopped"
    assert servers(host) == []


def test_cancelled_preparation_does_not_run_on(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    loop = "for i in $(seq 100); do date >> /srv/prepared; sleep 0.1; done"
    declare(site, lab, host, prepare_command=loop)

    def interrupt(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin) and "prepare" in event.steps:
            main = threading.main_thread().ident
            threading.Timer(0.7, signal.pthread_kill, [main, signal.SIGINT]).start()

    with pytest.raises(KeyboardInterrupt):
        site.deploy(on_event=interrupt)
    time.sleep(0.5)
    before = (host.srv / "prepared").stat().st_size
    time.sleep(0.5)
    assert (host.srv / "prepared").stat().st_size == before


def test_active_release_that_was_never_confirmed_is_not_called_unchanged(
    lab: Lab, site: Site
) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    (host.srv / "services/web/run/history").unlink()  # as if the controller had died before commit
    (host.srv / "services/web/current/BEHAVIOUR").write_text("broken")
    assert str(uw.restart_service("web")) == "started"
    assert str(site.deploy()) != "unchanged"


@pytest.mark.parametrize(
    "paths", [["data", "data/uploads"], ["data", "data//"], ["data", "./data"]]
)
def test_shared_paths_within_each_other_are_refused(site: Site, paths: list[str]) -> None:
    with pytest.raises(uw.PrologError, match="shared_paths"):
        uw.declare_service("web", shared_paths=paths)


def test_workers_whose_leader_died_are_stopped_and_replaced(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.release("1", "forks")
    site.deploy()
    leader, worker = servers(host)
    host.check(f"kill -9 {leader}")
    assert str(uw.service_status("web")) == "unhealthy"
    assert str(uw.stop_service("web")) == "stopped"
    assert servers(host) == []
    uw.start_service("web")
    leader, worker = servers(host)
    host.check(f"kill -9 {leader}")
    site.release("2")
    assert str(site.deploy()) == "deployed"
    assert answer(host) == "2"
    assert worker not in servers(host)


def test_release_that_its_preparation_wrote_over_can_be_deployed_again(
    lab: Lab, site: Site
) -> None:
    host = lab.hosts[0]
    prepare = "echo prepared >> notes; mkdir -p data"
    declare(site, lab, host, prepare_command=prepare, shared_paths=["kept"])
    (site.folder / "notes").write_text("shipped\n")
    (site.folder / "kept").write_text("shipped\n")
    site.deploy()
    site.release("2")
    site.deploy()
    site.release("1")
    assert str(site.deploy()) == "deployed"
    assert answer(host) == "1"
    assert (host.srv / "services/web/current/notes").read_text() == "shipped\nprepared\n"
    assert str(site.deploy()) == "unchanged"


def test_rollback_point_that_is_the_active_release_is_not_gone_back_to(
    lab: Lab, site: Site
) -> None:
    """As after a deployment that was killed before it switched."""
    host = lab.hosts[0]
    declare(site, lab, host)
    for version in ("1", "2"):
        site.release(version)
        site.deploy()
    service = host.srv / "services/web"
    (service / ".backup").unlink()
    (service / ".backup").symlink_to(os.readlink(service / "current"))
    assert str(uw.rollback_service("web")).startswith("rolled_back(")
    assert answer(host) == "1"


def test_first_deployment_that_was_cut_off_is_nothing_to_go_back_to(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.deploy()
    (host.srv / "services/web/run/history").unlink()  # as if the controller had died before commit
    site.release("2", "broken")
    result = site.deploy()
    assert str(result) == "rolled_back_after_failure(error(no_rollback_available))"
    assert (current(host), backup(host), servers(host)) == ("", "", [])
    site.release("3")
    assert str(site.deploy()) == "deployed"


def test_disk_that_fills_up_before_the_start_leaves_no_host_without_its_service(
    lab: Lab, site: Site
) -> None:
    host = lab.hosts[0]
    host.limit_disk(8)
    declare(site, lab, host)
    site.deploy()
    before = current(host)
    uw.declare_lifecycle_hook(
        "web", "pre_shutdown", uw.custom("cat /dev/zero > /srv/filler 2>/dev/null; true")
    )
    site.release("2")
    result = site.deploy()
    if result.ok:
        assert (backup(host), answer(host)) == (before, "2")
    else:  # there was no room to commit it
        assert str(result) == f"rolled_back_after_failure(rolled_back('{before}'))"
        assert (current(host), answer(host)) == (before, "1")
    (host.srv / "filler").unlink()
    uw.undeclare_service("web")
    declare(site, lab, host)
    site.release("3")
    assert str(site.deploy()) == "deployed"


def test_release_loses_its_name_before_its_files(lab: Lab, site: Site) -> None:
    """So that one with its name is whole, whenever the removing is cut off."""
    host = lab.hosts[0]
    declare(site, lab, host, keep_releases=2)
    for version in ("1", "2"):
        site.release(version)
        site.deploy()
    oldest = host.srv / "services/web/releases" / backup(host)
    held = f"{BASE}/web/releases/{oldest.name}/held"  # what can't be removed
    host.check(f"mkdir {held} && mount -t tmpfs tmpfs {held} && touch -d '1 hour ago' {held}/..")
    site.release("3")
    result = site.deploy()
    assert (str(result), answer(host)) == ("deployed", "3")
    assert not steps(result)["prune"].ok
    assert not oldest.exists()
    host.check(f"umount {BASE}/web/releases/.partial-*/held")
    site.release("4")
    site.deploy()
    assert not list(oldest.parent.glob(".partial-*"))
