"""The journal: each operation's run, what it was about to do on each host, and what happened.

A run has entries: an `event` for each step that ended, and an `intent` for the steps that were
about to begin on a host, until it is told how they ended. When the run ends, the list of all its
events takes their place. A service keeps its newest `RUNS_KEPT` runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unifyweaver_py._terms import Term, Value
from unifyweaver_py.effects.entries import read, written

if TYPE_CHECKING:
    import sqlite3

    Change = Callable[[sqlite3.Connection], object]
    Question = tuple[str, Sequence[Any], Callable[[tuple[Any, ...]], Value]]

RUNS_KEPT = 1000

_INSERT = "INSERT INTO entries (run, host, kind, time, term) VALUES (?, ?, ?, ?, ?)"

_SURPLUS = """
DELETE FROM runs WHERE service = ? AND id IN
    (SELECT id FROM runs WHERE service = ? ORDER BY began DESC, id DESC LIMIT -1 OFFSET ?)
"""

_RELEASE = """
UPDATE runs SET releases = trim(releases || ' ' || ?)
WHERE id = ? AND instr(' ' || releases || ' ', ' ' || ? || ' ') = 0
"""

_SELECT = """
SELECT id, service, operation, began, ended, result, hosts, releases, about FROM runs
WHERE {where} ORDER BY began DESC, id DESC LIMIT ?
"""

_FILTERS = {
    "service": "service = ?",
    "operation": "operation = ?",
    "since": "began >= ?",
    "host": "instr(hosts, ?)",
    "unfinished": "(ended IS NULL) >= ?",
    "id": "id = ?",
}


def change(request: Term) -> Change | None:
    """Return what a request writes; None when it is none that writes.

    `begin(Run, Service, Operation, Time, Hosts, About)`: About is a list of terms that tell more.
    `intent(Run, Host, Time, Steps, Release, Events)`: Steps are about to begin; Release is the one
    that they make active, or `none`; Events are those of the host until then.
    `events(Run, Host, Events)`: Host's steps have ended.
    `end(Run, Time, Result, Events)`: Events are all of the run, or `unknown`.
    """
    match request:
        case Term("begin", (run, service, operation, time, list(hosts), list(about))):
            row = (run, service, operation, time, _hosts(hosts), written(about))
            return lambda connection: _begin(connection, row)
        case Term("intent", (run, host, time, list(steps), release, list(events))):
            rows = [*_events(run, events), (run, host, "intent", time, written(steps))]
            return lambda connection: _intend(connection, (run, host), release, rows)
        case Term("events", (run, host, list(events))):
            rows = list(_events(run, events))
            return lambda connection: _enter(connection, (run, host), rows)
        case Term("end", (run, time, result, events)):
            ended = (time, written(result), run)
            known = list(_events(run, events)) if isinstance(events, list) else None
            return lambda connection: _end(connection, ended, known)
    return None


def _hosts(hosts: Sequence[Value]) -> str:
    return json.dumps(hosts)


def _events(run: object, events: Iterable[Any]) -> Iterable[tuple[object, ...]]:
    for event in events:
        time, host = event.args[:2]
        yield (run, host, "event", float(time), written(event))


def _begin(connection: sqlite3.Connection, row: Sequence[Any]) -> None:
    connection.execute(
        "INSERT INTO runs (id, service, operation, began, hosts, about) VALUES (?, ?, ?, ?, ?, ?)",
        row,
    )
    connection.execute(_SURPLUS, (row[1], row[1], RUNS_KEPT))


def _intend(
    connection: sqlite3.Connection, of: tuple[Any, Any], release: Any, rows: Iterable[Any]
) -> None:
    _enter(connection, of, rows)
    if release != "none":
        connection.execute(_RELEASE, (release, of[0], release))


def _enter(connection: sqlite3.Connection, of: tuple[Any, Any], rows: Iterable[Any]) -> None:
    connection.execute("DELETE FROM entries WHERE run = ? AND host = ? AND kind = 'intent'", of)
    connection.executemany(_INSERT, rows)


def _end(connection: sqlite3.Connection, ended: Sequence[Any], events: list[Any] | None) -> None:
    connection.execute("UPDATE runs SET ended = ?, result = ? WHERE id = ?", ended)
    if events is not None:
        connection.execute("DELETE FROM entries WHERE run = ?", (ended[-1],))
        connection.executemany(_INSERT, events)


def question(request: Term) -> Question | None:
    """Return what a request reads: a statement, its values, and a row's term; None for any other.

    `runs(Filters)`, newest first: `service(S)`, `operation(O)`, `host(H)`, `since(Time)`, `id(Run)`,
    `unfinished(true)`, `limit(N)` give `run(Id, Service, Operation, Began, Ended, Result, Hosts,
    Releases, About)`; Ended and Result are `none` until the run has ended.
    `entries(Run)`, in order of time, gives events as they are and `intent(Time, Host, Steps)`.
    """
    match request:
        case Term("runs", (list(filters),)):
            return _runs({term.name: term.args[0] for term in filters})
        case Term("entries", (run,)):
            return (
                "SELECT host, kind, time, term FROM entries WHERE run = ? ORDER BY time, number",
                (run,),
                _entry,
            )
    return None


def _runs(filters: dict[str, Any]) -> Question:
    limit = filters.pop("limit", -1)
    if strange := set(filters) - set(_FILTERS):
        raise TypeError(f"not a filter of runs: {', '.join(sorted(strange))}")
    where = " AND ".join(["TRUE", *(_FILTERS[name] for name in filters)])
    values = [_value(name, value) for name, value in filters.items()]
    return _SELECT.format(where=where), [*values, limit], _run


def _value(name: str, value: Any) -> Any:
    match name:
        case "host":
            return json.dumps(value)
        case "unfinished":
            return value in (True, "true")
    return value


def _run(row: tuple[Any, ...]) -> Term:
    run, service, operation, began, ended, result, hosts, releases, about = row
    over = ("none", "none") if ended is None else (ended, read(result))
    told = (json.loads(hosts), releases.split(), read(about))
    return Term("run", (run, service, operation, began, *over, *told))


def _entry(row: tuple[Any, ...]) -> Value:
    host, kind, time, text = row
    told = read(text)
    return Term("intent", (time, host, told)) if kind == "intent" else told
