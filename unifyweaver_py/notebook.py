"""Results as HTML tables; Jupyter shows them by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from unifyweaver_py._results import Event, text

if TYPE_CHECKING:
    from unifyweaver_py._results import Result


@dataclass(frozen=True)
class Table:
    """Rows with a title for each column; prints as HTML in Jupyter."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __len__(self) -> int:
        return len(self.rows)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(str(column))}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(cell))}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


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


def result_html(result: Result) -> str:
    """Return a result and its hosts' own as HTML."""
    hosts = Table(
        ("host", "result", "seconds"),
        [(host, own, f"{_seconds(result, host):.2f}") for host, own in result.hosts.items()],
    )
    return f"<p><code>{escape(str(result))}</code></p>{hosts._repr_html_()}"


def _seconds(result: Result, host: str) -> float:
    times = [event.time + event.seconds for event in result.events if event.host == host]
    begins = [event.time for event in result.events if event.host == host]
    return max(times) - min(begins) if times else 0.0


def _cell(value: object) -> str:
    return value if isinstance(value, str) else text(value)  # type: ignore[arg-type]
