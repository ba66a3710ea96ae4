"""The ledger's file: how it is opened, and which tables it has.

The file tells the version of its schema. One of an older version is brought to this one when it is
opened, in one transaction; one of a newer is refused.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

BUSY_SECONDS = 30

OBSERVED = """
CREATE TABLE IF NOT EXISTS observed (
    service TEXT NOT NULL, host TEXT NOT NULL, dir TEXT NOT NULL,
    key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (service, host, dir, key)
) WITHOUT ROWID
"""
RUNS = """
CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY, service TEXT NOT NULL, operation TEXT NOT NULL,
    began REAL NOT NULL, ended REAL, result TEXT,
    hosts TEXT NOT NULL, releases TEXT NOT NULL DEFAULT '', about TEXT NOT NULL
) WITHOUT ROWID
"""
ENTRIES = """
CREATE TABLE entries (
    number INTEGER PRIMARY KEY, run TEXT NOT NULL, host TEXT NOT NULL,
    kind TEXT NOT NULL, time REAL NOT NULL, term TEXT NOT NULL
)
"""
FORGETTING = """
CREATE TRIGGER forget_entries AFTER DELETE ON runs
BEGIN DELETE FROM entries WHERE run = old.id; END
"""

# What brings a file from each version to the next one. Version 0 had the first table only.
STEPS = (
    (
        OBSERVED,
        "SELECT service, host, dir, key, value FROM observed LIMIT 0",  # a table of that name
        RUNS,
        "CREATE INDEX runs_of_service ON runs (service, began)",
        ENTRIES,
        "CREATE INDEX entries_of_run ON entries (run)",
        FORGETTING,
    ),
)
VERSION = len(STEPS)


def opened(path: Path) -> sqlite3.Connection:
    """Open a file, or begin one; its transactions are begun and ended by whoever uses it.

    Raises `sqlite3.Error` when it cannot be used, `sqlite3.NotSupportedError` when it is of a newer
    version.
    """
    import sqlite3

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None
    )
    try:
        _refuse_newer(_version(connection))
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        _bring_up(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _refuse_newer(version: int) -> None:
    import sqlite3

    if version > VERSION:
        raise sqlite3.NotSupportedError(
            f"a newer unifyweaver_py wrote it (in version {version} of its schema; this one knows "
            f"{VERSION})"
        )


def _bring_up(connection: sqlite3.Connection) -> None:
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)  # another process may have been quicker
        _refuse_newer(version)
        for statements in STEPS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Keep a write-ahead log. SQLite does not wait for another process that is about to do the same."""
    end = time.monotonic() + BUSY_SECONDS
    while not _tried(connection, last=time.monotonic() > end):
        time.sleep(0.01)


def _tried(connection: sqlite3.Connection, *, last: bool) -> bool:
    import sqlite3

    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if last or "locked" not in str(error):
            raise
        return False
    return True
