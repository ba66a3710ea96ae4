"""Ctrl-C while Python's main thread runs Prolog.

Python delivers a signal to the main thread between two of its instructions: while the thread is
inside Prolog, never; on the way into a foreign predicate, where an exception would be lost. So
for the time of a query SIGINT has a handler that takes a note, or raises where it is safe: inside
the function behind a foreign predicate. Meanwhile a second thread reads the wake-up pipe, on
which the signal arrives at once, and has Prolog unwind the query.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from time import monotonic
from types import FrameType
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

# `signal` without its enumerations, whose conversions cost as much as a query.
_quick: Any = sys.modules.get("_signal", signal)

_SETTLE: Final = 0  # no signal has this number, nor the next
_CLOSE: Final = 255
_SETTLE_SECONDS: Final = 1.0
_ECHO_SECONDS: Final = 0.02


class PrologEngine(NamedTuple):
    """A Prolog engine: its handle, and the identifier by which Prolog code knows it."""

    handle: int
    thread: int


class Interrupts:
    """Turns SIGINT on the main thread into the end of the query that runs there.

    Args:
        send: makes a Prolog engine unwind what it runs; called on another thread.
        drain: has an engine, idle by now, take what was sent too late for its query.
    """

    def __init__(
        self, send: Callable[[PrologEngine], None], drain: Callable[[PrologEngine], None]
    ) -> None:
        self.active = False
        self.flagged = False
        self.inside = False
        self._watching = False
        self._send = send
        self._drain = drain
        self._engines: list[PrologEngine] = []
        self._sent = False
        self._echo_until = 0.0
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._main = threading.main_thread().ident or 0
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._outer_wakeup = -1
        self._watcher: threading.Thread | None = None

    def run(self, engine: PrologEngine, work: Callable[..., T], *args: Any) -> T:
        """Run `work`, which uses this Prolog engine, on the main thread.

        Raises:
            KeyboardInterrupt: SIGINT arrived, whether or not the query noticed.
        """
        if self.active:
            return self._run_nested(engine, work, args)
        previous = _quick.getsignal(signal.SIGINT)
        if not self._watching or not callable(previous):
            return work(*args)
        if self._watcher is None:
            self._start()
        self.flagged = False
        _quick.signal(signal.SIGINT, self._note)
        self._outer_wakeup = _quick.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._begin(engine)
        try:
            result = work(*args)
        finally:
            with self._lock:
                self.active = False
            if self.flagged or self._sent:
                self._settle()
                self._drain(engine)
            _quick.set_wakeup_fd(self._outer_wakeup)
            _quick.signal(signal.SIGINT, previous)
        if self.flagged:
            raise KeyboardInterrupt
        return result

    def receive(self, inbox: SimpleQueue[T]) -> T:
        """Wait for a message; SIGINT raises at once on the main thread, whoever else wants it.

        Raises:
            KeyboardInterrupt: SIGINT arrived.
        """
        if threading.get_ident() != self._main or self.active:
            return inbox.get()
        previous = _quick.getsignal(signal.SIGINT)
        if previous is signal.default_int_handler or not callable(previous):
            return inbox.get()
        _quick.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return inbox.get()
        finally:
            _quick.signal(signal.SIGINT, previous)

    def _start(self) -> None:
        watcher = threading.Thread(target=self._watch, name="ctrl-c", daemon=True)
        watcher.start()
        self._watcher = watcher

    def open(self) -> None:
        """Prolog is ready to be interrupted."""
        self._watching = True

    def close(self) -> None:
        """End the second thread; from now on Ctrl-C has to wait for the end of a query."""
        self._watching = False
        if self._watcher is not None:
            os.write(self._write, bytes([_CLOSE]))
            self._watcher.join(_SETTLE_SECONDS)

    def _begin(self, engine: PrologEngine) -> None:
        self.inside = False
        self._sent = False
        self._echo_until = 0.0
        self._engines = [engine]
        self.active = True

    def _run_nested(self, engine: PrologEngine, work: Callable[..., T], args: tuple[Any, ...]) -> T:
        inside, self.inside = self.inside, False
        self._engines.append(engine)
        try:
            result = work(*args)
        finally:
            with self._lock:
                self._engines.pop()
            if self._sent and engine not in self._engines:
                self._drain(engine)
            self.inside = inside
        if self.flagged:
            raise KeyboardInterrupt
        return result

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        first = not self.flagged
        self.flagged = True
        if self.inside and (first or monotonic() > self._echo_until):
            raise KeyboardInterrupt

    def _settle(self) -> None:
        """Let the watcher read what it was sent, so that none of it hits the next query.

        Twice, for its last signal may have come back to it after the first time.
        """
        for _ in range(2):
            self._settled.clear()
            os.write(self._write, bytes([_SETTLE]))
            self._settled.wait(_SETTLE_SECONDS)

    def _watch(self) -> None:
        while data := os.read(self._read, 512):
            for number in data:
                if number == _CLOSE:
                    return
                if number == _SETTLE:
                    self._settled.set()
                    continue
                if number == signal.SIGINT:
                    self._interrupt()
                self._forward(number)

    def _interrupt(self) -> None:
        with self._lock:
            if not self.active or self.inside or monotonic() < self._echo_until:
                return
            self._sent = True
            self._send(self._engines[-1])
            self._echo_until = monotonic() + _ECHO_SECONDS
        # A builtin that sleeps or reads looks for its interrupt only when a signal wakes it up.
        signal.pthread_kill(self._main, signal.SIGINT)

    def _forward(self, number: int) -> None:
        if self._outer_wakeup < 0:
            return
        try:
            os.write(self._outer_wakeup, bytes([number]))
        except OSError:  # full, or closed since: its reader is awake or gone
            self._outer_wakeup = -1


@contextmanager
def deferred() -> Iterator[None]:
    """Let SIGINT wait for the end of the block, which must not be left half done.

    Raises:
        KeyboardInterrupt: when the block has ended, for any SIGINT in it.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    noted = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal noted
        noted = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if noted:
        raise KeyboardInterrupt


@contextmanager
def attended(on_interrupt: Callable[[], object]) -> Iterator[None]:
    """For the time of the block, on the main thread, the first SIGINT calls `on_interrupt`; later ones raise.

    Raises:
        KeyboardInterrupt: at the second SIGINT, and at any later one.
    """
    count = 0

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt
        on_interrupt()

    previous = signal.getsignal(signal.SIGINT)
    if not callable(previous):
        yield
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
