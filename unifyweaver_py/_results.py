"""What operations give back: frozen results with their events."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, cast

from unifyweaver_py._tables import Table
from unifyweaver_py._terms import Term, Value, write_term


@dataclass(frozen=True, slots=True)
class Event:
    """One step on one host.

    Attributes:
        time: when it began, in seconds since the epoch.
        host: the host's name.
        step: the step's id in the plan; ``result`` for the host's result at the end.
        outcome: ``ok``, ``failed(Reason)``, ``unknown(Reason)``, or the result itself.
        seconds: how long it took.
        notes: what was found on the way: ``probe(Url, StatusOrReason)``, ``log(Line)`` of the
            service's log, ``line(Text)`` of a command's output, and more.
    """

    time: float
    host: str
    step: str
    outcome: Value
    seconds: float
    notes: tuple[Value, ...]

    @property
    def ok(self) -> bool:
        """Whether the step was done."""
        return self.outcome == "ok"

    def __str__(self) -> str:
        return f"{self.host}: {self.step}: {text(self.outcome)} ({self.seconds:.2f} s)"


@dataclass(frozen=True)
class Result:
    """The outcome of an operation.

    Attributes:
        term: the result term, as the predicate of the same name gives it.
        ok: whether nobody was left worse than asked.
        events: the steps on all hosts, in order of time.
        run: the id by which the ledger knows it; None of what only looked.
    """

    term: Value
    ok: bool
    events: tuple[Event, ...] = ()
    run: str | None = None

    def __str__(self) -> str:
        return text(self.term)

    def __bool__(self) -> bool:
        return self.ok

    @property
    def hosts(self) -> dict[str, Value]:
        """The result of each host."""
        return {event.host: event.outcome for event in self.events if event.step == "result"}

    def seconds(self, host: str) -> float:
        """How long it took on a host, from its first step's beginning to its last one's end."""
        own = [event for event in self.events if event.host == host]
        return max((e.time + e.seconds for e in own), default=0) - min(
            (e.time for e in own), default=0
        )

    def _repr_html_(self) -> str:
        rows = [(host, own, f"{self.seconds(host):.2f}") for host, own in self.hosts.items()]
        hosts = Table(("host", "result", "seconds"), rows)._repr_html_()
        return f"<p><code>{escape(str(self))}</code></p>{hosts}"


@dataclass(frozen=True)
class HostResults(Result):
    """The outcome on several hosts; iterates over ``result(Host, Status)`` terms."""

    @property
    def hosts(self) -> dict[str, Value]:
        """The result of each host, also of those that nothing was done on."""
        return {str(each.args[0]): each.args[1] for each in self}

    def __iter__(self) -> Iterator[Term]:
        return iter(cast("list[Term]", self.term if isinstance(self.term, list) else []))

    def __len__(self) -> int:
        return len(list(iter(self)))


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What a host is like.

    Attributes:
        host: its name.
        release: the hash of the active release, ``none``, or ``unknown`` where it can't be reached.
        process: ``running``, ``stopped``, ``leaderless`` (the process that was started has ended and left others
            behind) or ``unreachable(Reason)``.
        health: ``healthy``, ``unhealthy`` or ``unknown``.
        since: when the process was started, in seconds since the epoch, or None.
        drift: ``none`` where the ledger says the same of the release, else ``drift(Known, Found)``.
    """

    host: str
    release: str
    process: Value
    health: str
    since: float | None
    drift: Value


@dataclass(frozen=True)
class FleetStatus(Result):
    """What all hosts of a service are like; iterates over `HostStatus`."""

    def __iter__(self) -> Iterator[HostStatus]:
        for row in self.term if isinstance(self.term, list) else []:
            match row:
                case Term(
                    "host_status", (str(host), str(release), process, str(health), since, drift)
                ):
                    started = None if since == "none" else float(since)  # type: ignore[arg-type]
                    yield HostStatus(host, release, process, health, started, drift)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _repr_html_(self) -> str:
        titles = ("host", "release", "process", "health", "since", "drift")
        rows = [
            (
                row.host,
                short(row.release),
                row.process,
                row.health,
                clock(row.since),
                short(row.drift),
            )
            for row in self
        ]
        return Table(titles, rows)._repr_html_()


def clock(seconds: float | None) -> str:
    """Return a time in seconds since the epoch for people to read, or ``-``."""
    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


Listener = Callable[[Any], None]
"""Called with an `Event` for each step that ended, and `Begin` for steps that begin."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Steps that begin on a host, as one script."""

    host: str
    steps: tuple[str, ...]


def text(value: Value) -> str:
    """Return a value as Prolog writes it, quoted where needed."""
    return write_term(value)


def short(value: Value) -> str:
    """Return a value as `text` does, hashes cut to eight digits, for people to read."""
    return shortened(text(value))


def shortened(words: str) -> str:
    """Return text with its hashes cut to eight digits."""
    return re.sub(r"'?([0-9a-f]{8})[0-9a-f]{56}(?:-[0-9a-f]{8})?'?", r"\1…", words)


class InterruptedOperation(KeyboardInterrupt):
    """Ctrl-C cancelled an operation, and what it had begun was undone; `result` tells what became of it."""

    def __init__(self, operation: str, service: str, result: Value) -> None:
        super().__init__(f"{operation} of {service}: {result}")
        self.result = result


def event_of(value: Any) -> Event | Begin:
    """Return the event of a term that Prolog emitted."""
    match value:
        case Term("event", (time, str(host), str(step), outcome, seconds, list(notes))):
            return Event(float(time), host, step, outcome, float(seconds), tuple(notes))  # type: ignore[arg-type]
        case Term("begin", (str(host), list(steps))):
            return Begin(host, tuple(str(step) for step in steps))
    raise TypeError(f"not an event: {value}")
