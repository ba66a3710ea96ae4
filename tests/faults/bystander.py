"""A process of somebody else, whom nothing may happen to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Does nothing, and tells each signal that it gets. It has the name of the service's own process.
BYSTANDER = """
import signal, sys, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, lambda got, _: print(signal.Signals(got).name, flush=True))
print("ready", flush=True)
while True:
    time.sleep(60)
"""


class Bystander:
    """Of the same user, and looks like the service's own process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def suffered(self) -> list[str]:
        """What happened to it, in words. It is sent CONT, which must be the first signal that it gets."""
        if self._process.poll() is not None:
            return ["somebody else's process was ended"]
        os.kill(self._process.pid, signal.SIGCONT)
        assert self._process.stdout
        got = self._process.stdout.readline().strip()
        return [] if got == "SIGCONT" else [f"somebody else's process got {got}"]


@contextmanager
def bystander(folder: Path) -> Iterator[Bystander]:
    """One that works in this folder."""
    command = [sys.executable, "-c", BYSTANDER, "server.py", "--port", "1"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield Bystander(process)
        finally:
            process.kill()
