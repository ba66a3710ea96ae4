"""Runs of operations, as the ledger has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unifyweaver_py._results import Event, clock, event_of, text
from unifyweaver_py._tables import Table
from unifyweaver_py._terms import Term, Value


@dataclass(frozen=True, slots=True)
class Run:
    """One operation that acted.

    Attributes:
        id: what `run_events` takes; the token of the operation's locks too.
        service: the service's name.
        operation: the predicate's name.
        call: the operation as it was asked for, with its options.
        by: ``user@host``.
        machine, pid, born: the process that did it, see ``deployment_controllers``.
        file: whose declaration of the service counted, ``user`` for that of a call.
        file_hash: the SHA-256 of the file when it was loaded.
        hosts: their names.
        releases: the hashes of those that were made active, or found to be so.
        began, ended: in seconds since the epoch; `ended` is None when that is not recorded.
        result: as the operation gave it, ``raised(Error)`` where it raised; None when there is none.
    """

    id: str
    service: str
    operation: str
    call: Value
    by: str
    machine: str
    pid: int
    born: int
    file: str
    file_hash: str | None
    hosts: tuple[str, ...]
    releases: tuple[str, ...]
    began: float
    ended: float | None
    result: Value | None

    @property
    def release(self) -> str | None:
        """The release, where it was one."""
        return self.releases[0] if len(self.releases) == 1 else None

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return None if self.ended is None else self.ended - self.began

    def __str__(self) -> str:
        became = "unfinished" if self.result is None else text(self.result)
        return f"{self.id} {text(self.call)} by {self.by}: {became}"


@dataclass(frozen=True, slots=True)
class Intent:
    """Steps that were about to begin together on a host, of which no more is known."""

    time: float
    host: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.host}: {', '.join(self.steps)}: begun, and not known to have ended"


class Runs(list[Run]):
    """Runs, the newest first; Jupyter shows them as a table."""

    def _repr_html_(self) -> str:
        return Table(COLUMNS, [row(run) for run in self])._repr_html_()


COLUMNS = ("run", "began", "seconds", "operation", "service", "by", "release", "result")


def row(run: Run) -> tuple[str, ...]:
    """Return the run's cells for `COLUMNS`."""
    return (
        run.id,
        clock(run.began),
        "" if run.seconds is None else f"{run.seconds:.2f}",
        run.operation,
        run.service,
        run.by,
        " ".join(release[:8] for release in run.releases),
        "unfinished" if run.result is None else text(run.result),
    )


def run_of(term: Any) -> Run:
    """Return the run of a term ``run(Id, Properties)``."""
    run, properties = term.args
    known: dict[str, Any] = {one.name: one.args[0] for one in properties if isinstance(one, Term)}
    releases = tuple(one.args[0] for one in properties if getattr(one, "name", "") == "release")
    known = {"file_hash": None, "ended": None, "result": None, **known}
    known.pop("release", None)
    hosts = tuple(known.pop("hosts"))
    return Run(id=run, hosts=hosts, releases=releases, **known)


def entry_of(term: Any) -> Event | Intent:
    """Return the entry of a term of ``run_events/2``."""
    match term:
        case Term("intent", (float(time), str(host), list(steps))):
            return Intent(time, host, tuple(str(step) for step in steps))
    event = event_of(term)
    if not isinstance(event, Event):
        raise TypeError(f"not an entry of a run: {term}")
    return event


def runs_of(terms: Sequence[Any]) -> Runs:
    """Return the runs of terms."""
    return Runs(run_of(term) for term in terms)
