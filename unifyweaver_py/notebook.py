"""Tables for notebooks; the results of operations show as tables by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unifyweaver_py._results import Event, text
from unifyweaver_py._tables import Table

__all__ = ["Table", "events_table", "table"]


def table(solutions: Iterable[Mapping[str, Any]]) -> Table:
    """Return the solutions of a query as a table: ``table(query("service_host(S, H, _)"))``."""
    rows = list(solutions)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return Table(columns, [[row.get(name, "") for name in columns] for row in rows])


def events_table(events: Iterable[Event]) -> Table:
    """Return the events of a result as a table."""
    return Table(
        ("host", "step", "outcome", "seconds", "notes"),
        [
            (e.host, e.step, e.outcome, f"{e.seconds:.2f}", "; ".join(map(text, e.notes)))
            for e in events
        ],
    )
