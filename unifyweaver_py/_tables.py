"""Tables that show as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from unifyweaver_py._terms import Value, write_term


@dataclass(frozen=True)
class Table:
    """Rows with a title for each column; Jupyter shows it as an HTML table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]

    def __len__(self) -> int:
        return len(self.rows)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(cell))}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Value) -> str:
    return value if isinstance(value, str) else write_term(value)
