"""Scripts on this machine (method `local`): the same interface and answers as over SSH."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO

from unifyweaver_py._terms import Term
from unifyweaver_py.effects.base import (
    POLL,
    DeadlineError,
    EffectError,
    Run,
    StoppedError,
    failed,
    unreachable,
)
from unifyweaver_py.effects.scripts import Output, command_line, followed, framed

BLOCK = 1 << 16
TERM_GRACE = 0.3
OUTPUT_GRACE = 0.5


def run_script(
    run: Run,
    host: str,
    script: str,
    *,
    payload: Iterable[bytes],
    seconds: float,
    stop: threading.Event,
    sudo: bool = False,
) -> Term:
    """Run the script with `sh` in a session of its own, in the user's home; `payload` follows it on
    standard input.

    The answer is as `Effects.shell` says. When `seconds` are over or `stop` is set, the processes
    of that session's first group get TERM, and KILL 0.3 s later.
    """
    text = framed(script)
    words = shlex.split(command_line(text, sudo=sudo))
    if stop.is_set():
        return failed("cancelled")
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=os.path.expanduser("~"),
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        return failed(unreachable(str(error)))
    run.count(host, execs=1)
    conversation = _Conversation(process, followed(text, payload, BLOCK))
    try:
        return conversation.hold(time.monotonic() + seconds, stop)
    finally:
        conversation.end()
        run.count(host, bytes_sent=conversation.sent, bytes_received=conversation.output.received)


class _Conversation:
    """Writes to a process and reads what it says at the same time, in one thread."""

    def __init__(self, process: subprocess.Popen[bytes], blocks: Iterator[bytes]) -> None:
        self.process = process
        self.blocks = blocks
        self.output = Output()
        self.sent = 0
        self._unsent = memoryview(b"")
        self._selector = selectors.DefaultSelector()
        self._listen(process.stdin, selectors.EVENT_WRITE, self._write)
        self._listen(process.stdout, selectors.EVENT_READ, self._reader(self.output.out))
        self._listen(process.stderr, selectors.EVENT_READ, self._reader(self.output.error))

    def _listen(
        self, stream: IO[bytes] | None, event: int, act: Callable[[IO[bytes]], None]
    ) -> None:
        if stream is not None:
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, event, (stream, act))

    def hold(self, deadline: float, stop: threading.Event) -> Term:
        """Until the process and its output have ended, or it has to end."""
        try:
            status = self._talk(deadline, stop)
        except EffectError as error:
            self._kill()
            return self.output.cut(error.reason)
        if status < 0:
            return self.output.cut(unreachable(f"ended by signal {-status}"))
        return self.output.done(status)

    def _talk(self, deadline: float, stop: threading.Event) -> int:
        while (status := self.process.poll()) is None:
            if stop.is_set():
                raise StoppedError
            now = time.monotonic()
            if now > deadline:
                raise DeadlineError
            self._step(min(POLL, deadline - now))
        self._close(self.process.stdin)
        # A process left behind may hold the streams open for as long as it lives.
        end = time.monotonic() + OUTPUT_GRACE
        while self._selector.get_map() and (left := end - time.monotonic()) > 0:
            self._step(left)
        return status

    def _step(self, seconds: float) -> None:
        if not self._selector.get_map():
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
            return
        for key, _ in self._selector.select(max(0.0, seconds)):
            stream, act = key.data
            act(stream)

    def _write(self, stream: IO[bytes]) -> None:
        if not self._unsent:
            self._unsent = memoryview(next(self.blocks, b""))
        if not self._unsent:
            self._close(stream)
            return
        try:
            written = os.write(stream.fileno(), self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self._close(stream)
            return
        self.sent += written
        self._unsent = self._unsent[written:]

    def _reader(self, take: Callable[[bytes], None]) -> Callable[[IO[bytes]], None]:
        def read(stream: IO[bytes]) -> None:
            with suppress(BlockingIOError):
                data = os.read(stream.fileno(), BLOCK)
                if data:
                    take(data)
                else:
                    self._close(stream)

        return read

    def _close(self, stream: IO[bytes] | None) -> None:
        if stream is not None and not stream.closed:
            self._selector.unregister(stream)
            stream.close()

    def _kill(self) -> None:
        """TERM to the group, then KILL to what is left of it; the leader is reaped last, so its
        number stays ours.
        """
        pid = self.process.pid
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
        end = time.monotonic() + TERM_GRACE
        while time.monotonic() < end and not _ended(pid):
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Close the streams."""
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            self._close(stream)
        self._selector.close()


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
