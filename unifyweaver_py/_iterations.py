"""Open iterations: each on a thread with a Prolog engine of its own, so that any thread may go on with it.

It is the question that goes to that thread, never the engine to another one: SWI-Prolog measures its C stack
against that of the thread that used an engine first, and aborts the process on a different one
(`stack_avail` in 9.0.4; its own engine_next/2 does no better).
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final, Protocol, TypeAlias

from unifyweaver_py._errors import PrologError
from unifyweaver_py._interrupts import Interrupts, PrologEngine
from unifyweaver_py._queries import Cursor, Queries
from unifyweaver_py._terms import Term, Value

_IDLE_CARRIERS: Final = 16

Rows: TypeAlias = list[dict[str, Value]]
Answer: TypeAlias = tuple[Rows, BaseException | None]


class Home(Protocol):
    """What iterations need of the engine of this process."""

    queries: Queries
    interrupts: Interrupts
    closed: str

    def attach(self) -> PrologEngine:
        """Make a Prolog engine, and have this thread use it."""

    def detach(self, engine: PrologEngine) -> None:
        """Destroy what `attach` made."""

    def interrupt(self, engine: PrologEngine) -> None:
        """Let an engine unwind what it runs."""

    def take_signals(self) -> None:
        """Drop what was sent too late to the engine of this thread."""

    def refusal(self) -> BaseException:
        """Why nothing can be asked any more."""


class Carrier:
    """A thread with a Prolog engine, which does what is put into its inbox, until it finds None."""

    def __init__(self, home: Home) -> None:
        self.inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        started: SimpleQueue[PrologEngine | BaseException] = SimpleQueue()
        self._thread = threading.Thread(
            target=self._serve, args=(home, started), name="prolog-query", daemon=True
        )
        self._thread.start()
        prolog = started.get()
        if isinstance(prolog, BaseException):
            raise prolog
        self.prolog = prolog

    def _serve(self, home: Home, started: SimpleQueue[PrologEngine | BaseException]) -> None:
        try:
            prolog = home.attach()
        except BaseException as error:  # noqa: BLE001 the thread that waits raises it
            started.put(error)
            return
        started.put(prolog)
        while (work := self.inbox.get()) is not None:
            work()
            del work  # what it belongs to may be forgotten while this thread waits
        home.detach(prolog)

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(seconds)


class Iterations:
    """The open iterations of this process, and the carriers that wait for one."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._idle: deque[Carrier] = deque()
        self._open: weakref.WeakSet[Iteration] = weakref.WeakSet()

    def open(self, goal: str | Term, bindings: Mapping[str, Value], module: str) -> Iteration:
        """Return the solutions of a goal, none of which has been asked for."""
        try:
            carrier = self._idle.pop()
        except IndexError:
            carrier = Carrier(self.home)
        iteration = Iteration(self, carrier, (goal, bindings, module))
        self._open.add(iteration)
        return iteration

    def give_back(self, carrier: Carrier) -> None:
        """Keep a carrier that has nothing to do, or end it."""
        if len(self._idle) < _IDLE_CARRIERS and not self.home.closed:
            self._idle.append(carrier)
        else:
            carrier.inbox.put(None)

    @property
    def busy(self) -> list[PrologEngine]:
        """The engines that run something."""
        return [each.carrier.prolog for each in list(self._open) if each.busy or each.leaving]

    def close(self, seconds: float) -> None:
        """End what is open and what is idle, and wait for it as long as this."""
        deadline = monotonic() + seconds
        for iteration in list(self._open):
            iteration.end(max(0.0, deadline - monotonic()))
        ending = list(self._idle)
        self._idle.clear()
        for carrier in ending:
            carrier.inbox.put(None)
        for carrier in ending:
            carrier.join(max(0.0, deadline - monotonic()))


class Iteration:
    """The solutions of one goal. One thread at a time may ask, whichever it is."""

    def __init__(
        self,
        iterations: Iterations,
        carrier: Carrier,
        goal: tuple[str | Term, Mapping[str, Value], str],
    ) -> None:
        self.carrier = carrier
        self.more = True
        self.busy = False
        self.leaving = False
        self._iterations = iterations
        self._goal = goal
        self._cursor: Cursor | None = None
        self._ended = False
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._endings: SimpleQueue[Answer] = SimpleQueue()

    def chunk(self) -> Rows:
        """Return the next solutions; `more` tells whether to ask again."""
        home = self._iterations.home
        if self._ended or home.closed:
            raise home.refusal()
        self.busy = True
        self.carrier.inbox.put(self._fetch)
        rows, error = home.interrupts.receive(self._answers)
        if error is None:
            return rows
        try:
            raise error
        finally:
            del error  # and with it the frames that its traceback holds

    def end(self, seconds: float | None = None) -> None:
        """Close the query, and wait until it is: as long as this, or as long as it takes.

        Where Ctrl-C has ended the waiting for an answer, Prolog is told to stop, and not waited for.
        """
        if self._ended:
            return
        self._ended = True
        self.more = False
        home = self._iterations.home
        if home.closed:
            return
        if self.busy:
            self.leaving = True
            home.interrupt(self.carrier.prolog)
            self.carrier.inbox.put(self._leave)
        elif self._cursor is not None and self._cursor.open:
            self.carrier.inbox.put(self._close)
            self._closed(seconds)
        else:
            self._iterations.give_back(self.carrier)

    def _closed(self, seconds: float | None) -> None:
        try:
            _, error = self._endings.get(timeout=seconds)
        except Empty:
            return
        if error is not None:
            raise error

    # On the carrier

    def _fetch(self) -> None:
        rows: Rows = []
        error: BaseException | None = None
        try:
            rows = self._next()
        except BaseException as raised:  # noqa: BLE001 the thread that waits raises it again
            error = raised
        self.busy = False
        self._answers.put((rows, error))
        del error

    def _next(self) -> Rows:
        cursor = self._cursor
        if cursor is None:
            cursor = self._cursor = self._iterations.home.queries.open(*self._goal)
        rows = cursor.chunk()
        self.more = cursor.more
        if not cursor.more:
            cursor.close()
        return rows

    def _close(self) -> None:
        error: BaseException | None = None
        try:
            self._shut()
        except BaseException as raised:  # noqa: BLE001 the thread that waits raises it again
            error = raised
        self._iterations.give_back(self.carrier)
        self._endings.put(([], error))
        del error

    def _leave(self) -> None:
        """Do what `_close` does, when nobody waits any more."""
        with suppress(PrologError, SystemExit):  # nobody is left to be told what a cleanup raised
            self._shut()
        self._iterations.home.take_signals()
        self.leaving = False
        self._iterations.give_back(self.carrier)

    def _shut(self) -> None:
        if self._cursor is not None and self._cursor.open:
            self._cursor.close()
