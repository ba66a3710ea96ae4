"""The ledger: what was last seen on each host, in SQLite. Nothing that decides is read from here.

One row a service, host, folder and key. Several processes may use the file at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unifyweaver_py._terms import Term

if TYPE_CHECKING:
    import sqlite3

SCHEMA = """
CREATE TABLE IF NOT EXISTS observed (
    service TEXT NOT NULL, host TEXT NOT NULL, dir TEXT NOT NULL,
    key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (service, host, dir, key)
) WITHOUT ROWID;
"""
BUSY_SECONDS = 30


def default_path() -> Path:
    """Where the ledger is: `UNIFYWEAVER_LEDGER`, else `unifyweaver/ledger.sqlite3` in the user's
    state folder.
    """
    chosen = os.environ.get("UNIFYWEAVER_LEDGER")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_state_dir("unifyweaver", appauthor=False)) / "ledger.sqlite3"


class Ledger:
    """A ledger file, opened when it is first used; its methods may be called from any thread."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = Path(path) if path is not None else None
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None

    def answer(self, request: Term) -> str | Term:
        """Perform one request.

        `put(Service, Host, Dir, Key, Value)` and `forget(Service, Key)` answer `done`;
        `get(Service, Key)` answers `rows([row(Host, Dir, Value), ...])` and `all(Key)` answers
        `rows([row(Service, Host, Dir, Value), ...])`. Raises `TypeError` for any other request,
        `sqlite3.Error` when the file cannot be read or written.
        """
        match request:
            case Term("put", (service, host, folder, key, value)):
                return self._change(
                    "INSERT OR REPLACE INTO observed VALUES (?, ?, ?, ?, ?)",
                    (_text(service), _text(host), _text(folder), _text(key), _text(value)),
                )
            case Term("forget", (service, key)):
                return self._change(
                    "DELETE FROM observed WHERE service = ? AND key = ?",
                    (_text(service), _text(key)),
                )
            case Term("get", (service, key)):
                return self._rows(
                    "SELECT host, dir, value FROM observed"
                    " WHERE service = ? AND key = ? ORDER BY host, dir",
                    (_text(service), _text(key)),
                )
            case Term("all", (key,)):
                return self._rows(
                    "SELECT service, host, dir, value FROM observed"
                    " WHERE key = ? ORDER BY service, host, dir",
                    (_text(key),),
                )
        raise TypeError(f"not a ledger request: {request}")

    def close(self) -> None:
        """Close the file; the next request opens it again."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def _change(self, statement: str, values: Sequence[object]) -> str:
        with self._lock, self._connection() as connection:
            connection.execute(statement, values)
        return "done"

    def _rows(self, statement: str, values: Sequence[object]) -> Term:
        with self._lock:
            rows = self._connection().execute(statement, values).fetchall()
        return Term("rows", ([Term("row", tuple(row)) for row in rows],))

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = _open(self._path or default_path())
        return self._open


def _open(path: Path) -> sqlite3.Connection:
    import sqlite3

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(SCHEMA)
    return connection


def _text(value: Any) -> str:
    """Text as it is, whether atom or string; another term as Prolog writes it."""
    return value if isinstance(value, str) else str(value)
