"""Hosts with breakpoints, and what can befall them: embedded ones in a process of their own, and those of a lab."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from tests.lab import lab, test_deploy

ROOT = Path(__file__).parents[2]
TARGET = Path(__file__).parent / "target"
SECONDS = 30.0


class Breakpoint:
    """The folder in which a script, or a controller, is told where to stop (see target/breakpoints.sh)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear(self) -> None:
        for name in ("at", "reached", "go", "steps"):
            (self.folder / name).unlink(missing_ok=True)

    def arm(self, point: str, step: str) -> None:
        self.clear()
        self._write("at", f"{point} {step}\n")

    @property
    def reached(self) -> bool:
        return (self.folder / "reached").exists()

    def go(self, how: str) -> None:
        self._write("go", f"{how}\n")

    def steps(self) -> list[str]:
        """The steps that scripts have begun since it was cleared."""
        path = self.folder / "steps"
        return path.read_text().split() if path.exists() else []

    def _write(self, name: str, text: str) -> None:
        new = self.folder / "new"
        new.write_text(text)
        new.rename(self.folder / name)


class Host:
    """A host under test; `services` is its folder of services, seen from here."""

    name: str
    options: dict[str, Any]
    services: Path
    breakpoint: Breakpoint

    @property
    def dir(self) -> Path:
        return self.services / "web"

    def cut(self) -> None:
        """Its connections are gone."""
        raise NotImplementedError

    def kill(self) -> None:
        """All that runs on it is gone, and its connections; it accepts new ones."""
        raise NotImplementedError

    def answer(self) -> str:
        """The version that the service answers with, or nothing."""
        raise NotImplementedError

    def servers(self) -> list[int]:
        """The pids of the service's processes."""
        raise NotImplementedError

    def fill(self) -> None:
        """Not a byte more can be written to its disk."""
        with (self.services / "filler").open("wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))
        with (self.services / "filler").open("ab", buffering=0) as file:
            try:
                file.write(b".")
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    return
        raise RuntimeError("the disk is not full")

    def free(self) -> None:
        (self.services / "filler").unlink(missing_ok=True)


class Embedded(Host):
    """One of the demo's hosts."""

    def __init__(self, name: str, options: dict[str, Any], folder: Path, process: Any) -> None:
        self.name, self.options, self._process = name, options, process
        self._home = folder
        inside = Path(f"/proc/{process.pid}/root")
        self.services = inside / folder.relative_to("/") / "services"
        self.breakpoint = Breakpoint(folder / ".faults")

    def cut(self) -> None:
        self._tell("cut")

    def kill(self) -> None:
        self._tell("kill")

    def answer(self) -> str:
        with suppress(requests.RequestException):
            return requests.get(f"http://127.0.0.1:{self.options['port']}/", timeout=5).text
        return ""

    def servers(self) -> list[int]:
        mark = f"HOME={self._home}".encode()
        found = []
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                marks = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if b"server.py" in words and mark in marks:
                    found.append(pid)
        return found

    def _tell(self, word: str) -> None:
        self._process.stdin.write(f"{word} {self.name}\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "done\n":
            raise RuntimeError(f"the fleet did not {word} {self.name}")


class Real(Host):
    """A host of a lab."""

    def __init__(self, host: lab.Host) -> None:
        self.name, self.options, self._host = host.address, {}, host
        self.breakpoint = Breakpoint(host.state / "faults" / ".faults")

    @property
    def services(self) -> Path:  # type: ignore[override]
        return self._host.srv / "services"

    def cut(self) -> None:
        self._host.cut()

    def kill(self) -> None:
        self._host.kill()
        self._host.start()

    def answer(self) -> str:
        return test_deploy.answer(self._host)

    def servers(self) -> list[int]:
        return test_deploy.servers(self._host)


@contextmanager
def real(host: lab.Host) -> Iterator[Host]:
    """A lab's host whose sshd runs all commands with breakpoints."""
    keys, folder = host.state / "authorized_keys", host.state / "faults"
    key = keys.read_text()
    shutil.copytree(TARGET, folder / "target")
    (folder / ".faults").mkdir()
    inside = "HOME=/run/faults PATH=/run/faults/target:$PATH"
    keys.write_text(f'command="{inside} exec sh -c \\"$SSH_ORIGINAL_COMMAND\\"" {key}')
    try:
        yield Real(host)
    finally:
        keys.write_text(key)
        shutil.rmtree(folder)


@contextmanager
def embedded(count: int, folder: Path) -> Iterator[list[Host]]:
    """So many embedded hosts, in a process and a mount namespace of their own."""
    unshare = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    command = [*unshare, sys.executable, "-m", "tests.faults.fleet", str(count), str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            told = json.loads(process.stdout.readline())
            yield [
                Embedded(name, options, folder / f"host{number}", process)
                for number, (name, options) in enumerate(told.items(), start=1)
            ]
        finally:
            process.stdin.close()
            process.wait(SECONDS)


def wait_until(condition: Any, what: str, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)
