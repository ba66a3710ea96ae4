"""The ledger: what was last seen on each host, and the journal, in SQLite. Nothing that decides is
read from here.

Of what was seen, one row a service, host, folder and key; `journal` tells of the other. Several
processes may use the file at once. A file that is no ledger, or damaged, is set aside under another
name, with a warning, and a new one is begun.

What is answered is on the disk. What threads write while a commit is under way goes into the next
one together.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unifyweaver_py._terms import Term
from unifyweaver_py.effects import journal
from unifyweaver_py.effects.schema import opened

if TYPE_CHECKING:
    import sqlite3

DAMAGE = ("not a database", "malformed")
"""What SQLite says of a file that is damaged, or is none of its own."""

WRITING = ("put", "begin", "intent", "events", "end")
"""The requests that are made while something is being done, which they must not keep from its end."""

Found = TypeVar("Found")

_LOG = logging.getLogger("unifyweaver_py.ledger")


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
        self._waiting: deque[_Change] = deque()
        self._open: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def answer(self, request: Term) -> str | Term:
        """Perform one request.

        `put(Service, Host, Dir, Key, Value)` and `forget(Service, Key)` answer `done`;
        `get(Service, Key)` answers `rows([row(Host, Dir, Value), ...])` and `all(Key)` answers
        `rows([row(Service, Host, Dir, Value), ...])`. The journal's requests that write answer
        `done`, those that read `rows(Rows)`. Raises `TypeError` for any other request,
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
        if (change := journal.change(request)) is not None:
            return self._write(change)
        if (question := journal.question(request)) is not None:
            statement, values, term = question
            return Term("rows", ([term(row) for row in self._read(statement, values)],))
        raise TypeError(f"not a ledger request: {request}")

    def close(self) -> None:
        """Close the file; the next request opens it again."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path or default_path()

    def _change(self, statement: str, values: Sequence[object]) -> str:
        return self._write(lambda connection: connection.execute(statement, values))

    def _write(self, work: Callable[[sqlite3.Connection], object]) -> str:
        change = _Change(work)
        self._waiting.append(change)
        with self._lock:
            if not change.over:
                self._commit([self._waiting.popleft() for _ in range(len(self._waiting))])
        if not change.over:
            raise RuntimeError("the commit was interrupted")
        if change.error is not None:
            raise change.error
        return "done"

    def _commit(self, changes: Sequence[_Change]) -> None:
        """Write changes in one transaction. What only one of them may be the reason of keeps the
        others from nothing; what keeps the file from being written keeps all.
        """
        import sqlite3

        error = self._tried(changes)
        alone = error is None or isinstance(error, (sqlite3.OperationalError, OSError))
        for change in changes:
            change.error = error if alone or len(changes) == 1 else self._tried([change])
            change.over = True

    def _tried(self, changes: Sequence[_Change]) -> Exception | None:
        try:
            self._do(lambda connection: _transaction(connection, changes))
        except Exception as error:  # noqa: BLE001 - raised where the change was asked for
            return error
        return None

    def _rows(self, statement: str, values: Sequence[object]) -> Term:
        return Term("rows", ([Term("row", row) for row in self._read(statement, values)],))

    def _read(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._do(lambda connection: connection.execute(statement, values).fetchall())

    def _do(self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        """Work on the open file; when it turns out to be damaged, on a new one."""
        import sqlite3

        try:
            return work(self._connection())
        except sqlite3.DatabaseError as error:
            if not any(words in str(error) for words in DAMAGE):
                raise
            self._set_aside(error)
        return work(self._connection())

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            self._identity = _identity(self.path)
            self._open = opened(self.path)
            self._identity = self._identity or _identity(self.path)
        return self._open

    def _set_aside(self, error: Exception) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        aside = _moved_aside(self.path, self._identity)
        if aside is None:
            return
        _LOG.warning(
            "The ledger %s is damaged (%s) and was set aside as %s. Nothing that decides was in it: "
            "what is deployed is asked of the hosts.",
            self.path,
            error,
            aside,
        )


@dataclass(eq=False, slots=True)
class _Change:
    """What is to be written, and what became of it."""

    work: Callable[[sqlite3.Connection], object]
    over: bool = False
    error: Exception | None = None


def _transaction(connection: sqlite3.Connection, changes: Sequence[_Change]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for change in changes:
            change.work(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _moved_aside(path: Path, identity: tuple[int, int] | None) -> Path | None:
    """Give the file and what SQLite keeps beside it another name; None where another process was quicker."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # who else finds it damaged waits, and looks again
        if not _identity(path) == identity == _identity_of(os.fstat(descriptor)):
            return None
        aside = _unused(
            path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        )
        for companion in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                path.with_name(path.name + companion).rename(
                    aside.with_name(aside.name + companion)
                )
    finally:
        os.close(descriptor)
    return aside


def _unused(path: Path) -> Path:
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        return _identity_of(path.stat())
    except OSError:
        return None


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _text(value: Any) -> str:
    """Text as it is, whether atom or string; another term as Prolog writes it."""
    return value if isinstance(value, str) else str(value)
