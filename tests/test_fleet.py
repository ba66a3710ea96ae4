"""The demo fleet under Paramiko: it must behave as OpenSSH does, or what is tested on it proves
nothing.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import paramiko
import pytest

from unifyweaver_py.demo.fleet import Fleet

PACKAGE = Path(__file__).resolve().parent.parent / "unifyweaver_py"
SECONDS = 20


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(2) as running:
        yield running


@contextmanager
def login(fleet: Fleet, number: int = 0) -> Iterator[paramiko.SSHClient]:
    """A connection that trusts the fleet's known_hosts file and nothing else."""
    host = fleet.hosts[number]
    client = paramiko.SSHClient()
    client.load_host_keys(str(fleet.known_hosts))
    client.connect(
        host.name,
        port=host.ssh_port,
        username=fleet.user,
        key_filename=str(fleet.key_file),
        allow_agent=False,
        look_for_keys=False,
        timeout=SECONDS,
    )
    with client:
        yield client


def run(client: paramiko.SSHClient, command: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
    """Exit status, standard output and standard error of a command that is given `data`."""
    stdin, stdout, stderr = client.exec_command(command, timeout=SECONDS)

    def send() -> None:
        with suppress(OSError):  # the command may end without having read all
            stdin.write(data)
            stdin.channel.shutdown_write()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(send)
        errors = pool.submit(stderr.read)
        output = stdout.read()
    return stdout.channel.recv_exit_status(), output, errors.result()


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it holds within a few seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_command_runs_in_its_hosts_folder_with_a_small_environment(fleet: Fleet) -> None:
    with login(fleet, 1) as client:
        status, output, errors = run(
            client, 'pwd; printf "%s\\n" "$HOME"; env | cut -d= -f1 | sort'
        )
    folder, home, *names = output.decode().split("\n")[:-1]
    assert (status, errors) == (0, b"")
    assert folder == home == str(fleet.hosts[1].folder)
    expected = ["HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "UNIFYWEAVER_FLEET", "USER"]
    assert [name for name in names if name not in ("_", "OLDPWD", "SHLVL")] == expected


def test_both_outputs_and_the_exit_status_arrive(fleet: Fleet) -> None:
    with login(fleet) as client:
        assert run(client, "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")


def test_a_command_ended_by_a_signal_has_no_exit_status(fleet: Fleet) -> None:
    with login(fleet) as client:
        assert run(client, "kill -KILL $$")[0] == -1


def test_without_a_command_the_shell_reads_them_from_its_input(fleet: Fleet) -> None:
    with login(fleet) as client:
        channel = client.get_transport().open_session(timeout=SECONDS)
        channel.invoke_shell()
        channel.sendall(b"echo $((6 * 7)); exit 3\n")
        assert (channel.recv(100), channel.recv_exit_status()) == (b"42\n", 3)


def test_a_command_line_beyond_the_kernels_limit_is_refused_and_the_connection_lives(
    fleet: Fleet,
) -> None:
    with login(fleet) as client:
        status, _, errors = run(client, ": " + "x" * 200_000)
        assert (status, b"Argument list too long" in errors) == (126, True)
        assert run(client, "echo on")[1] == b"on\n"


def test_a_tar_of_20_megabytes_is_unpacked_from_standard_input(fleet: Fleet) -> None:
    content = os.urandom(20_000_000)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("folder/big file")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    with login(fleet) as client:
        status, output, errors = run(
            client, "tar -xf - && sha256sum < 'folder/big file'", stream.getvalue()
        )
    assert (status, errors) == (0, b"")
    assert output.split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_large_outputs_on_both_streams_while_input_is_still_coming(fleet: Fleet) -> None:
    data = os.urandom(3_000_000)
    with login(fleet) as client:
        status, output, errors = run(client, "head -c 2000000 /dev/zero >&2 & cat; wait", data)
    assert (status, output == data, errors == bytes(2_000_000)) == (0, True, True)


def test_input_that_the_command_does_not_read_is_discarded(fleet: Fleet) -> None:
    sent = fleet.hosts[0].folder / "sent"
    with login(fleet) as client:
        stdin, stdout, _ = client.exec_command(
            "exec <&-; until [ -e sent ]; do sleep 0.02; done; echo deaf", timeout=SECONDS
        )
        stdin.channel.settimeout(SECONDS)
        stdin.write(bytes(8_000_000))
        sent.touch()
        assert stdout.read() == b"deaf\n"


@pytest.mark.alone
def test_two_commands_run_at_once_on_one_connection(fleet: Fleet) -> None:
    with login(fleet) as client:
        channels = [client.exec_command("sleep 0.5; echo $$")[1] for _ in range(2)]
        begun = time.monotonic()
        pids = {channel.read() for channel in channels}
    assert len(pids) == 2
    assert time.monotonic() - begun < 0.9


def test_two_hosts_have_two_keys_two_folders_and_two_ports(fleet: Fleet) -> None:
    first, second = fleet.hosts
    assert (first.name, second.name) == ("127.0.0.11", "127.0.0.12")
    for quality in ("host_key", "folder", "service_port"):
        assert getattr(first, quality) != getattr(second, quality)


def test_a_changed_host_key_and_a_strange_client_key_are_refused(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    client = paramiko.SSHClient()
    place = f"[{host.name}]:{host.ssh_port}"
    client.get_host_keys().add(place, "ssh-rsa", paramiko.RSAKey.generate(2048))
    address = {"port": host.ssh_port, "username": fleet.user, "timeout": SECONDS}
    with client, pytest.raises(paramiko.SSHException, match="does not match"):
        client.connect(host.name, key_filename=str(fleet.key_file), **address)
    stranger = paramiko.SSHClient()
    stranger.load_host_keys(str(fleet.known_hosts))
    with stranger, pytest.raises(paramiko.AuthenticationException):
        stranger.connect(
            host.name,
            pkey=paramiko.RSAKey.generate(2048),
            allow_agent=False,
            look_for_keys=False,
            **address,
        )


def test_a_channel_is_forwarded_to_loopback_and_nowhere_else(fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, login(fleet) as client:
        transport = client.get_transport()
        channel = transport.open_channel("direct-tcpip", server.getsockname(), ("", 0), SECONDS)
        peer, _ = server.accept()
        with peer:
            channel.sendall(b"there")
            assert peer.recv(100) == b"there"
            peer.sendall(b"and back")
            assert channel.recv(100) == b"and back"
        with pytest.raises(paramiko.ChannelException):
            transport.open_channel("direct-tcpip", ("192.0.2.1", 80), ("", 0), SECONDS)


def test_connections_and_execs_are_counted(fleet: Fleet) -> None:
    host = fleet.hosts[0]
    before = (host.connections, host.execs)
    with login(fleet) as client:
        run(client, "true")
        run(client, "true")
    assert (host.connections - before[0], host.execs - before[1]) == (1, 2)


def test_a_command_outlives_a_client_that_disconnects(fleet: Fleet) -> None:
    witness = fleet.hosts[0].folder / "witness"
    with login(fleet) as client:
        client.exec_command(f"trap '' PIPE; echo on; sleep 0.4; echo more; echo done > {witness}")[
            1
        ].readline()
    assert not witness.exists()
    assert eventually(lambda: witness.exists() and witness.read_text() == "done\n")


def test_a_cut_breaks_the_connection_and_the_host_accepts_another(fleet: Fleet) -> None:
    with login(fleet) as client:
        stdout = client.exec_command("sleep 30", timeout=SECONDS)[1]
        fleet.cut(fleet.hosts[0])
        assert stdout.read() == b""
        assert stdout.channel.recv_exit_status() == -1
    with login(fleet) as client:
        assert run(client, "echo again")[1] == b"again\n"


def test_the_channel_stays_open_while_a_background_process_holds_it(fleet: Fleet) -> None:
    begun = time.monotonic()
    with login(fleet) as client:
        assert run(client, "sleep 0.6 & echo started")[:2] == (0, b"started\n")
    assert time.monotonic() - begun >= 0.6


def test_stop_ends_what_the_hosts_started_and_nothing_else(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    detach = "setsid sh -c '{} sleep 60' </dev/null >/dev/null 2>&1 & echo $!"
    with Fleet(1, tmp_path) as fleet:
        with login(fleet) as client:
            obedient = int(run(client, detach.format(""))[1])
            stubborn = int(run(client, detach.format('trap "" TERM;'))[1])
        time.sleep(0.2)
        assert alive(obedient)
        assert alive(stubborn)
    assert not alive(obedient)
    assert not alive(stubborn)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait(SECONDS)


def test_a_temporary_folder_goes_and_a_given_one_stays(tmp_path: Path) -> None:
    with Fleet(1) as fleet:
        temporary = fleet.folder
        assert (fleet.key_file.stat().st_mode & 0o777, temporary.is_dir()) == (0o600, True)
    with Fleet(1, tmp_path / "given"):
        pass
    assert not temporary.exists()
    assert (tmp_path / "given" / "host1").is_dir()


@pytest.mark.parametrize("ending", ["end of input", signal.SIGTERM])
def test_the_fleet_as_a_process_of_its_own(tmp_path: Path, ending: str | signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "unifyweaver_py.demo.fleet",
        "--hosts",
        "2",
        "--dir",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        command, cwd=PACKAGE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    told = json.loads(process.stdout.readline())
    host = told["hosts"][0]
    client = paramiko.SSHClient()
    client.load_host_keys(told["known_hosts"])
    client.connect(
        host["name"], host["ssh_port"], told["user"], key_filename=told["key_file"], timeout=SECONDS
    )
    with client:
        status, output, _ = run(client, "pwd; setsid sleep 60 </dev/null >/dev/null 2>&1 & echo $!")
    folder, pid = output.decode().split()
    assert (status, folder, len(told["hosts"])) == (0, host["folder"], 2)
    if isinstance(ending, signal.Signals):
        process.send_signal(ending)
    else:
        process.stdin.close()
    assert process.wait(SECONDS) == 0
    assert not alive(int(pid))
    process.stdout.close()
    if not process.stdin.closed:
        process.stdin.close()


def test_without_asyncssh_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'unifyweaver_py\[demo\]'"):
        Fleet(1).start()


@contextmanager
def example_service(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The example service, started from a copy in `folder` and listening."""
    (folder / "server.py").write_bytes((PACKAGE / "demo/service/server.py").read_bytes())
    (folder / "VERSION").write_text("2\n")
    process = subprocess.Popen(
        [sys.executable, str(folder / "server.py"), "--port", str(port)], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait(SECONDS)
        process.stdout.close()


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("GET", path)
    response = connection.getresponse()
    answer = response.status, response.read().decode()
    connection.close()
    return answer


def test_the_example_service_answers_its_version_and_its_health(
    fleet: Fleet, tmp_path: Path
) -> None:
    port = fleet.hosts[0].service_port
    with example_service(tmp_path, port) as process:
        assert get(port, "/") == (200, "2\n")
        assert get(port, "/health") == (200, "healthy\n")
        assert get(port, "/elsewhere")[0] == 404
        (tmp_path / "VERSION").write_text("3\n")
        assert get(port, "/") == (200, "2\n")
        (tmp_path / "BROKEN").touch()
        assert get(port, "/health") == (500, "broken\n")
        process.send_signal(signal.SIGUSR1)
        assert eventually(lambda: get(port, "/health") == (503, "draining\n"))
