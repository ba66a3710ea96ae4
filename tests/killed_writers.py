"""Writers of a ledger that are killed: `python -m tests.killed_writers LEDGER ROUNDS SEED`.

In each round two processes write into one ledger at once, an intent after the other, until both are killed at a random
moment: in every other round behind the first one that was acknowledged. It prints a line with the host and the last
number that was acknowledged to each.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time

from unifyweaver_py._terms import Term
from unifyweaver_py.effects.ledger import Ledger

FIRST_SECONDS = 30
STEPS = ["stop", "switch", "start"]


def write(ledger: Ledger, host: str, acknowledged: int) -> None:
    for number in range(1_000_000):
        event = Term("event", (float(number), host, str(number), "ok", 0, []))
        ledger.answer(Term("intent", ("r", host, float(number), STEPS, "none", [event])))
        os.write(acknowledged, b"%8d" % number)


def begin(path: str, host: str) -> tuple[int, int]:
    """Fork a writer: its pid, and where it tells what was acknowledged."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        write(Ledger(path), host, writing)
    os.close(writing)
    return pid, reading


def last(reading: int) -> int:
    """The last number in the pipe; -1 where there is none."""
    told = b""
    while chunk := os.read(reading, 1 << 16):
        told += chunk
    os.close(reading)
    return int(told[-8:] or b"-1")


def main(path: str, rounds: int, seed: int) -> None:
    moments = random.Random(seed)
    for number in range(rounds):
        hosts = [f"h{number}-{which}" for which in range(2)]
        writers = [begin(path, host) for host in hosts]
        if number % 2:
            select.select([reading for _, reading in writers], [], [], FIRST_SECONDS)
        time.sleep(moments.uniform(0, 0.04))
        for pid, _ in writers:
            os.kill(pid, signal.SIGKILL)
        for host, (pid, reading) in zip(hosts, writers, strict=True):
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
            print(host, last(reading), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
