"""Ctrl-C, in a script and as Jupyter's interrupt: the first ends the waiting and begins the undo, a second one leaves.

Each situation of interrupted.py is interrupted three times, and sixty times by `make soak`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from tests.site import Site
from unifyweaver_py.demo.fleet import Fleet

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[1]
SECONDS = 0.5  # from the key to the end of the waiting
PATIENCE = 30.0  # until what is waited for in these tests

TIMES = [pytest.param(3, id="3 times"), pytest.param(60, id="60 times", marks=pytest.mark.soak)]
INTERRUPTS = ("KeyboardInterrupt", "InterruptedOperation")  # the second is one, with a result
WAITING = ["iteration", "query", "sleep"]
UNDOING = ["ssh", "health"]


class Log:
    """What an `Interrupted` tells, in another process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log"
        self._path.touch()
        self.said = folder / "said"
        self.said.touch()
        self._read = 0

    def next(self, what: str) -> float:
        """Wait for a line that begins so; returns its time. Nothing may have been missed before it."""
        return self.line(what)[0]

    def line(self, what: str) -> tuple[float, str]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            lines = self._path.read_text().split("\n")[self._read : -1]  # the last is not whole yet
            for line in lines:
                self._read += 1
                moment, told = line.split(" ", 1)
                assert not told.startswith("missed"), "Ctrl-C was lost"
                if told.startswith(what):
                    return float(moment), told
            assert not self.said.stat().st_size, self.said.read_text()
            time.sleep(0.005)
        raise AssertionError(f"{what} was not told in {PATIENCE} s: {self._path.read_text()}")


class Bench:
    """A fleet of two hosts, and the folder in which a process is told of it."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        self.log = Log(folder)
        hosts = {host.name: fleet.host_options(host) for host in fleet.hosts}
        (folder / "hosts.json").write_text(json.dumps(hosts, default=str))

    @contextmanager
    def script(self, situation: str, rounds: int) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "tests.interrupted", self.folder, situation, str(rounds)]
        with self.log.said.open("w") as said:
            process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a script that ends well and in silence."""
        process.wait(PATIENCE)
        assert (process.returncode, self.log.said.read_text()) == (0, "")

    def versions(self, link: str = "current") -> list[str]:
        """What each host serves, from the one whole release that is active; or that of another link."""
        found = []
        for host in self.fleet.hosts:
            release = host.folder / "services" / "web" / link
            for name in ("server.py", "BEHAVIOUR", ".unifyweaver/manifest"):
                assert (release / name).is_file()
            found.append((release / "VERSION").read_text())
            if link == "current":
                answer = requests.get(f"http://127.0.0.1:{host.service_port}/", timeout=5)
                assert answer.text == found[-1]
        return found


def key_pressed(process: int, after: float) -> float:
    """Send the signal of Ctrl-C, some time after; returns when."""
    time.sleep(after + random.uniform(0.0, 0.2))
    moment = time.monotonic()
    os.kill(process, signal.SIGINT)
    return moment


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Fleet(2) as fleet:
        yield Bench(fleet, tmp_path)


@pytest.mark.parametrize("rounds", TIMES)
@pytest.mark.parametrize("situation", [*WAITING, "check"])
def test_ctrl_c_ends_the_waiting_of_a_script(bench: Bench, situation: str, rounds: int) -> None:
    with bench.script(situation, rounds) as process:
        bench.log.next("ready")
        for _ in range(rounds):
            bench.log.next("waiting")
            pressed = key_pressed(process.pid, 0.05)
            assert bench.log.next("raised") - pressed < SECONDS
            bench.log.next("ready")
        bench.end(process)


@pytest.mark.parametrize("rounds", TIMES)
@pytest.mark.parametrize("situation", UNDOING)
def test_ctrl_c_begins_the_undo_of_a_script(bench: Bench, situation: str, rounds: int) -> None:
    with bench.script(situation, rounds) as process:
        bench.log.next("ready")
        for _ in range(rounds):
            for _ in bench.fleet.hosts:
                bench.log.next("waiting")
            pressed = key_pressed(process.pid, 0.2)
            for _ in bench.fleet.hosts:
                assert bench.log.next("undoing") - pressed < SECONDS
            bench.log.next("ready")
            assert bench.versions() == ["1", "1"]
        bench.end(process)


class Notebook:
    """A kernel in which an `Interrupted` waits."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient, folder: Path) -> None:
        self._manager = manager
        self._client = client
        self.run(f"from tests.interrupted import *; it = Interrupted(Path({str(folder)!r}))")

    def begin(self, code: str) -> None:
        self._cell = self._client.execute(code, stop_on_error=False)  # else the next may be dropped

    def ended(self) -> str:
        """Wait for the end of the cell; the name of what it raised, or nothing."""
        while True:
            reply = self._client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == self._cell:
                return str(reply["content"].get("ename", ""))

    def run(self, code: str) -> None:
        self.begin(code)
        assert self.ended() == ""

    def interrupt(self, after: float) -> float:
        time.sleep(after + random.uniform(0.0, 0.2))
        moment = time.monotonic()
        self._manager.interrupt_kernel()
        return moment


@pytest.fixture
def notebook(bench: Bench) -> Iterator[Notebook]:
    manager, client = start_new_kernel(cwd=str(ROOT))
    try:
        yield Notebook(manager, client, bench.folder)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("rounds", TIMES)
@pytest.mark.parametrize("situation", [*WAITING, "check"])
def test_jupyters_interrupt_ends_the_waiting_of_a_cell(
    bench: Bench, notebook: Notebook, situation: str, rounds: int
) -> None:
    notebook.run(f"it.begin({situation!r})")
    for _ in range(rounds):
        notebook.begin(f"it.once({situation!r})")
        bench.log.next("waiting")
        pressed = notebook.interrupt(0.05)
        assert bench.log.next("raised") - pressed < SECONDS
        assert notebook.ended() in INTERRUPTS
    notebook.run("assert uw.once('X = 1') == {'X': 1}")


@pytest.mark.parametrize("rounds", TIMES)
@pytest.mark.parametrize("situation", UNDOING)
def test_jupyters_interrupt_begins_the_undo_of_a_cell(
    bench: Bench, notebook: Notebook, situation: str, rounds: int
) -> None:
    notebook.run(f"it.begin({situation!r})")
    for _ in range(rounds):
        notebook.begin(f"it.once({situation!r})")
        for _ in bench.fleet.hosts:
            bench.log.next("waiting")
        pressed = notebook.interrupt(0.2)
        for _ in bench.fleet.hosts:
            assert bench.log.next("undoing") - pressed < SECONDS
        assert notebook.ended() in INTERRUPTS
        assert bench.versions() == ["1", "1"]


def test_ctrl_c_ends_the_waiting_for_a_host_that_never_answers(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {"user": "demo", "ssh_port": silent.getsockname()[1], "agent": False}
        (bench.folder / "hosts.json").write_text(json.dumps({"127.0.0.1": options}))
        with bench.script("plan", 6) as process:
            bench.log.next("ready")
            for _ in range(6):
                bench.log.next("waiting")
                pressed = key_pressed(process.pid, 0.2)
                assert bench.log.next("raised") - pressed < SECONDS
                bench.log.next("ready")
            bench.end(process)


def test_the_undo_has_a_time_limit_of_its_own(bench: Bench) -> None:
    with bench.script("long_undo", 1) as process:
        bench.log.next("ready")
        bench.log.next("waiting")
        pressed = key_pressed(process.pid, 0.2)
        bench.log.next("undoing")
        assert bench.log.next("raised") - pressed < 10
        bench.end(process)
    assert bench.versions() == ["1", "1"]


@pytest.mark.parametrize("rounds", [pytest.param(2, id="2 times"), *TIMES[1:]])
@pytest.mark.parametrize("then", ["back", "new", "same", "broken"])
def test_a_second_ctrl_c_leaves_at_once_and_the_next_run_knows(
    bench: Bench, then: str, rounds: int
) -> None:
    """Version 2 is active then, and never was confirmed: it is neither taken for deployed, nor gone back to."""
    site = Site(bench.folder / "site")
    for number in range(rounds if rounds < 60 else 15):
        with bench.script("undo", 1) as process:
            bench.log.next("ready")
            for _ in bench.fleet.hosts:
                bench.log.next("waiting")
            key_pressed(process.pid, 0.1)
            for _ in bench.fleet.hosts:
                bench.log.next("undoing")
            pressed = key_pressed(process.pid, 0.1)
            assert bench.log.next("raised") - pressed < SECONDS
            bench.end(process)
            assert time.monotonic() - pressed < 3
        assert bench.versions() == ["2", "2"]
        expected = {"back": "1", "new": f"new {number}", "same": "2", "broken": "1"}[then]
        if then in ("new", "broken"):
            site.release(f"{then} {number}", "broken" if then == "broken" else "healthy")
        with bench.script("back" if then == "back" else "next", 0) as process:
            _, told = bench.log.line("did")
            bench.end(process)
        results = {"back": "rolled_back(", "broken": "rolled_back_after_failure(rolled_back("}
        assert told.startswith(f"did {results.get(then, 'deployed')}"), told
        assert bench.versions() == [expected, expected]
        if then in ("new", "same"):
            assert bench.versions(".backup") == ["1", "1"]
