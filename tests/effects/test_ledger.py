"""The ledger: durable, shared, and only text."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from unifyweaver_py._terms import PrologString, Term
from unifyweaver_py.effects import LiveEffects
from unifyweaver_py.effects.ledger import Ledger, _moved_aside, default_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite3"


def put(ledger: Ledger, *values: object) -> None:
    assert ledger.answer(Term("put", values)) == "done"


def get(ledger: Ledger, service: str, key: str) -> list[tuple[object, ...]]:
    outcome = ledger.answer(Term("get", (service, key)))
    assert isinstance(outcome, Term)
    return [row.args for row in outcome.args[0]]


def test_what_was_put_last_is_what_is_got(path: Path) -> None:
    ledger = Ledger(path)
    put(ledger, "api", "b", "/srv", "hash", "1")
    put(ledger, "api", "a", "/srv", "hash", "2")
    put(ledger, "api", "a", "/srv", "hash", "3")
    put(ledger, "api", "a", "/opt", "hash", "4")
    put(ledger, "api", "a", "/srv", "other", "5")
    assert get(ledger, "api", "hash") == [
        ("a", "/opt", "4"),
        ("a", "/srv", "3"),
        ("b", "/srv", "1"),
    ]
    assert get(ledger, "web", "hash") == []


def test_all_services(path: Path) -> None:
    ledger = Ledger(path)
    put(ledger, "web", "h", "/srv", "hash", "2")
    put(ledger, "api", "h", "/srv", "hash", "1")
    rows = ledger.answer(Term("all", ("hash",)))
    expected = [Term("row", ("api", "h", "/srv", "1")), Term("row", ("web", "h", "/srv", "2"))]
    assert rows == Term("rows", (expected,))


def test_forgetting_a_service_leaves_the_others(path: Path) -> None:
    ledger = Ledger(path)
    put(ledger, "api", "h", "/srv", "hash", "1")
    put(ledger, "web", "h", "/srv", "hash", "2")
    assert ledger.answer(Term("forget", ("api", "hash"))) == "done"
    assert get(ledger, "api", "hash") == []
    assert get(ledger, "web", "hash") == [("h", "/srv", "2")]


@pytest.mark.parametrize("text", ["", "é", "a'; DROP TABLE observed; --", "new\nline", "nul\0"])
def test_any_text_is_kept_whole(path: Path, text: str) -> None:
    ledger = Ledger(path)
    put(ledger, text, text, text, "key", PrologString(text))
    assert get(ledger, text, "key") == [(text, text, text)]


def write_and_be_killed(path: Path) -> None:
    """A process of its own keeps a hash there, and ends before it can close the ledger."""
    script = (
        "import os, signal, sys\n"
        "from unifyweaver_py._terms import Term\n"
        "from unifyweaver_py.effects.ledger import Ledger\n"
        "Ledger(sys.argv[1]).answer(Term('put', ('api', 'h', '/srv', 'hash', 'kept')))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=30)


def test_a_new_process_finds_what_a_killed_one_wrote(path: Path) -> None:
    write_and_be_killed(path)
    assert get(Ledger(path), "api", "hash") == [("h", "/srv", "kept")]


def write_many(path: str, name: str) -> None:
    ledger = Ledger(path)
    for number in range(20):
        ledger.answer(Term("put", (name, str(number), "/srv", "hash", "x")))


def test_several_processes_may_write_at_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=write_many, args=(str(path), f"s{number}")) for number in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    ledger = Ledger(path)
    assert [len(get(ledger, f"s{number}", "hash")) for number in range(4)] == [20] * 4


def test_several_threads_may_write_at_once(path: Path) -> None:
    ledger = Ledger(path)
    threads = [
        threading.Thread(target=put, args=(ledger, "api", str(n), "/srv", "hash", "x"))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(get(ledger, "api", "hash")) == 20


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    flipped = bytes(byte ^ 255 for byte in content[4096:])
    spoiled = {
        "none of SQLite's": b"no ledger" * 1000,
        "cut": content[:5000],
        "cut in its header": content[:70],
        "flipped": content[:4096] + flipped,
    }
    path.write_bytes(spoiled[how])


def set_aside(path: Path) -> list[Path]:
    """The files that were this ledger, without what SQLite keeps beside them."""
    found = path.parent.glob(f"{path.name}.damaged-*")
    return [file for file in found if not file.name.endswith(("-wal", "-shm"))]


@pytest.fixture
def full(path: Path) -> Path:
    """A ledger with something in it, closed."""
    ledger = Ledger(path)
    for number in range(100):
        put(ledger, "api", str(number), "/srv", "hash", "x" * 100)
    ledger.close()
    return path


@pytest.mark.parametrize("how", ["none of SQLite's", "cut", "cut in its header", "flipped"])
def test_a_damaged_file_is_set_aside_whole_with_a_warning(
    full: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    spoil(full, how)
    damaged = full.read_bytes()
    ledger = Ledger(full)
    assert get(ledger, "api", "hash") == []
    put(ledger, "api", "h", "/srv", "hash", "1")
    assert get(ledger, "api", "hash") == [("h", "/srv", "1")]
    [aside] = set_aside(full)
    assert aside.read_bytes() == damaged
    assert f"The ledger {full} is damaged (" in caplog.text
    assert f") and was set aside as {aside}. " in caplog.text


def test_what_was_not_yet_written_into_a_damaged_file_is_set_aside_with_it(path: Path) -> None:
    write_and_be_killed(path)
    log = path.with_name("ledger.sqlite3-wal").read_bytes()
    assert b"kept" in log
    identity = path.stat().st_dev, path.stat().st_ino
    aside = _moved_aside(path, identity)
    assert aside is not None
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == log
    assert not path.exists()
    assert get(Ledger(aside), "api", "hash") == [("h", "/srv", "kept")]


def test_files_that_are_damaged_within_one_second_keep_names_of_their_own(full: Path) -> None:
    for number in range(3):
        full.write_bytes(b"damaged %d" % number * 1000)
        ledger = Ledger(full)
        assert get(ledger, "api", "hash") == []
        ledger.close()
    kept = sorted(file.read_bytes()[:9] for file in set_aside(full))
    assert kept == [b"damaged 0", b"damaged 1", b"damaged 2"]


def read_once(path: str, start: float) -> None:
    ledger = Ledger(path)
    while time.time() < start:
        time.sleep(0.001)
    ledger.answer(Term("put", ("api", str(os.getpid()), "/srv", "hash", "x")))
    ledger.close()


def test_a_file_that_several_processes_find_damaged_is_set_aside_once(full: Path) -> None:
    spoil(full, "none of SQLite's")
    context = multiprocessing.get_context("spawn")
    start = time.time() + 3
    readers = [context.Process(target=read_once, args=(str(full), start)) for _ in range(6)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0] * 6
    assert len(set_aside(full)) == 1
    assert len(get(Ledger(full), "api", "hash")) == 6


def test_what_another_process_has_begun_anew_is_not_set_aside(full: Path) -> None:
    identity = full.stat().st_dev, full.stat().st_ino
    full.unlink()
    assert _moved_aside(full, identity) is None
    put(Ledger(full), "api", "h", "/srv", "hash", "new")
    another = identity[0], identity[1] + 1_000_000
    assert _moved_aside(full, another) is None
    assert get(Ledger(full), "api", "hash") == [("h", "/srv", "new")]


def test_what_cannot_be_used_is_told_with_its_name_and_left_alone(
    tmp_path: Path, live: LiveEffects, forward: Term
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    foreign = tmp_path / "foreign.sqlite3"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE observed (something_else)")
    for path in (folder, foreign):
        live.set_ledger(path)
        told = f"the ledger {path} cannot be used: .*; move it away, or name another with UNIFYWEAVER_LEDGER"
        with pytest.raises(sqlite3.Error, match=told):
            live.ledger(forward, Term("get", ("api", "hash")))
        outcome = live.ledger(forward, Term("put", ("api", "h", "/srv", "hash", "1")))
        assert str(outcome).startswith(f"failed(ledger_failed('{path}',")
    assert folder.is_dir()
    with sqlite3.connect(foreign) as connection:
        assert connection.execute("SELECT * FROM observed").fetchall() == []


def test_it_is_written_through(path: Path) -> None:
    ledger = Ledger(path)
    put(ledger, "api", "h", "/srv", "hash", "1")
    connection = ledger._connection()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIFYWEAVER_LEDGER", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    if sys.platform == "linux":
        assert default_path() == tmp_path / "state/unifyweaver/ledger.sqlite3"
    monkeypatch.setenv("UNIFYWEAVER_LEDGER", str(tmp_path / "mine.db"))
    assert default_path() == tmp_path / "mine.db"
    Ledger().answer(Term("put", ("api", "h", "/srv", "hash", "1")))
    assert (tmp_path / "mine.db").exists()


def test_another_file_may_be_chosen(tmp_path: Path, live: LiveEffects, forward: Term) -> None:
    live.ledger(forward, Term("put", ("api", "h", "/srv", "hash", "1")))
    live.set_ledger(tmp_path / "other.sqlite3")
    assert live.ledger(forward, Term("get", ("api", "hash"))) == Term("rows", ([],))


def test_an_unknown_request_is_misuse(path: Path) -> None:
    with pytest.raises(TypeError, match="drop"):
        Ledger(path).answer(Term("drop", ("api",)))
