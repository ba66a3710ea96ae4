"""Services under systemd, as far as it can be seen without one: `systemctl` is a stand-in that records its calls and
really starts and stops the process (tests/sites/systemctl).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.lab.lab import Host, Lab
from tests.lab.test_deploy import (
    answer,
    backup,
    current,
    rolled_back,
    rolled_back_after_failure,
    servers,
)
from tests.lab.test_scripts import run
from tests.site import Site

STAND_IN = Path(__file__).parents[1] / "sites" / "systemctl"
UNIT = "unifyweaver-web.service"


@pytest.fixture
def host(lab: Lab) -> Iterator[Host]:
    """A host on which systemd seems to run."""
    host = lab.hosts[0]
    host.check("mkdir -p /srv/systemd/units")
    (host.srv / "systemctl").write_text(STAND_IN.read_text())
    (host.srv / "systemctl").chmod(0o755)
    host.check("mount --bind /srv/systemctl /usr/bin/systemctl")
    host.check("mount --bind /srv/systemd/units /etc/systemd/system")
    yield host
    host.check("kill -KILL -1; umount /usr/bin/systemctl /etc/systemd/system")


def declare(
    site: Site, lab: Lab, host: Host, supervisor: str = "systemd", **options: object
) -> None:
    site.declare({host.address: {}}, "ssh", port=8080, healthy_deadline=5, **options)
    uw.declare_deploy_method(
        "web", "ssh", user="root", key_file=str(lab.key_file), known_hosts=str(lab.known_hosts),
        agent=False, remote_dir="/srv/services", supervisor=supervisor,
    )  # fmt: skip


def calls(host: Host) -> list[str]:
    """What was asked of systemctl since the last time, but for the questions."""
    path = host.srv / "systemd" / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if line.split()[0] not in ("show", "is-system-running")]


def unit(host: Host) -> str | None:
    path = host.srv / "systemd" / "units" / UNIT
    return path.read_text() if path.exists() else None


def test_unit_is_installed_started_and_stopped(lab: Lab, site: Site, host: Host) -> None:
    declare(site, lab, host, env={"TOKEN": uw.secret("hunter'22")})
    assert str(site.deploy()) == "deployed"
    assert (answer(host), answer(host, "/env?TOKEN")) == ("1", "hunter'22")
    assert calls(host) == [
        "daemon-reload",
        f"enable {UNIT}",
        f"reset-failed {UNIT}",
        f"start {UNIT}",
    ]
    text = unit(host)
    assert text is not None
    assert "WorkingDirectory=/srv/services/web/current\n" in text
    assert "hunter" not in text
    assert text == (host.srv / "services/web/current/.unifyweaver/unit").read_text()
    assert text == uw.generate_systemd_unit("web")
    assert str(uw.service_status("web")) == "running"
    assert str(site.deploy()) == "unchanged"
    assert calls(host) == []
    assert str(uw.stop_service("web")) == "stopped"
    assert calls(host) == [f"stop --no-block {UNIT}", f"stop {UNIT}"]
    assert (servers(host), str(uw.service_status("web"))) == ([], "stopped")
    assert str(uw.start_service("web")) == "started"
    assert calls(host) == [f"enable {UNIT}", f"reset-failed {UNIT}", f"start {UNIT}"]
    assert "version 1 starts" in (host.srv / "services/web/log/service.log").read_text()


def test_unhealthy_release_is_rolled_back_with_its_unit(lab: Lab, site: Site, host: Host) -> None:
    declare(site, lab, host)
    site.deploy()
    first, text = current(host), unit(host)
    declare(site, lab, host)
    uw.declare_deploy_method(
        "web", "ssh", user="root", key_file=str(lab.key_file), known_hosts=str(lab.known_hosts),
        agent=False, remote_dir="/srv/./services", supervisor="systemd",
    )  # fmt: skip
    site.release("2", "broken")
    assert str(site.deploy()) == rolled_back_after_failure(first)
    assert (current(host), answer(host), unit(host)) == (first, "1", text)
    site.release("2")
    assert str(site.deploy()) == "deployed"
    assert unit(host) != text
    assert str(uw.rollback_service("web")) == rolled_back(first)
    assert (current(host), answer(host), unit(host)) == (first, "1", text)


def test_process_that_ends_at_once_is_told_with_its_code(lab: Lab, site: Site, host: Host) -> None:
    declare(site, lab, host)
    site.release("1", "crash")
    result = site.deploy()
    assert str(result) == "rolled_back_after_failure(error(no_rollback_available))"
    start = next(event for event in result.events if event.step == "start")
    assert str(start.outcome) == "failed(exited(7))"
    assert (current(host), unit(host)) == ("", None)
    assert calls(host)[-2:] == [f"disable --now {UNIT}", "daemon-reload"]


def test_from_one_supervisor_to_the_other_and_back(lab: Lab, site: Site, host: Host) -> None:
    declare(site, lab, host, "process")
    assert str(site.deploy()) == "deployed"
    process = current(host)
    declare(site, lab, host)
    assert str(site.deploy()) == "deployed"
    assert (backup(host), len(servers(host))) == (process, 1)
    assert current(host) != process
    assert unit(host) is not None
    assert str(uw.rollback_service("web")) == rolled_back(process)
    assert (answer(host), unit(host), len(servers(host))) == ("1", None, 1)
    assert str(uw.stop_service("web")) == "stopped"
    assert servers(host) == []


def test_what_systemd_started_again_is_still_the_service(lab: Lab, site: Site, host: Host) -> None:
    declare(site, lab, host)
    site.deploy()
    before = servers(host)
    host.check(f"systemctl restart-by-itself {UNIT}; sleep 0.5")
    assert servers(host) != before
    assert str(uw.service_status("web")) == "running"
    assert str(site.deploy()) == "unchanged"
    assert str(uw.graceful_stop("web")) == "stopped"
    assert servers(host) == []


def test_stubborn_service_is_killed(lab: Lab, site: Site, host: Host) -> None:
    declare(site, lab, host)
    site.release("1", "stubborn")
    site.deploy()
    calls(host)
    assert str(uw.force_stop_service("web", 1)) == "force_stopped"
    assert calls(host) == [f"stop --no-block {UNIT}", f"kill -s KILL {UNIT}", f"stop {UNIT}"]
    assert servers(host) == []


def test_failing_systemctl_is_told(lab: Lab, site: Site, host: Host) -> None:
    declare(site, lab, host)
    (host.srv / "systemd/fail-start").touch()
    result = site.deploy()
    start = next(event for event in result.events if event.step == "start")
    assert str(start.outcome) == 'failed(command_failed(1,["start failed as told"]))'


def test_every_process_of_the_control_group_counts(lab: Lab, site: Site, host: Host) -> None:
    roots = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
    root = next((root for root in roots if (root / "cgroup.procs").exists()), None)
    if root is None or not os.access(root / "cgroup.procs", os.W_OK):
        pytest.skip("no control groups here")
    group = root / f"unifyweaver-test-{os.getpid()}"
    group.mkdir()
    try:
        declare(site, lab, host, start_command="setsid python3 server.py --port $PORT & wait")
        assert str(site.deploy()).startswith("rolled_back_after_failure")  # another session's port
        for pid in servers(host):
            host.check(f"kill -KILL {pid}")
        (host.srv / "systemd/cgroup").write_text(str(group))
        assert str(site.deploy()) == "deployed"
        assert answer(host) == "1"
        assert str(uw.stop_service("web")) == "stopped"
        assert servers(host) == []
    finally:
        host.check("kill -KILL -1; true")
        group.rmdir()


def test_scripts_work_under_systemd_too(lab: Lab, site: Site, host: Host) -> None:
    declare(site, lab, host)
    assert run(site, "deploy").returncode == 0
    assert str(site.deploy()) == "unchanged"
    assert calls(host) == [
        "daemon-reload",
        f"enable {UNIT}",
        f"reset-failed {UNIT}",
        f"start {UNIT}",
    ]
    site.release("2")
    assert str(site.deploy()) == "deployed"
    assert run(site, "rollback").returncode == 0
    assert answer(host) == "1"


def test_without_systemd_the_reason_is_clear(lab: Lab, site: Site) -> None:
    host = lab.hosts[1]
    declare(site, lab, host)
    result = site.deploy()
    assert str(result) == "error(deployment_failed(no_systemd))"
    done = run(site, "deploy")
    assert (done.returncode, "no_systemd" in done.stderr) == (1, True)
    assert list((host.srv / "services/web/releases").iterdir()) == []


def test_installed_unit_passes_systemd_analyze(lab: Lab, site: Site, tmp_path: Path) -> None:
    declare(site, lab, lab.hosts[0])
    for sudo in (False, True):
        for user in ("root", "daemon"):
            text = uw.generate_systemd_unit("web", user=user, sudo=sudo)
            assert f"User={user}\n" in text
            path = tmp_path / UNIT
            path.write_text(text)
            command = ["systemd-analyze", "verify", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")


def test_host_under_systemd_goes_back_by_itself(lab: Lab, site: Site, host: Host) -> None:
    declare(site, lab, host)
    site.deploy()
    first, text = current(host), unit(host)
    site.release("2")

    def wait(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin) and "confirm" in event.steps:
            assert answer(host) == "2"
            time.sleep(2)

    result = site.deploy(confirm_within=1, on_event=wait)
    assert str(result) == "error(deployment_failed(not_confirmed_in_time))"
    assert (current(host), answer(host), unit(host)) == (first, "1", text)
    assert str(uw.service_status("web")) == "running"
    assert str(site.deploy(confirm_within=30)) == "deployed"
    assert answer(host) == "2"
