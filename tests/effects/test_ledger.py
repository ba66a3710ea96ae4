"""The ledger: durable, shared, and only text."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from unifyweaver_py._terms import PrologString, Term
from unifyweaver_py.effects import LiveEffects
from unifyweaver_py.effects.ledger import Ledger, default_path


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


def test_a_new_process_finds_what_a_killed_one_wrote(path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from unifyweaver_py._terms import Term\n"
        "from unifyweaver_py.effects.ledger import Ledger\n"
        "Ledger(sys.argv[1]).answer(Term('put', ('api', 'h', '/srv', 'hash', 'kept')))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=30)
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
