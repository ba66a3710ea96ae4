"""Scripts on this machine: the method `local`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from sshd import once_there

from unifyweaver_py._terms import Term
from unifyweaver_py.effects import LiveEffects, Run

MB = 1 << 20
HERE = Term("target", ("local", "localhost", []))


def done(status: int, lines: list[str], errors: list[str] | None = None) -> Term:
    return Term("done", (status, lines, errors or []))


@pytest.fixture
def payload(live: LiveEffects, forward: Term, tmp_path: Path) -> Term:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "data").write_bytes(os.urandom(20 * MB))
    scan = live.scan(forward, str(folder), ["data"], [])
    return Term("release", (str(folder), ["data"], scan.args[0], [], "none"))


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds; a zombie has ended."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_a_script_answers_with_its_status_and_lines(
    live: LiveEffects, run: Run, forward: Term
) -> None:
    outcome = live.shell(forward, HERE, "echo one; echo oops >&2; exit 3", "none", 10)
    assert outcome == done(3, ["one"], ["oops"])
    assert (run.traffic["localhost"].connections, run.traffic["localhost"].execs) == (0, 1)


def test_a_payload_arrives_whole(
    live: LiveEffects, forward: Term, payload: Term, tmp_path: Path
) -> None:
    script = (
        f"mkdir {tmp_path}/out && cd {tmp_path}/out && tar -xof - && "
        "sha256sum -c .unifyweaver/manifest"
    )
    assert live.shell(forward, HERE, script, payload, 30) == done(0, ["data: OK"])


def test_complaints_do_not_block_the_payload(
    live: LiveEffects, forward: Term, payload: Term
) -> None:
    script = "head -c 1000000 /dev/zero | tr '\\0' e >&2; wc -c >/dev/null; echo read"
    outcome = live.shell(forward, HERE, script, payload, 30)
    assert outcome.args[:2] == (0, ["read"])


def test_a_script_that_ends_early_still_answers(
    live: LiveEffects, run: Run, forward: Term, payload: Term
) -> None:
    outcome = live.shell(forward, HERE, "echo no; exit 7", payload, 30)
    assert outcome == done(7, ["no"])
    assert run.traffic["localhost"].bytes_sent < 20 * MB


def test_a_script_that_closes_its_streams_is_waited_for(live: LiveEffects, forward: Term) -> None:
    begun = time.monotonic()
    outcome = live.shell(
        forward, HERE, "exec >/dev/null 2>&1 </dev/null; sleep 0.5; exit 4", "none", 9
    )
    assert outcome == done(4, [])
    assert time.monotonic() - begun > 0.4


def test_a_process_left_behind_does_not_hold_the_exec(
    live: LiveEffects, forward: Term, tmp_path: Path
) -> None:
    begun = time.monotonic()
    script = f"sleep 20 & echo $! >{tmp_path}/pid; echo started"
    assert live.shell(forward, HERE, script, "none", 20) == done(0, ["started"])
    assert time.monotonic() - begun < 3
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_it_runs_in_a_session_of_its_own_in_the_home_folder(
    live: LiveEffects, forward: Term, tmp_path: Path
) -> None:
    outcome = live.shell(forward, HERE, "cut -d' ' -f6 /proc/$$/stat; pwd", "none", 10)
    session, folder = outcome.args[1]
    assert int(session) != os.getsid(0)
    assert Path(folder).samefile(tmp_path / "home")


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "])
def test_cancelling_ends_the_script_and_its_children(
    live: LiveEffects, run: Run, forward: Term, tmp_path: Path, stubborn: str
) -> None:
    script = f"{stubborn}sleep 60 & echo $! >{tmp_path}/pid; echo begun; wait; sleep 60"
    once_there(tmp_path / "pid", lambda: (time.sleep(0.2), run.cancel.set()))
    begun = time.monotonic()
    outcome = live.shell(forward, HERE, script, "none", 30)
    assert outcome == Term("cut", ("cancelled", ["begun"]))
    assert time.monotonic() - begun < 5
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_service_in_its_own_session_survives_a_cancel(
    live: LiveEffects, run: Run, forward: Term, tmp_path: Path
) -> None:
    script = (
        f"setsid sh -c 'echo $$ >{tmp_path}/pid; exec sleep 20' >/dev/null 2>&1 </dev/null & "
        "sleep 60"
    )
    once_there(tmp_path / "pid", run.cancel.set)
    assert live.shell(forward, HERE, script, "none", 30).name == "cut"
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)
    os.kill(pid, 9)


def test_the_time_limit(live: LiveEffects, forward: Term, payload: Term) -> None:
    begun = time.monotonic()
    outcome = live.shell(forward, HERE, "echo begun; sleep 60", payload, 0.5)
    assert outcome == Term("cut", ("timeout", ["begun"]))
    assert time.monotonic() - begun < 1.5


def test_a_script_killed_by_a_signal_is_a_cut(live: LiveEffects, forward: Term) -> None:
    outcome = live.shell(forward, HERE, "echo so far; kill -9 $$", "none", 10)
    assert outcome == Term("cut", (Term("unreachable", ("ended by signal 9",)), ["so far"]))


def test_a_cancelled_run_starts_nothing(
    live: LiveEffects, run: Run, forward: Term, tmp_path: Path
) -> None:
    run.cancel.set()
    outcome = live.shell(forward, HERE, f"touch {tmp_path}/ran", "none", 10)
    assert outcome == Term("failed", ("cancelled",))
    assert not (tmp_path / "ran").exists()


def test_a_machine_without_sh_has_started_nothing(
    live: LiveEffects, forward: Term, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    outcome = live.shell(forward, HERE, "true", "none", 10)
    assert outcome.name == "failed"


def test_no_descriptor_is_left_open(live: LiveEffects, forward: Term) -> None:
    live.shell(forward, HERE, "true", "none", 10)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        live.shell(forward, HERE, "echo x; echo y >&2", "none", 10)
    assert len(os.listdir("/proc/self/fd")) == before
