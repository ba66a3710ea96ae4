"""The contract of the effects, and what one operation keeps while it runs.

Rules decide, effects act: nothing here knows why a script is run. An effect never raises for what
happens in the world; it answers with a term. It raises for misuse.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from unifyweaver_py._terms import Term

POLL = 0.1
LEAVING_SECONDS = 0.5

Reason = str | Term
Result = TypeVar("Result")


class Effects(Protocol):
    """What the rules may ask of the world. The first argument is always `run(Id, Phase)`.

    `Phase` is `forward`, which ends when the run is cancelled, or `undo`, which ends only when it
    is abandoned.
    """

    def shell(
        self, run: Term, target: Term, script: str, payload: str | Term, seconds: float
    ) -> Term:
        """Run a script on `target(Method, Host, Options)` as one exec.

        The answer is `done(ExitStatus, Lines, ErrorLines)`, `failed(Reason)`: nothing was started,
        or `cut(Reason, Lines)`: it was started, and what it did is unknown.
        """

    def probe(self, run: Term, target: Term, request: Term) -> Term:
        """One HTTP request `request(Method, Url, Options)`: `answer(Status, Headers, Body)` or
        `failed(Reason)`.
        """

    def reconnect(self, run: Term, target: Term) -> str | Term:
        """Leave the connection to a target, and make another: `done` or `failed(Reason)`."""

    def balance(self, run: Term, address: str, request: Term) -> Term | str:
        """One request to HAProxy's runtime socket: `look(Backend)` or `poll(Backend)`, answered with
        `servers(Servers)`, or `set(Backend, Server, State)`, answered with `done`; or `failed(Reason)`.
        """

    def scan(self, run: Term, folder: str, patterns: Sequence[Any], needs: Sequence[str]) -> Term:
        """Hash the sources: `sources(Hash, FileCount, Bytes)` or `failed(Reason)`."""

    def seal(self, run: Term, value: str | Term) -> Term | str:
        """Keep a secret text: `sealed(Token)` stands for it; `refused` when it cannot be one. Of
        `env(Name)`, know that the variable's value is secret.
        """

    def secrets(self, run: Term, wanted: Sequence[Any]) -> Term:
        """Fetch the values of `Name-Source`: `sealed(Seals)`, `seal(Name, Source, Digest)` each, or
        `failed(Reason)`.
        """

    def sleep(self, run: Term, seconds: float) -> str:
        """Wait: `done`, or `cancelled` when the run ended before."""

    def emit(self, run: Term, event: Any) -> str:
        """Pass an event to the listener of the run: `done`."""

    def ledger(self, run: Term, request: Term) -> str | Term:
        """Read or write the ledger: `done` or `rows(Rows)`."""


@dataclass
class Traffic:
    """What went to one host and came back in a run. Bytes are those of scripts, payloads and their
    output.
    """

    connections: int = 0
    execs: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class Closable(Protocol):
    """A connection that a run keeps."""

    def close(self) -> None:
        """End it."""

    @property
    def alive(self) -> bool:
        """Whether it can still be used."""


def _ignore(event: Any) -> None:
    """The listener of a run without one."""


@dataclass
class Run:
    """One operation: its two stop flags, its listener, and its connections, one a host."""

    id: str
    listener: Callable[[Any], object] = _ignore
    cancel: threading.Event = field(default_factory=threading.Event)
    abandon: threading.Event = field(default_factory=threading.Event)
    traffic: dict[str, Traffic] = field(default_factory=dict)
    secrets: dict[Term, bytes] = field(default_factory=dict, repr=False)
    secrets_lock: threading.Lock = field(default_factory=threading.Lock)
    _connections: dict[object, Closable] = field(default_factory=dict)
    _locks: dict[object, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def stop_flag(self, phase: str) -> threading.Event:
        """The flag that ends effects of this phase. Raises `ValueError` for an unknown phase."""
        match phase:
            case "forward":
                return self.cancel
            case "undo":
                return self.abandon
        raise ValueError(f"no such phase: {phase}")

    def traffic_of(self, host: str) -> Traffic:
        """The counters of a host, as it is named in the target."""
        with self._lock:
            return self.traffic.setdefault(host, Traffic())

    def count(self, host: str, **more: int) -> None:
        """Add to the counters of a host."""
        traffic = self.traffic_of(host)
        with self._lock:
            for name, amount in more.items():
                setattr(traffic, name, getattr(traffic, name) + amount)

    def connection(
        self, key: object, connect: Callable[[], Any], stop: threading.Event, seconds: float
    ) -> Any:
        """The open connection for `key`; `connect` is called by one thread at a time when there is
        none.

        Raises `StoppedError` or `DeadlineError` when another thread's attempt outlasts the caller's
        patience.
        """
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        _acquire(lock, stop, time.monotonic() + seconds)
        try:
            known = self._connections.get(key)
            if known is not None and known.alive:
                return known
            if known is not None:
                known.close()
            return self._keep(key, connect())
        finally:
            lock.release()

    def disconnect(self, key: object) -> None:
        """Close the connection for `key`, if there is one."""
        with self._lock:
            known = self._connections.pop(key, None)
        if known is not None:
            known.close()

    def _keep(self, key: object, connection: Any) -> Any:
        with self._lock:
            if not self._closed:
                self._connections[key] = connection
                return connection
        connection.close()
        raise StoppedError

    def leave(self) -> None:
        """End what is under way, the undoing too, and wait for nothing: the effects have a moment
        to end what they began, and the connections are closed by a thread of its own.
        """
        self.cancel.set()
        self.abandon.set()
        connections = self._forget()

        def close() -> None:
            time.sleep(LEAVING_SECONDS)
            _close(connections)

        threading.Thread(target=close, name="unifyweaver-leave", daemon=True).start()

    def close(self) -> None:
        """Close the connections and forget the run."""
        _close(self._forget())

    def _forget(self) -> list[Closable]:
        with self._lock:
            self._closed = True
            connections = list(self._connections.values())
            self._connections.clear()
            self.secrets.clear()
        with _runs_lock:
            _runs.pop(self.id, None)
        return connections


def _close(connections: list[Closable]) -> None:
    for connection in connections:
        connection.close()


def _acquire(lock: threading.Lock, stop: threading.Event, deadline: float) -> None:
    while not lock.acquire(timeout=POLL):
        if stop.is_set():
            raise StoppedError
        if time.monotonic() > deadline:
            raise DeadlineError


_runs: dict[str, Run] = {}
_runs_lock = threading.Lock()


def new_run(listener: Callable[[Any], object] = _ignore) -> Run:
    """Begin an operation. Its `id` names it in Prolog; `close()` ends it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    run = Run(f"{stamp}-{secrets.token_hex(4)}", listener)
    with _runs_lock:
        _runs[run.id] = run
    return run


class Session:
    """The run and the stop flag that a `run(Id, Phase)` term names; `none`, or `none(Id)` where only
    the journal knows it, is a run of its own, closed at the end.
    """

    def __init__(self, term: Term) -> None:
        match term:
            case Term("run", ("none" | Term("none"), str(phase))):
                self.run, self._own = Run("none"), True
            case Term("run", (str(name), str(phase))):
                with _runs_lock:
                    known = _runs.get(name)
                if known is None:
                    raise LookupError(f"no such run: {name}")
                self.run, self._own = known, False
            case _:
                raise TypeError(f"not a run: {term}")
        self.stop = self.run.stop_flag(phase)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own:
            self.run.close()


class EffectError(Exception):
    """Something in the world prevented an effect; `reason` is the contract's term for it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class StoppedError(EffectError):
    """The run was cancelled (or abandoned, when undoing)."""

    def __init__(self) -> None:
        super().__init__("cancelled")


class DeadlineError(EffectError):
    """The time limit is over."""

    def __init__(self) -> None:
        super().__init__("timeout")


def unreachable(text: str) -> Term:
    """The reason `unreachable(Text)`, on one line."""
    return Term("unreachable", (" ".join(text.split()),))


def guarded(
    work: Callable[[], Result],
    stop: threading.Event,
    deadline: float,
    abort: Callable[[], None],
) -> Result:
    """The result of `work`, which runs in a thread of its own; what it raises is raised here.

    When `stop` is set or `deadline` (of `time.monotonic`) passes, `abort` is called, which should
    make `work` end soon, and `StoppedError` or `DeadlineError` is raised without waiting for it.
    """
    box: list[Result] = []
    raised: list[BaseException] = []
    ended = threading.Event()

    def worker() -> None:
        try:
            box.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to the caller whole
            raised.append(error)
        finally:
            ended.set()

    threading.Thread(target=worker, name="unifyweaver-effect", daemon=True).start()
    while not ended.wait(min(POLL, max(0.0, deadline - time.monotonic()))):
        overdue = time.monotonic() >= deadline
        if stop.is_set() or overdue:
            abort()
            raise DeadlineError if overdue and not stop.is_set() else StoppedError
    if raised:
        raise raised[0]
    return box[0]


def failed(reason: Reason) -> Term:
    """`failed(Reason)`: nothing was done."""
    return Term("failed", (reason,))


def options_of(terms: Sequence[Any]) -> dict[str, Any]:
    """The options of a list of `name(Value)` terms; the first of two wins. Raises `TypeError` for
    anything else.
    """
    options: dict[str, Any] = {}
    for term in terms:
        match term:
            case Term(str(name), (value,)):
                options.setdefault(name, value)
            case _:
                raise TypeError(f"not an option: {term}")
    return options


def is_true(value: object) -> bool:
    """Whether an option's value is the atom or Boolean `true`."""
    return value is True or value == "true"
