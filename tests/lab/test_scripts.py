"""Generated scripts, run for real: what they deploy is what the library deploys."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.lab.lab import Host, Lab
from tests.lab.test_deploy import (
    answer,
    backup,
    current,
    declare,
    events_of,
    rolled_back,
    servers,
)
from tests.site import Site

AWKWARD = "a 'b' \"c\" $(touch /srv/pwned) `touch /srv/pwned` \\ \nHERE\n;&| é"
GENERATORS: dict[str, Callable[..., str]] = {
    "deploy": uw.generate_deploy_script,
    "ssh": uw.generate_ssh_deploy,
    "rollback": uw.generate_rollback_script,
    "health": uw.generate_health_check_script,
}


@pytest.fixture
def site(tmp_path: Path, own_ledger: Path) -> Iterator[Site]:
    yield Site(tmp_path / "my site")
    uw.undeclare_service("web")


def run(
    site: Site, kind: str, *arguments: str, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run a script that is generated now; a deployment ships the site's folder."""
    script = site.folder.parent / f"{kind} script"
    script.write_text(GENERATORS[kind]("web", **options))
    if kind in ("deploy", "ssh") and not arguments:
        arguments = (str(site.folder),)
    return subprocess.run(
        ["bash", str(script), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def release_files(host: Host) -> dict[str, tuple[str, bytes | str]]:
    """Kind and content of every file of the active release."""
    root = host.srv / "services" / "web" / "releases" / current(host)
    found: dict[str, tuple[str, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_file():
            found[name] = (oct(path.stat().st_mode & 0o777), path.read_bytes())
        else:
            found[name] = (oct(path.stat().st_mode & 0o777), b"")
    return found


def checked(script: str, tmp_path: Path) -> None:
    path = tmp_path / "checked"
    path.write_text(script)
    for command in (["bash", "-n"], ["shellcheck"]):
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- deploying --------------------------------------------------------------------------------------


def test_script_deploys_what_the_library_deploys_byte_for_byte(lab: Lab, site: Site) -> None:
    by_script, by_library = lab.hosts[:2]
    (site.folder / "bin").mkdir()
    (site.folder / "bin" / "tool").write_text("#!/bin/sh\n")
    (site.folder / "bin" / "tool").chmod(0o700)
    (site.folder / "link").symlink_to("bin/tool")
    for name in (
        "-",
        "-rf",
        "new\nline",
        "back\\slash",
        "ta\tb",
        "quo'te\"",
        "$(touch pwned)",
        "é",
    ):
        (site.folder / name).write_text(name)
    (site.folder / "l\ti\nnk").symlink_to("ta\tb")
    (site.folder / "-rf").chmod(0o755)
    os.utime(site.folder / "VERSION", (1_000_000_000, 1_000_000_000))
    (site.folder / "VERSION").chmod(0o600)
    (site.folder / ".env").write_text("secret")
    (site.folder / "private.key").write_text("secret")
    env = {"AWKWARD": AWKWARD, "TOKEN": uw.secret(command='printf "it\'s\nsecret"')}
    declare(site, lab, by_script, by_library, env=env, shared_paths=["data"])
    uw.declare_service_sources("web", ["**", uw.exclude("*.key")])
    done = run(site, "deploy", host=by_script.address)
    assert done.returncode == 0, done.stderr
    assert str(site.deploy(host=by_library.address)) == "deployed"
    assert current(by_script) == current(by_library) == uw.release_hash("web")
    assert release_files(by_script) == release_files(by_library)
    assert answer(by_script, "/env?AWKWARD") == AWKWARD
    assert answer(by_script, "/env?TOKEN") == "it's\nsecret"
    assert not (by_script.srv / "pwned").exists()
    assert str(site.deploy(host=by_script.address)) == "unchanged"
    done = run(site, "deploy", host=by_library.address)
    assert (done.returncode, "Unchanged" in done.stdout) == (0, True)


@pytest.mark.parametrize("forth", ["library", "script"])
@pytest.mark.parametrize("back", ["library", "script"])
def test_either_rolls_back_what_the_other_deployed(
    lab: Lab, site: Site, forth: str, back: str
) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    hashes = []
    for version in "123":
        site.release(version)
        if forth == "library":
            assert str(site.deploy()) == "deployed"
        else:
            assert run(site, "deploy").returncode == 0
        hashes.append(current(host))
        assert answer(host) == version
    assert backup(host) == hashes[1]
    for expected in (1, 0):
        if back == "library":
            assert str(uw.rollback_service("web")) == rolled_back(hashes[expected])
        else:
            done = run(site, "rollback")
            assert done.returncode == 0, done.stderr
        assert (current(host), answer(host)) == (hashes[expected], str(expected + 1))
        assert len(servers(host)) == 1
    assert backup(host) == ""
    assert run(site, "rollback").returncode == 1
    assert str(uw.rollback_service("web")) == "error(no_rollback_available)"


def test_unhealthy_release_is_rolled_back_by_the_script(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    assert run(site, "deploy").returncode == 0
    first = current(host)
    site.release("2", "broken")
    done = run(site, "deploy")
    assert done.returncode == 1
    assert "Rolling back" in done.stdout
    assert "health: broken as told" in done.stderr
    assert (current(host), backup(host), answer(host)) == (first, "", "1")
    releases = host.srv / "services/web/releases"
    assert [path.name for path in releases.iterdir()] == [first]


def test_first_deployment_unhealthy_leaves_nothing_active(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    site.release("1", "crash")
    done = run(site, "deploy")
    assert done.returncode == 1
    assert "exited 3" in done.stderr
    assert (current(host), servers(host)) == ("", [])


def test_port_of_another_process_is_no_health(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    host.check(
        "cd /srv && (setsid python3 -m http.server 8080 --bind 127.0.0.1 >/dev/null 2>&1 &) ; sleep 0.7"
    )
    done = run(site, "deploy")
    assert (done.returncode, "port_in_use 8080" in done.stderr) == (1, True)


def test_stopped_service_is_started_and_a_changed_port_followed(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    assert run(site, "deploy").returncode == 0
    uw.stop_service("web")
    assert run(site, "deploy").returncode == 0
    assert answer(host) == "1"
    declare(site, lab, host, port=8081)
    assert run(site, "deploy").returncode == 0
    assert answer(host, port=8081) == "1"
    assert run(site, "rollback").returncode == 0
    assert answer(host, port=8080) == "1"


def test_hooks_run_where_they_belong_and_their_words_arrive_whole(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, save_state_command="cp VERSION /srv/saved", drain_endpoint="/drain")
    for event in (
        "pre_deploy", "post_deploy", "pre_shutdown", "post_shutdown",
        "on_health_failure", "pre_rollback", "post_rollback",
    ):  # fmt: skip
        uw.declare_lifecycle_hook("web", event, uw.custom(f'echo "{event}" >>/srv/events'))
    for action in ("save_state", "drain_connections", "health_check"):
        uw.declare_lifecycle_hook("web", "pre_shutdown", action)
    uw.declare_lifecycle_hook(
        "web", "post_deploy", uw.custom(f"printf %s '{_shell(AWKWARD)}' >/srv/word")
    )
    assert run(site, "deploy").returncode == 0
    assert events_of(host) == ["pre_deploy", "post_deploy"]
    assert (host.srv / "word").read_text() == AWKWARD
    site.release("2")
    done = run(site, "deploy")
    assert done.returncode == 0
    assert "Draining connections" in done.stdout
    assert "health check" in done.stdout
    assert events_of(host) == ["pre_deploy", "pre_shutdown", "post_shutdown", "post_deploy"]
    assert (host.srv / "saved").read_text() == "1"
    site.release("3", "broken")
    assert run(site, "deploy").returncode == 1
    assert events_of(host) == [
        "pre_deploy", "pre_shutdown", "post_shutdown",
        "on_health_failure", "pre_rollback", "post_rollback",
    ]  # fmt: skip
    assert run(site, "rollback").returncode == 0
    assert events_of(host) == ["pre_rollback", "pre_shutdown", "post_shutdown", "post_rollback"]
    assert answer(host) == "1"
    assert not (host.srv / "pwned").exists()


def _shell(text: str) -> str:
    return text.replace("'", "'\\''")


@pytest.mark.parametrize(
    ("event", "code", "version"),
    [("pre_deploy", 1, "1"), ("pre_shutdown", 1, "1"), ("post_deploy", 0, "2")],
)
def test_failing_hook(lab: Lab, site: Site, event: str, code: int, version: str) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    assert run(site, "deploy").returncode == 0
    uw.declare_lifecycle_hook("web", event, uw.custom("echo no >&2; exit 4"))
    site.release("2")
    done = run(site, "deploy")
    assert (done.returncode, answer(host)) == (code, version)
    assert f"A {event} hook failed" in done.stderr
    assert "command_failed 4" in done.stderr


def test_failing_preparation_leaves_the_active_release(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, prepare_command="cp VERSION PREPARED; test ! -e FAIL")
    assert run(site, "deploy").returncode == 0
    assert (host.srv / "services/web/current/PREPARED").read_text() == "1"
    process = servers(host), current(host)
    (site.folder / "FAIL").touch()
    assert run(site, "deploy").returncode == 1
    assert (servers(host), current(host)) == process
    assert len(list((host.srv / "services/web/releases").iterdir())) == 1


def test_nothing_is_done_with_sources_that_cannot_be_shipped(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    (site.folder / "out").symlink_to("../../etc")
    done = run(site, "deploy")
    assert (done.returncode, "leads out of the folder" in done.stderr) == (1, True)
    (site.folder / "out").unlink()
    uw.declare_service_sources("web", ["**", "nothing/*.here"])
    done = run(site, "deploy")
    assert (done.returncode, "matches nothing/*.here" in done.stderr) == (1, True)
    uw.declare_service_sources("web", ["VERSION"])
    done = run(site, "deploy")
    assert (done.returncode, "server.py is not among the sources" in done.stderr) == (1, True)
    assert run(site, "deploy", "/nonexistent folder").returncode == 2
    assert not (host.srv / "services/web/releases").exists()


def test_unreachable_host_and_changed_host_key_fail(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host, known_hosts=str(lab.wrong_known_hosts(host)), connect_timeout=2)
    done = run(site, "deploy")
    assert (done.returncode, "Host key verification failed" in done.stderr) == (1, True)
    assert run(site, "rollback").returncode == 1
    assert run(site, "health").returncode == 2
    assert not (host.srv / "services").exists()
    host.link_down()
    declare(site, lab, host, connect_timeout=2)
    assert run(site, "deploy").returncode == 1
    assert run(site, "health").returncode == 2


# ---- health, and scripts as text -----------------------------------------------------------------------


def test_health_script_exits_with_0_and_2(lab: Lab, site: Site) -> None:
    host = lab.hosts[0]
    declare(site, lab, host)
    done = run(site, "health", retries=1, timeout=1)
    assert (done.returncode, "CRITICAL" in done.stderr) == (2, True)
    site.deploy()
    done = run(site, "health")
    assert (done.returncode, "OK: web" in done.stdout) == (0, True)
    done = run(site, "health", health_endpoint="/nothing?$(id)`id`", retries=1)
    assert done.returncode == 0  # the server says 200 to every other path
    site.release("2", "broken")
    uw.deploy_service("web")
    done = run(site, "health", retries=2)
    assert (done.returncode, done.stderr.count("failed: status 500")) == (2, 2)


def test_health_script_of_a_service_without_ssh(site: Site, free_port: int) -> None:
    site.declare(
        {"localhost": {}}, "local", remote_dir=str(site.folder.parent / "remote"), port=free_port
    )
    assert run(site, "health", retries=1).returncode == 2
    try:
        assert str(site.deploy()) == "deployed"
        assert run(site, "health").returncode == 0
    finally:
        uw.force_stop_service("web", 2)


def test_local_scripts_need_no_ssh(
    site: Site, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = site.folder.parent / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text("#!/bin/sh\nexit 99\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    remote = site.folder.parent / "re mote $(x) `y` \"z\" 'q'"
    site.declare({"localhost": {}}, "local", remote_dir=str(remote), port=free_port)
    try:
        for version in "12":
            site.release(version)
            done = run(site, "deploy")
            assert (done.returncode, done.stderr) == (
                0,
                "  0 connections are open\n" * (version == "2"),
            )
        assert str(site.deploy()) == "unchanged"
        assert run(site, "rollback").returncode == 0
        assert (remote / "web/current/VERSION").read_text() == "1"
        site.release("3", "broken")
        assert run(site, "deploy").returncode == 1
        assert (remote / "web/current/VERSION").read_text() == "1"
    finally:
        uw.force_stop_service("web", 2)


@pytest.mark.parametrize("method", ["ssh", "local"])
@pytest.mark.parametrize("transport", ["ssh", "https"])
def test_scripts_pass_bash_and_shellcheck(
    site: Site, tmp_path: Path, method: str, transport: str
) -> None:
    hostile = {"env": {"A": AWKWARD}, "start_command": AWKWARD, "prepare_command": AWKWARD}
    uw.declare_service(
        "web", host="a.example", transport=transport, shared_paths=["a 'b'"],
        health_endpoint="/$(x)`y`\"z\\", drain_endpoint="/drain", save_state_command=AWKWARD, **hostile,
    )  # fmt: skip
    uw.declare_deploy_method(
        "web", method, remote_dir="/srv/$(x)`y`\"z\\ 'q'", known_hosts="/k $h%", key_file='~/k "e"y'
    )
    uw.declare_service_sources("web", ["**", "a[!b-d]?/*.$(x)", uw.exclude("`y`/**/*.[ch]")])
    for event in ("pre_deploy", "post_deploy", "pre_shutdown", "on_health_failure"):
        for action in (
            uw.custom(AWKWARD),
            "drain_connections",
            "health_check",
            "save_state",
            "warm_cache",
        ):
            uw.declare_lifecycle_hook("web", event, action)
    for generate in GENERATORS.values():
        checked(generate("web"), tmp_path)


def test_units_pass_systemd_analyze(site: Site, tmp_path: Path) -> None:
    uw.declare_service("web")
    for remote_dir in ("/opt/services", "~/services", "/srv/a  b/$c %h \"d\" 'e' \\ é;#"):
        unit = uw.generate_systemd_unit("web", remote_dir=remote_dir, user="root")
        path = tmp_path / "web.service"
        path.write_text(unit)
        done = subprocess.run(
            ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_generating_says_what_is_missing() -> None:
    with pytest.raises(uw.ExistenceError):
        uw.generate_deploy_script("nobody")
    uw.declare_service("web", host="a.example")
    try:
        with pytest.raises(uw.ExistenceError, match="deploy method"):
            uw.generate_deploy_script("web")
        with pytest.raises(uw.DomainError, match="remote_dir"):
            uw.generate_ssh_deploy("web", remote_dri="/srv")
        script = uw.generate_ssh_deploy("web", host="b.example", user="me", port=9000)
        for line in ('SERVICE="web"', 'HOST="b.example"', 'USER="me"', 'PORT="9000"',
                     'REMOTE_DIR="/opt/unifyweaver/services"'):  # fmt: skip
            assert f"\n{line}\n" in script
        assert uw.service_config("web") == {"host": "a.example"}
        assert uw.service_hosts("web") is None
        health = uw.generate_health_check_script("web", retries=7, timeout=0.5)
        for line in ('HOST="a.example"', 'PORT="8080"', 'ENDPOINT="/health"', 'TIMEOUT="0.5"',
                     'RETRIES="7"', 'PROTOCOL="https"'):  # fmt: skip
            assert f"\n{line}\n" in health
    finally:
        uw.undeclare_service("web")
