"""The lab itself: what is tested on its hosts is worth as much as they are like real ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import running_lab
from .lab import Host, Lab, LabUnavailableError
from .machine import NETNS, STATE, wait_until

HOLDER = """
import sys, time
from {module} import Lab
with Lab(2) as lab:
    print(lab.number, flush=True)
    time.sleep(60)
"""


def ssh(lab: Lab, host: Host, command: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command on the host with OpenSSH's client, which trusts `known_hosts` only."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": 2,
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": lab.known_hosts,
        **settings,
    }
    words = [f"-o{name}={value}" for name, value in options.items()]
    place = f"{host.user}@{host.address}"
    return subprocess.run(
        ["ssh", "-F", "none", "-i", lab.key_file, *words, place, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def left_of(number: int) -> list[str]:
    """What is left of the lab of this number: links, namespaces, files, processes."""
    name = f"uwlab{number}"
    links = [link for link in os.listdir("/sys/class/net") if link.split("-")[0] == name]
    spaces = [space for space in os.listdir(NETNS) if space.split("-")[0] == name]
    folder = STATE / str(number)
    files = [str(folder)] if folder.exists() else []
    return links + spaces + files + processes_naming(f"{folder}/host")


def processes_naming(text: str) -> list[str]:
    """The command lines, on this machine, that contain the text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in command:
            found.append(command)
    return found


@contextmanager
def a_lab_elsewhere() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has a lab of two hosts, and the lab's number."""
    module = Lab.__module__
    top = Path(sys.modules[module].__file__ or "").parents[len(module.split(".")) - 1]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(module=module)],
        cwd=top,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        try:
            assert holder.stdout
            yield holder, int(holder.stdout.readline())
        finally:
            holder.kill()


def test_a_command_runs_as_root_on_every_host(lab: Lab) -> None:
    for host in lab.hosts:
        result = ssh(lab, host, "id -un; hostname; pwd; ls -A /root /srv")
        assert result.stdout.split() == ["root", host.name, "/root", "/root:", "/srv:"]


def test_the_exit_status_and_both_outputs_come_back(lab: Lab) -> None:
    result = ssh(lab, lab.hosts[0], "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")


def test_logins_and_commands_are_counted(lab: Lab) -> None:
    host, other = lab.hosts[:2]
    ssh(lab, host, "true")
    ssh(lab, host, "true")
    assert (host.connections, host.execs, other.connections, other.execs) == (2, 2, 0, 0)


def test_a_host_is_known_by_its_own_key_and_a_wrong_one_is_refused(lab: Lab) -> None:
    host, other = lab.hosts[:2]
    wrong = lab.wrong_known_hosts(host)
    refused = ssh(lab, host, "true", UserKnownHostsFile=wrong)
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr
    assert ssh(lab, other, "true", UserKnownHostsFile=wrong).returncode == 0


def test_hosts_see_neither_each_others_processes_nor_ports_nor_files(lab: Lab) -> None:
    one, two = lab.hosts[:2]
    detached = "setsid python3 -m http.server 8080 </dev/null >/dev/null 2>&1 &"
    for host in (one, two):
        assert ssh(lab, host, f"cd /srv; echo {host.name} > name; {detached}").returncode == 0
    for host in (one, two):
        wait_until(lambda host=host: not host.run("curl -s 127.0.0.1:8080").returncode, "no server")
        assert host.check("curl -s 127.0.0.1:8080/name") == f"{host.name}\n"
        assert list(host.processes().values()) == ["python3 -m http.server 8080"]
        assert (host.srv / "name").read_text() == f"{host.name}\n"
    assert two.check(f"curl -s {one.address}:8080/name") == f"{one.name}\n"


def test_an_orphan_is_reaped_at_once(lab: Lab) -> None:
    host = lab.hosts[0]
    orphan = ssh(lab, host, "setsid sleep 60 </dev/null >/dev/null 2>&1 & echo $!").stdout.strip()
    host.check(f"kill {orphan}")
    wait_until(lambda: host.run(f"test -e /proc/{orphan}").returncode == 1, "a zombie", 2)


def test_a_link_that_is_down_loses_all_until_it_is_up_again(lab: Lab) -> None:
    host = lab.hosts[0]
    with socket.create_connection((host.address, 22), 2) as connection:
        connection.recv(100)
        host.link_down()
        connection.settimeout(0.3)
        connection.sendall(b"SSH-2.0-test\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(100)
        assert ssh(lab, host, "true", ConnectTimeout=1).returncode == 255
        assert ssh(lab, lab.hosts[1], "true").returncode == 0
        host.link_up()
        connection.settimeout(5)
        assert connection.recv(100)
    assert ssh(lab, host, "true").returncode == 0


def test_a_killed_host_is_silent_and_comes_back_with_its_disk_and_no_process(lab: Lab) -> None:
    host = lab.hosts[0]
    ssh(lab, host, "echo kept > /srv/file; setsid sleep 60 </dev/null >/dev/null 2>&1 &")
    with socket.create_connection((host.address, 22), 2) as connection:
        connection.recv(100)
        host.kill()
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):  # power that fails says no goodbye
            connection.recv(100)
    assert not host.alive
    assert (host.srv / "file").read_text() == "kept\n"
    assert ssh(lab, host, "true", ConnectTimeout=1).returncode == 255
    host.start()
    assert host.processes() == {}
    assert ssh(lab, host, "cat /srv/file").stdout == "kept\n"


def test_a_limited_disk_fills_up(lab: Lab) -> None:
    host = lab.hosts[0]
    host.limit_disk(8)
    result = ssh(lab, host, "head -c 20000000 /dev/zero > /srv/big")
    assert "No space left on device" in result.stderr
    assert 7_000_000 < (host.srv / "big").stat().st_size <= 8 * 2**20
    host.reset()
    assert ssh(lab, host, "head -c 20000000 /dev/zero > /srv/big").returncode == 0


def test_a_reset_makes_every_host_as_new(lab: Lab) -> None:
    one, two, three = lab.hosts[:3]
    ssh(lab, one, "touch /srv/a /root/.b /tmp/c; setsid sleep 60 </dev/null >/dev/null 2>&1 &")
    two.link_down()
    three.kill()
    lab.reset()
    for host in (one, two, three):
        assert host.processes() == {}
        assert host.check("find /srv /root /tmp -mindepth 1") == ""
        assert (host.connections, host.execs) == (0, 0)
        assert ssh(lab, host, "true").returncode == 0


@pytest.mark.usefixtures("running_lab")
def test_nothing_is_left_of_a_lab() -> None:
    with Lab(2) as lab:
        assert len(left_of(lab.number)) >= 6
        lab.hosts[0].kill()
    assert left_of(lab.number) == []


@pytest.mark.usefixtures("running_lab")
def test_nothing_is_left_of_a_lab_whose_block_raises() -> None:
    lab = Lab(1)
    with pytest.raises(ZeroDivisionError), lab:
        _ = 1 / 0
    assert left_of(lab.number) == []


@pytest.mark.usefixtures("running_lab")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_lab_that_is_interrupted(number: signal.Signals) -> None:
    with a_lab_elsewhere() as (holder, lab):
        assert left_of(lab)
        holder.send_signal(number)
        assert holder.wait(20) != 0
    assert left_of(lab) == []


@pytest.mark.usefixtures("running_lab")
def test_what_a_killed_process_left_is_removed_by_the_next_lab_and_a_living_ones_is_not() -> None:
    with a_lab_elsewhere() as (killed, left), a_lab_elsewhere() as (living, kept):
        assert any(f"{left}-2" in trace for trace in left_of(left))
        killed.kill()
        killed.wait(20)
        with Lab(1):
            assert len(left_of(kept)) >= 6
        assert left_of(left) == []
        living.terminate()
        living.wait(20)
    assert left_of(kept) == []


def test_five_hosts_start_within_three_seconds(running_lab: Lab) -> None:
    begun = time.monotonic()
    with Lab(5):
        assert time.monotonic() - begun < 3


def test_without_root_there_is_no_lab_and_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabUnavailableError, match=r"^hosts need root$"):
        Lab(1).__enter__()


@pytest.mark.parametrize(
    ("on_ci", "outcome", "line"),
    [
        (False, pytest.skip.Exception, "no lab: hosts need root"),
        (True, pytest.fail.Exception, "no lab, and on CI it must run: hosts need root"),
    ],
)
def test_without_a_lab_a_test_is_skipped_but_on_ci_fails(
    monkeypatch: pytest.MonkeyPatch, on_ci: bool, outcome: type[BaseException], line: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("CI", raising=False)
    if on_ci:
        monkeypatch.setenv("CI", "true")
    with pytest.raises(outcome) as raised:
        next(running_lab.__wrapped__())
    assert str(raised.value) == line
