"""Scripts over SSH, against a real OpenSSH server on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sshd import Sshd, free_port, key_of, new_key, once_there
from test_files import ODD_NAMES, odd_sources

from unifyweaver_py._terms import PrologString, Term
from unifyweaver_py.effects import LiveEffects, Run, archive, files, new_run, sockets
from unifyweaver_py.effects.archive import Extra
from unifyweaver_py.effects.patterns import Pattern

MB = 1 << 20
Start = Callable[..., Sshd]


def done(status: int, lines: list[str], errors: list[str] | None = None) -> Term:
    return Term("done", (status, lines, errors or []))


def failed(reason: object) -> Term:
    return Term("failed", (reason,))


def reason_text(outcome: Term) -> str:
    """The text of `failed(unreachable(Text))`."""
    assert outcome.name == "failed", outcome
    reason = outcome.args[0]
    assert isinstance(reason, Term), outcome
    assert reason.name == "unreachable"
    return str(reason.args[0])


def release(live: LiveEffects, run: Term, folder: Path, *patterns: str) -> Term:
    scan = live.scan(run, str(folder), list(patterns), [])
    assert scan.name == "sources", scan
    return Term("release", (str(folder), list(patterns), scan.args[0], [], "none"))


@pytest.fixture
def big(tmp_path: Path) -> Path:
    folder = tmp_path / "big"
    folder.mkdir()
    (folder / "data").write_bytes(os.urandom(20 * MB))
    return folder


# what a script says


def test_a_script_runs_and_answers_with_its_status_and_lines(
    live: LiveEffects, forward: Term, sshd: Sshd
) -> None:
    script = "echo \"one $((1 + 1))\"; printf 'two'; echo oops >&2; exit 3"
    outcome = live.shell(forward, sshd.target(), script, "none", 10)
    assert outcome == done(3, ["one 2", "two"], ["oops"])
    assert isinstance(outcome.args[1][0], PrologString)


def test_one_connection_serves_all_execs_of_a_run(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd
) -> None:
    for _ in range(4):
        assert live.shell(forward, sshd.target(), "true", "none", 10) == done(0, [])
    traffic = run.traffic["127.0.0.1"]
    assert (traffic.connections, traffic.execs) == (1, 4)
    assert traffic.bytes_sent > 0


def test_threads_share_the_connection(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd
) -> None:
    outcomes: list[Term] = []
    threads = [
        threading.Thread(
            target=lambda: outcomes.append(live.shell(forward, sshd.target(), "id -u", "none", 10))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert outcomes == [done(0, [str(os.getuid())])] * 6
    assert run.traffic["127.0.0.1"].connections == 1


def test_nothing_of_the_script_is_on_the_command_line(
    live: LiveEffects, forward: Term, sshd: Sshd
) -> None:
    script = "secret='tr0ub4dor'; tr '\\0' ' ' < /proc/$$/cmdline; echo"
    outcome = live.shell(forward, sshd.target(), script, "none", 10)
    (line,) = outcome.args[1]
    assert "head -c" in line
    assert "tr0ub4dor" not in line


def test_a_script_beyond_the_limit_of_a_command_line_runs(
    live: LiveEffects, forward: Term, sshd: Sshd
) -> None:
    script = f"text='{'x' * 300_000}'\necho ${{#text}}"
    assert live.shell(forward, sshd.target(), script, "none", 20) == done(0, ["300000"])


@pytest.mark.parametrize(
    "script", ["", "# nothing", "cat <<'X'\nhere\nX", "case a in a) echo here;; esac"]
)
def test_any_shape_of_script_runs(
    live: LiveEffects, forward: Term, sshd: Sshd, script: str
) -> None:
    expected = ["here"] if "here" in script else []
    assert live.shell(forward, sshd.target(), script, "none", 10) == done(0, expected)


def test_of_a_script_that_arrives_in_part_nothing_runs(tmp_path: Path) -> None:
    from unifyweaver_py.effects.scripts import command_line, framed

    text = framed(f"touch {tmp_path}/ran\nsleep 0\n")
    cut = subprocess.run(
        command_line(text, sudo=False),
        shell=True,
        input=text[:-8],
        check=False,
        capture_output=True,
        timeout=10,
    )
    assert cut.returncode != 0
    assert not (tmp_path / "ran").exists()


def test_bytes_that_are_not_text_are_shown(live: LiveEffects, forward: Term, sshd: Sshd) -> None:
    outcome = live.shell(forward, sshd.target(), "printf 'a\\377b\\n'; printf 'é\\n'", "none", 10)
    assert outcome == done(0, ["a\\xffb", "é"])


def test_only_the_last_error_lines_are_kept(live: LiveEffects, forward: Term, sshd: Sshd) -> None:
    outcome = live.shell(forward, sshd.target(), "seq 1000 >&2", "none", 10)
    assert outcome == done(0, [], [str(n) for n in range(981, 1001)])


def test_a_process_left_behind_does_not_hold_the_exec(
    live: LiveEffects, forward: Term, sshd: Sshd
) -> None:
    begun = time.monotonic()
    outcome = live.shell(forward, sshd.target(), "sleep 5 & echo started", "none", 20)
    assert outcome == done(0, ["started"])
    assert time.monotonic() - begun < 3


# payloads


def test_twenty_megabytes_arrive_whole(  # noqa: PLR0917 - fixtures
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd, big: Path, tmp_path: Path
) -> None:
    script = (
        f"mkdir {tmp_path}/out && tar -xof - -C {tmp_path}/out && cd {tmp_path}/out && "
        "sha256sum -c .unifyweaver/manifest"
    )
    payload = release(live, forward, big, "*")
    assert live.shell(forward, sshd.target(), script, payload, 60) == done(0, ["data: OK"])
    assert run.traffic["127.0.0.1"].bytes_sent > 20 * MB
    assert (tmp_path / "out/data").read_bytes() == (big / "data").read_bytes()


def test_a_megabyte_of_complaints_while_the_payload_is_sent(
    live: LiveEffects, forward: Term, sshd: Sshd, big: Path
) -> None:
    script = "head -c 1000000 /dev/zero | tr '\\0' e >&2; wc -c >/dev/null; echo; echo done"
    payload = release(live, forward, big, "*")
    outcome = live.shell(forward, sshd.target(), script, payload, 60)
    assert outcome.args[:2] == (0, ["", "done"])


def test_a_script_that_ends_early_still_answers(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd, big: Path
) -> None:
    payload = release(live, forward, big, "*")
    outcome = live.shell(forward, sshd.target(), "echo no; echo full >&2; exit 7", payload, 60)
    assert outcome == done(7, ["no"], ["full"])
    assert run.traffic["127.0.0.1"].bytes_sent < 20 * MB
    assert live.shell(forward, sshd.target(), "echo again", "none", 10) == done(0, ["again"])


def test_odd_names_are_verified_on_the_target(
    live: LiveEffects, forward: Term, sshd: Sshd, tmp_path: Path
) -> None:
    sources = odd_sources(tmp_path / "src")
    script = (
        f"mkdir {tmp_path}/out && cd {tmp_path}/out && tar -xof - && "
        "LC_ALL=C sha256sum -c --status --strict .unifyweaver/manifest"
    )
    payload = release(live, forward, sources, "**")
    assert live.shell(forward, sshd.target(), script, payload, 30) == done(0, [])
    shipped = files.scan_sources(str(tmp_path / "out"), [Pattern("**")])
    assert shipped.hash == payload.args[2]
    assert len(shipped.entries) == len(ODD_NAMES) + 1


def test_extras_are_shipped(
    live: LiveEffects, forward: Term, sshd: Sshd, tmp_path: Path, big: Path
) -> None:
    whole = release(live, forward, big, "*")
    extra = Term("file", (".unifyweaver/start", 0o644, PrologString("exec é\n")))
    payload = Term("release", (*whole.args[:3], [extra], "none"))
    script = "tar -xOf - .unifyweaver/start"
    assert live.shell(forward, sshd.target(), script, payload, 30) == done(0, ["exec é"])


def test_sources_that_changed_are_not_shipped(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd, big: Path
) -> None:
    payload = Term("release", (str(big), ["*"], "0" * 64, [], "none"))
    outcome = live.shell(forward, sshd.target(), "cat", payload, 30)
    assert outcome == failed(Term("verification_failed", (str(big),)))
    assert run.traffic == {}


# whom we trust


def test_an_unknown_key_is_refused(
    live: LiveEffects, forward: Term, sshd: Sshd, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    target = sshd.target(known_hosts=str(empty))
    assert live.shell(forward, target, "true", "none", 10) == failed("host_key_mismatch")
    assert not empty.exists()


@pytest.mark.parametrize("host_key", ["strict", "accept_new"])
def test_a_changed_key_is_refused(
    live: LiveEffects, forward: Term, sshd: Sshd, tmp_path: Path, host_key: str
) -> None:
    other = new_key(tmp_path / "other")
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{sshd.port} {key_of(other.with_suffix('.pub'))}\n")
    before = known.read_text()
    target = sshd.target(known_hosts=str(known), host_key=host_key)
    assert live.shell(forward, target, "true", "none", 10) == failed("host_key_mismatch")
    assert known.read_text() == before


def test_a_new_key_is_accepted_once_when_told(
    live: LiveEffects, forward: Term, sshd: Sshd, tmp_path: Path
) -> None:
    known = tmp_path / "deep" / "known"
    target = sshd.target(known_hosts=str(known), host_key="accept_new")
    assert live.shell(forward, target, "true", "none", 10) == done(0, [])
    assert known.stat().st_mode & 0o777 == 0o600
    key = key_of(sshd.folder / "host_key.pub")
    assert known.read_text() == f"[127.0.0.1]:{sshd.port} {key}\n"
    other = new_run()
    again = Term("run", (other.id, "forward"))
    strict = sshd.target(known_hosts=str(known))
    assert live.shell(again, strict, "true", "none", 10) == done(0, [])
    other.close()


def test_a_revoked_key_is_refused_though_it_is_listed(
    live: LiveEffects, forward: Term, sshd: Sshd, tmp_path: Path
) -> None:
    listed = sshd.known_hosts.read_text()
    known = tmp_path / "known"
    known.write_text(f"{listed}@revoked * {key_of(sshd.folder / 'host_key.pub')}\n")
    target = sshd.target(known_hosts=str(known))
    assert live.shell(forward, target, "true", "none", 10) == failed("host_key_mismatch")


@pytest.mark.parametrize("names", ["[127.0.0.*]:{port}", "other,[127.0.0.1]:{port}", "hashed"])
def test_names_in_known_hosts(
    live: LiveEffects, forward: Term, sshd: Sshd, tmp_path: Path, names: str
) -> None:
    known = tmp_path / "known"
    if names == "hashed":
        known.write_text(sshd.known_hosts.read_text())
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, timeout=10)
        assert "127.0.0.1" not in known.read_text()
    else:
        key = key_of(sshd.folder / "host_key.pub")
        known.write_text(f"{names.format(port=sshd.port)} {key} comment\n")
    target = sshd.target(known_hosts=str(known))
    assert live.shell(forward, target, "true", "none", 10) == done(0, [])


def test_a_negated_name_does_not_match(
    live: LiveEffects, forward: Term, sshd: Sshd, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    key = key_of(sshd.folder / "host_key.pub")
    known.write_text(f"*,![127.0.0.1]:{sshd.port} {key}\n")
    target = sshd.target(known_hosts=str(known))
    assert live.shell(forward, target, "true", "none", 10) == failed("host_key_mismatch")


def test_the_listed_kind_of_key_is_asked_for(
    live: LiveEffects, forward: Term, own_sshd: Start, tmp_path: Path
) -> None:
    rsa = new_key(tmp_path / "rsa_key", "rsa")
    server = own_sshd(f"HostKey={rsa}")
    public = key_of(Path(f"{rsa}.pub"))
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public}\n")
    assert live.shell(forward, server.target(), "true", "none", 10) == done(0, [])


# who we are


def test_a_wrong_key_fails_authentication(
    live: LiveEffects, forward: Term, sshd: Sshd, tmp_path: Path
) -> None:
    target = sshd.target(key_file=str(new_key(tmp_path / "stranger")))
    assert live.shell(forward, target, "true", "none", 10) == failed("authentication_failed")


def test_no_key_at_all_fails_authentication(live: LiveEffects, forward: Term, sshd: Sshd) -> None:
    target = sshd.target(key_file=None)
    assert live.shell(forward, target, "true", "none", 10) == failed("authentication_failed")


def test_a_missing_key_file_is_named(live: LiveEffects, forward: Term, sshd: Sshd) -> None:
    target = sshd.target(key_file="/nowhere/key")
    assert "/nowhere/key" in reason_text(live.shell(forward, target, "true", "none", 10))


@pytest.fixture
def agent(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 10
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    key = str(sshd.folder / "user_key")
    subprocess.run(["ssh-add", "-q", key], check=True, timeout=10, stderr=subprocess.DEVNULL)
    yield
    process.terminate()
    process.wait(10)


@pytest.mark.usefixtures("agent")
def test_the_agent_is_used_unless_it_is_refused(
    live: LiveEffects, forward: Term, sshd: Sshd
) -> None:
    without = sshd.target(key_file=None, agent="false")
    assert live.shell(forward, without, "true", "none", 10) == failed("authentication_failed")
    with_agent = sshd.target(key_file=None, agent=None)
    assert live.shell(forward, with_agent, "true", "none", 10) == done(0, [])


# reaching the host


def test_a_refused_connection(live: LiveEffects, forward: Term, sshd: Sshd) -> None:
    target = sshd.target(ssh_port=free_port())
    assert live.shell(forward, target, "true", "none", 10) == failed("connection_refused")


def test_a_host_without_address(live: LiveEffects, forward: Term, sshd: Sshd) -> None:
    outcome = live.shell(forward, sshd.target("host.invalid"), "true", "none", 10)
    assert reason_text(outcome)


@pytest.mark.parametrize("host", ["-oProxyCommand=id", "a b", "u@h", "a;b", "$(id)", ""])
def test_what_is_not_a_host_name_is_refused(
    live: LiveEffects, forward: Term, sshd: Sshd, host: str
) -> None:
    outcome = live.shell(forward, sshd.target(host), "true", "none", 10)
    assert "not a host name" in reason_text(outcome)


@contextmanager
def listener(act: Callable[[socket.socket, int], None]) -> Iterator[int]:
    """A port on which each connection is given to `act`, with its number."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                held.append(sock)
                act(sock, len(held))

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for sock in held:
            sock.close()


def test_a_host_that_never_answers(live: LiveEffects, forward: Term, sshd: Sshd) -> None:
    with listener(lambda sock, number: None) as port:
        target = sshd.target(ssh_port=port, connect_timeout=1)
        begun = time.monotonic()
        assert live.shell(forward, target, "true", "none", 10) == failed("timeout")
        assert 0.9 < time.monotonic() - begun < 2


@pytest.mark.alone
def test_cancelling_while_connecting(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd
) -> None:
    with listener(lambda sock, number: None) as port:
        threading.Timer(0.3, run.cancel.set).start()
        begun = time.monotonic()
        outcome = live.shell(forward, sshd.target(ssh_port=port), "true", "none", 10)
    assert outcome == failed("cancelled")
    assert time.monotonic() - begun < 0.8


def splice(one: socket.socket, port: int) -> None:
    """Connect a socket with a port of this machine, both ways."""
    other = socket.create_connection(("127.0.0.1", port))

    def copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            sink.close()

    threading.Thread(target=copy, args=(one, other), daemon=True).start()
    threading.Thread(target=copy, args=(other, one), daemon=True).start()


def test_a_dropped_connection_is_tried_again(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd, tmp_path: Path
) -> None:
    def drop_two(sock: socket.socket, number: int) -> None:
        if number <= 2:
            sock.close()
        else:
            splice(sock, sshd.port)

    with listener(drop_two) as port:
        known = tmp_path / "known"
        known.write_text(f"[127.0.0.1]:{port} {key_of(sshd.folder / 'host_key.pub')}\n")
        target = sshd.target(ssh_port=port, known_hosts=str(known))
        assert live.shell(forward, target, "echo in", "none", 10) == done(0, ["in"])
        run.close()
    assert run.traffic["127.0.0.1"].connections == 3


def test_a_connection_always_dropped_gives_up(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd
) -> None:
    with listener(lambda sock, number: sock.close()) as port:
        outcome = live.shell(forward, sshd.target(ssh_port=port), "true", "none", 10)
    assert reason_text(outcome)
    assert run.traffic["127.0.0.1"].connections == 4


def test_thirty_connections_at_once_get_through_max_startups(
    live: LiveEffects, own_sshd: Start
) -> None:
    server = own_sshd("MaxStartups=10:30:100")
    outcomes: list[Term] = []

    def deploy() -> None:
        run = new_run()
        outcomes.append(
            live.shell(Term("run", (run.id, "forward")), server.target(), "true", "none", 30)
        )
        run.close()

    threads = [threading.Thread(target=deploy) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # What a login shell's start-up files complain of is not ours.
    assert [(outcome.name, outcome.args[0]) for outcome in outcomes] == [("done", 0)] * 30


# ending what does not end


@pytest.mark.alone
def test_cancelling_ends_the_remote_command(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd, tmp_path: Path
) -> None:
    script = f"echo begun; echo $$ >{tmp_path}/pid; sleep 60; echo never"
    cancelled: list[float] = []

    def cancel() -> None:
        time.sleep(0.1)
        cancelled.append(time.monotonic())
        run.cancel.set()

    once_there(tmp_path / "pid", cancel)
    outcome = live.shell(forward, sshd.target(), script, "none", 30)
    assert outcome == Term("cut", ("cancelled", ["begun"]))
    assert time.monotonic() - cancelled[0] < 0.5
    pid = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_after_a_cancel_the_undo_uses_the_same_connection(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd, tmp_path: Path
) -> None:
    once_there(tmp_path / "one", run.cancel.set)
    outcome = live.shell(forward, sshd.target(), f"touch {tmp_path}/one; sleep 60", "none", 30)
    assert outcome == Term("cut", ("cancelled", []))
    assert live.shell(forward, sshd.target(), "true", "none", 30) == failed("cancelled")
    undo = Term("run", (run.id, "undo"))
    assert live.shell(undo, sshd.target(), "echo undone", "none", 10) == done(0, ["undone"])
    assert run.traffic["127.0.0.1"].connections == 1
    once_there(tmp_path / "two", run.abandon.set)
    outcome = live.shell(undo, sshd.target(), f"touch {tmp_path}/two; sleep 60", "none", 30)
    assert outcome == Term("cut", ("cancelled", []))


def test_the_time_limit_covers_the_whole_exec(live: LiveEffects, forward: Term, sshd: Sshd) -> None:
    begun = time.monotonic()
    script = "while :; do echo tick; sleep 0.2; done"
    outcome = live.shell(forward, sshd.target(), script, "none", 1)
    assert outcome.name == "cut"
    assert outcome.args[0] == "timeout"
    assert outcome.args[1][0] == "tick"
    assert 0.9 < time.monotonic() - begun < 2


def test_the_time_limit_holds_while_nobody_reads_the_payload(
    live: LiveEffects, forward: Term, sshd: Sshd, big: Path
) -> None:
    payload = release(live, forward, big, "*")
    begun = time.monotonic()
    outcome = live.shell(forward, sshd.target(), "sleep 60", payload, 1)
    assert outcome == Term("cut", ("timeout", []))
    assert time.monotonic() - begun < 2


def test_a_connection_that_is_lost_is_a_cut_and_the_next_exec_connects_again(
    live: LiveEffects, run: Run, forward: Term, own_sshd: Start, tmp_path: Path
) -> None:
    server = own_sshd()
    once_there(tmp_path / "there", lambda: (time.sleep(0.2), server.cut()))
    begun = time.monotonic()
    script = f"echo begun; touch {tmp_path}/there; sleep 30"
    outcome = live.shell(forward, server.target(), script, "none", 30)
    assert outcome.name == "cut"
    assert outcome.args[1] == ["begun"]
    assert "lost" in str(outcome.args[0])
    assert time.monotonic() - begun < 10
    assert live.shell(forward, server.target(), "echo back", "none", 10) == done(0, ["back"])
    assert run.traffic["127.0.0.1"].connections == 2


def test_a_connection_lost_in_the_middle_of_a_payload_is_a_cut(
    live: LiveEffects, forward: Term, own_sshd: Start, big: Path, tmp_path: Path
) -> None:
    server = own_sshd()
    payload = release(live, forward, big, "*")
    once_there(tmp_path / "there", server.cut)
    script = f"touch {tmp_path}/there; sleep 30; cat"
    outcome = live.shell(forward, server.target(), script, payload, 30)
    assert outcome.name == "cut"


def test_a_command_killed_by_a_signal_has_no_status(
    live: LiveEffects, forward: Term, sshd: Sshd
) -> None:
    outcome = live.shell(forward, sshd.target(), "echo so far; kill -9 $$", "none", 10)
    # Depending on the login shell, the shell above reports 137 or is itself the one that was killed.
    assert outcome in (
        done(137, ["so far"], outcome.args[-1]),
        Term("cut", (outcome.args[0], ["so far"])),
    )


def test_a_server_that_runs_no_commands_has_started_nothing(
    live: LiveEffects, forward: Term, own_sshd: Start
) -> None:
    server = own_sshd("MaxSessions=0")
    assert reason_text(live.shell(forward, server.target(), "true", "none", 10))


# ssh_config


@pytest.fixture
def ssh_config(tmp_path: Path) -> Callable[[str], None]:
    def write(text: str) -> None:
        (tmp_path / "home/.ssh/config").write_text(text)

    return write


def test_ssh_config_gives_host_port_user_and_key(
    live: LiveEffects,
    forward: Term,
    sshd: Sshd,
    ssh_config: Callable[[str], None],
) -> None:
    ssh_config(
        f"Host web\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {sshd.folder}/user_key\n  IdentityFile /nowhere\n"
        f"  UserKnownHostsFile {sshd.known_hosts}\n  StrictHostKeyChecking no\n"
    )
    target = Term("target", ("ssh", "web", []))
    assert live.shell(forward, target, "id -un", "none", 10) == done(0, [sshd.user])


def test_options_come_before_ssh_config(
    live: LiveEffects, forward: Term, sshd: Sshd, ssh_config: Callable[[str], None]
) -> None:
    ssh_config("Host *\n  Port 1\n  User nobody\n  UserKnownHostsFile /dev/null\n")
    assert live.shell(forward, sshd.target(), "id -un", "none", 10) == done(0, [sshd.user])


def test_the_user_is_deploy_by_default() -> None:
    from unifyweaver_py.effects.ssh_config import resolve

    login = resolve("host.example", {})
    assert (login.user, login.port, login.host) == ("deploy", 22, "host.example")
    assert login.connect_timeout == 10


@pytest.mark.parametrize("host", ["::1", "[::1]", "fe80::1%lo"])
def test_an_address_may_be_ipv6(host: str) -> None:
    from unifyweaver_py.effects.known_hosts import host_name
    from unifyweaver_py.effects.ssh_config import resolve

    login = resolve(host, {})
    assert login.host == host.strip("[]")
    assert host_name(login.host, 2222) == f"[{login.host}]:2222"


@pytest.mark.parametrize(
    "keyword",
    [
        "HostKeyAlias other",
        "KnownHostsCommand /bin/echo",
        "GlobalKnownHostsFile /tmp/known",
        "RevokedHostKeys /tmp/revoked",
        "CanonicalizeHostname yes",
        "BindInterface eth0",
        "BindAddress 127.0.0.2",
        "ProxyUseFdpass yes",
    ],
)
def test_a_keyword_that_changes_whom_we_trust_is_refused(  # noqa: PLR0917 - fixtures
    live: LiveEffects,
    run: Run,
    forward: Term,
    sshd: Sshd,
    ssh_config: Callable[[str], None],
    keyword: str,
) -> None:
    ssh_config(f"Host 127.*\n  {keyword}\n")
    outcome = live.shell(forward, sshd.target(), "true", "none", 10)
    assert keyword.split(maxsplit=1)[0] in reason_text(outcome)
    assert run.traffic == {}
    ssh_config(f"Host elsewhere\n  {keyword}\n")
    assert live.shell(forward, sshd.target(), "true", "none", 10) == done(0, [])


@pytest.mark.parametrize(
    "criterion", ['exec "touch {ran}"', "localnetwork 127.0.0.0/8", "tagged x"]
)
def test_a_match_that_is_not_understood_is_refused(  # noqa: PLR0917 - fixtures
    live: LiveEffects,
    forward: Term,
    sshd: Sshd,
    ssh_config: Callable[[str], None],
    tmp_path: Path,
    criterion: str,
) -> None:
    criterion = criterion.format(ran=tmp_path / "ran")
    ssh_config(f"Match host 127.0.0.1 {criterion}\n  User nobody\n")
    outcome = live.shell(forward, sshd.target(), "true", "none", 10)
    assert f"Match {criterion.split(maxsplit=1)[0]}" in reason_text(outcome)
    ssh_config(f"Match host elsewhere {criterion}\n  User nobody\n")
    assert live.shell(forward, sshd.target(), "true", "none", 10) == done(0, [])
    assert not (tmp_path / "ran").exists()


def test_a_file_that_cannot_be_parsed_is_a_reason(
    live: LiveEffects, forward: Term, sshd: Sshd, ssh_config: Callable[[str], None]
) -> None:
    ssh_config("Host a\nnonsense\n")
    assert "ssh_config" in reason_text(live.shell(forward, sshd.target(), "true", "none", 10))


def test_included_files_are_read_and_a_change_is_seen(
    tmp_path: Path, ssh_config: Callable[[str], None]
) -> None:
    from unifyweaver_py.effects.ssh_config import resolve

    folder = tmp_path / "home/.ssh/config.d"
    folder.mkdir()
    ssh_config("Include config.d/*\nPort 2200\nHost b\n  User late\n")
    assert resolve("a", {}).user == "deploy"
    (folder / "one").write_text("Host a\n  User early\n")
    assert resolve("a", {}).user == "early"
    assert resolve("b", {}).user == "late"
    assert resolve("b", {}).port == 2200
    (folder / "one").write_text("Host a\n  User changed\n")
    assert resolve("a", {}).user == "changed"


def test_a_proxy_command_carries_the_connection(  # noqa: PLR0917 - fixtures
    live: LiveEffects,
    run: Run,
    forward: Term,
    sshd: Sshd,
    ssh_config: Callable[[str], None],
    tmp_path: Path,
) -> None:
    relay = (
        "import os,socket,sys,threading;"
        "s=socket.create_connection((sys.argv[1],int(sys.argv[2])));"
        "t=threading.Thread(target=lambda:[os.write(1,d) for d in iter(lambda:s.recv(65536),b'')],"
        "daemon=True);t.start();[s.sendall(d) for d in iter(lambda:os.read(0,65536),b'')]"
    )
    (tmp_path / "relay.py").write_text(relay)
    ssh_config(f"Host 127.*\n  ProxyCommand {sys.executable} {tmp_path}/relay.py %h %p\n")
    assert live.shell(forward, sshd.target(), "echo through", "none", 20) == done(0, ["through"])
    run.close()


def test_a_jump_host_is_verified_too(  # noqa: PLR0917 - fixtures
    live: LiveEffects,
    run: Run,
    forward: Term,
    sshd: Sshd,
    own_sshd: Start,
    ssh_config: Callable[[str], None],
    tmp_path: Path,
) -> None:
    jump = own_sshd()
    with (jump.folder / "authorized_keys").open("a") as file:
        file.write((sshd.folder / "user_key.pub").read_text())
    ssh_config(f"Host 127.0.0.1\n  ProxyJump {jump.user}@localhost:{jump.port}\n")
    known = tmp_path / "known"
    known.write_text(sshd.known_hosts.read_text())
    target = sshd.target(known_hosts=str(known))
    assert live.shell(forward, target, "true", "none", 10) == failed("host_key_mismatch")
    with known.open("a") as file:
        file.write(f"[localhost]:{jump.port} {key_of(jump.folder / 'host_key.pub')}\n")
    assert live.shell(forward, target, "echo far", "none", 10) == done(0, ["far"])
    begun = time.monotonic()
    run.close()
    assert time.monotonic() - begun < 1


@pytest.mark.alone
def test_closing_a_run_is_quick_and_leaves_no_thread(
    live: LiveEffects, run: Run, forward: Term, sshd: Sshd
) -> None:
    before = threading.active_count()
    assert live.shell(forward, sshd.target(), "true", "none", 10) == done(0, [])
    begun = time.monotonic()
    run.close()
    assert time.monotonic() - begun < 0.5
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_a_closed_run_is_not_known_any_more(live: LiveEffects, sshd: Sshd) -> None:
    run = new_run()
    run.close()
    with pytest.raises(LookupError, match=run.id):
        live.shell(Term("run", (run.id, "forward")), sshd.target(), "true", "none", 10)


def test_without_a_run_the_connection_ends_with_the_exec(
    live: LiveEffects, own_sshd: Start
) -> None:
    server = own_sshd()
    none = Term("run", ("none", "forward"))
    assert live.shell(none, server.target(), "echo alone", "none", 10) == done(0, ["alone"])
    end = time.monotonic() + 5
    while server.sessions() and time.monotonic() < end:
        time.sleep(0.05)
    assert server.sessions() == []


def test_misuse_raises(live: LiveEffects, forward: Term, sshd: Sshd) -> None:
    with pytest.raises(TypeError, match="target"):
        live.shell(forward, Term("target", ("ftp", "h", [])), "true", "none", 10)
    with pytest.raises(TypeError, match="payload"):
        live.shell(forward, sshd.target(), "true", Term("tar", ()), 10)
    with pytest.raises(ValueError, match="phase"):
        live.shell(Term("run", ("none", "sideways")), sshd.target(), "true", "none", 10)


def test_nothing_is_printed_when_a_connection_fails(
    live: LiveEffects, forward: Term, sshd: Sshd, capfd: pytest.CaptureFixture[str]
) -> None:
    with listener(lambda sock, number: sock.close()) as port:
        live.shell(forward, sshd.target(ssh_port=port), "true", "none", 10)
    assert capfd.readouterr() == ("", "")


def test_an_extra_is_part_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    scan = files.scan_sources(str(tmp_path), [Pattern("a")])
    text = archive.shipment(scan, [Extra(".unifyweaver/port", 0o644, b"80")]).manifest
    assert [line.split(b"  ")[1] for line in text.splitlines()] == [b"a", b".unifyweaver/port"]


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux can be told to")
def test_what_arrives_is_acknowledged_at_once(sshd: Sshd) -> None:
    sock = sockets.dialled("127.0.0.1", sshd.port, socket.AF_UNSPEC, time.monotonic() + 5)
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        assert sock.recv(4) == b"SSH-"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1


def test_a_dead_link_is_noticed_by_the_socket(sshd: Sshd) -> None:
    sock = sockets.dialled("127.0.0.1", sshd.port, socket.AF_UNSPEC, time.monotonic() + 5)
    with sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
