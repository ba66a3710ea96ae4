"""The journal in the ledger: what was acknowledged is there, whoever is killed."""

from __future__ import annotations

import math
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from unifyweaver_py._terms import PrologString, TaggedDict, Term, Value, Var
from unifyweaver_py.effects import LiveEffects, journal, ledger, schema
from unifyweaver_py.effects.entries import read, written
from unifyweaver_py.effects.ledger import Ledger

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def kept(path: Path) -> Iterator[Ledger]:
    opened = Ledger(path)
    yield opened
    opened.close()


def begin(kept: Ledger, run: str, service: str = "web", began: float = 1.0) -> None:
    request = ("begin", (run, service, "stop_service", began, ["a", "b"], [Term("by", ("me",))]))
    assert kept.answer(Term(*request)) == "done"


def intend(kept: Ledger, run: str, host: str, *events: Term) -> None:
    request = Term("intent", (run, host, 5.0, ["stop"], "none", list(events)))
    assert kept.answer(request) == "done"


def rows(kept: Ledger, name: str, argument: Any) -> list[Any]:
    answer = kept.answer(Term(name, (argument,)))
    assert isinstance(answer, Term)
    return list(answer.args[0])  # type: ignore[arg-type]


def runs(kept: Ledger, **filters: Value) -> list[str]:
    chosen = [Term(name, (value,)) for name, value in filters.items()]
    return [run.args[0] for run in rows(kept, "runs", chosen)]


def event(time: float, host: str, step: str, *notes: Value) -> Term:
    return Term("event", (time, host, step, "ok", 0, list(notes)))


@pytest.mark.parametrize(
    "value",
    [
        "it's", "é\0\n\udc80\U0001f600", PrologString("\"é\0\udc80\""), "", [], ["a", [PrologString("b")]],
        10**40, -1, 0.1, math.inf, Fraction(1, 3), Var("_12"), Term("f", ()), Term("{}", (Term("-", (1,)),)),
        {"a": 1, 2: PrologString("x")}, TaggedDict("point", {"x": [Term("f", ("y",))]}),
        Term("string", ("not a string",)), ["term", ["f"]],
    ],
)  # fmt: skip
def test_terms_come_back_as_they_were(value: Value) -> None:
    text = written(value)
    assert text.isascii()
    assert "\n" not in text
    back = read(text)
    assert (type(back), back) == (type(value), value)
    assert written(back) == text


def test_what_is_no_term_is_refused() -> None:
    with pytest.raises(TypeError, match="not a term"):
        written(Term("f", (None,)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a term"):
        read('{"unheard": 1}')


def test_intent_stands_until_its_host_tells_more(kept: Ledger) -> None:
    begin(kept, "r")
    intend(kept, "r", "a", event(1.0, "a", "observe"))
    intend(kept, "r", "b")
    kept.answer(Term("events", ("r", "a", [event(5.5, "a", "stop")])))
    assert rows(kept, "entries", "r") == [
        event(1.0, "a", "observe"),
        Term("intent", (5.0, "b", ["stop"])),
        event(5.5, "a", "stop"),
    ]


def test_all_events_take_the_place_of_what_is_there_when_a_run_ends(kept: Ledger) -> None:
    begin(kept, "r")
    begin(kept, "other")
    intend(kept, "r", "a", event(1.0, "a", "observe"))
    intend(kept, "other", "a")
    whole = [event(1.0, "a", "observe"), event(1.0, "a", "first"), event(0.5, "b", "observe")]
    kept.answer(Term("end", ("r", 9.0, Term("error", ("x",)), whole)))
    assert rows(kept, "entries", "r") == [whole[2], *whole[:2]]
    assert len(rows(kept, "entries", "other")) == 1
    [run] = rows(kept, "runs", [Term("id", ("r",))])
    ended = (9.0, Term("error", ("x",)))
    assert run.args == (
        "r",
        "web",
        "stop_service",
        1.0,
        *ended,
        ["a", "b"],
        [],
        [Term("by", ("me",))],
    )


def test_run_that_raised_keeps_its_intents(kept: Ledger) -> None:
    begin(kept, "r")
    intend(kept, "r", "a")
    kept.answer(Term("end", ("r", 9.0, Term("raised", ("x",)), "unknown")))
    assert rows(kept, "entries", "r") == [Term("intent", (5.0, "a", ["stop"]))]
    assert runs(kept, unfinished="true") == []


def test_each_release_is_named_once(kept: Ledger) -> None:
    begin(kept, "r")
    for release in ("f00", "f0", "f00", "none"):
        kept.answer(Term("intent", ("r", "a", 5.0, ["switch"], release, [])))
    [run] = rows(kept, "runs", [])
    assert run.args[7] == ["f00", "f0"]


def test_newest_runs_of_each_service_are_kept(
    kept: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert journal.RUNS_KEPT == 1000
    monkeypatch.setattr(journal, "RUNS_KEPT", 3)
    begin(kept, "other", "other")
    for number in range(5):
        begin(kept, f"r{number}", began=float(number))
        intend(kept, f"r{number}", "a")
    assert runs(kept, service="web") == ["r4", "r3", "r2"]
    assert runs(kept, service="other") == ["other"]
    assert [len(rows(kept, "entries", f"r{number}")) for number in range(5)] == [0, 0, 1, 1, 1]


def test_unknown_filter_is_misuse(kept: Ledger) -> None:
    with pytest.raises(TypeError, match="colour"):
        runs(kept, colour="red")


# ---- commits ------------------------------------------------------------------------------------------------------


class Commits:
    """Each commit's number of changes; the first one waits until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.begun, self.go = threading.Event(), threading.Event()
        real = ledger._transaction

        def counting(connection: sqlite3.Connection, changes: Any) -> None:
            self.sizes.append(len(changes))
            if len(self.sizes) == 1:
                self.begun.set()
                assert self.go.wait(30)
            real(connection, changes)

        patch.setattr(ledger, "_transaction", counting)


def together(kept: Ledger, commits: Commits, requests: list[Term]) -> list[object]:
    """What is answered to each, asked while the first one's commit is under way."""
    answers: list[object] = [None] * len(requests)

    def ask(number: int) -> None:
        try:
            answers[number] = kept.answer(requests[number])
        except Exception as error:  # noqa: BLE001 - it is the answer
            answers[number] = error

    threads = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(len(requests))]
    threads[0].start()
    assert commits.begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    deadline = time.monotonic() + 30
    while len(kept._waiting) < len(requests) - 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    commits.go.set()
    for thread in threads:
        thread.join(30)
    return answers


def test_what_comes_while_a_commit_is_under_way_goes_into_the_next(
    kept: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(kept, "r")
    commits = Commits(monkeypatch)
    intents = [Term("intent", ("r", f"h{n}", 1.0, ["stop"], "none", [])) for n in range(21)]
    assert together(kept, commits, intents) == ["done"] * 21
    assert commits.sizes == [1, 20]
    assert len(rows(kept, "entries", "r")) == 21


def test_change_that_cannot_be_made_keeps_the_others_from_nothing(
    kept: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(kept, "r")
    commits = Commits(monkeypatch)
    begins = [Term("begin", (run, "web", "x", 1.0, [], [])) for run in ("a", "b", "r", "c")]
    answers = together(kept, commits, begins)
    assert answers[:2] + answers[3:] == ["done"] * 3
    assert isinstance(answers[2], sqlite3.IntegrityError)
    assert runs(kept) == ["r", "c", "b", "a"]


# ---- versions of the schema ---------------------------------------------------------------------------------------

FIRST = """
CREATE TABLE observed (
    service TEXT NOT NULL, host TEXT NOT NULL, dir TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (service, host, dir, key)
) WITHOUT ROWID;
INSERT INTO observed VALUES ('web', 'a', '/srv', 'deployed_hash', 'f00');
"""


def test_ledger_of_the_first_version_is_brought_up_with_what_it_holds(path: Path) -> None:
    with sqlite3.connect(path) as old:
        old.executescript(FIRST)
    old.close()
    ledgers = [Ledger(path) for _ in range(8)]
    threads = [
        threading.Thread(target=begin, args=(one, f"r{number}"))
        for number, one in enumerate(ledgers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    seen = ledgers[0].answer(Term("get", ("web", "deployed_hash")))
    assert seen == Term("rows", ([Term("row", ("a", "/srv", "f00"))],))
    assert len(runs(ledgers[0])) == 8
    assert ledgers[0]._connection().execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


def test_ledger_of_a_newer_version_is_refused_and_left_alone(
    path: Path, live: LiveEffects, forward: Term
) -> None:
    with sqlite3.connect(path) as newer:
        newer.executescript("PRAGMA user_version = 7; CREATE TABLE future (x);")
    newer.close()
    before = path.read_bytes()
    live.set_ledger(path)
    with pytest.raises(
        sqlite3.Error, match=r"a newer unifyweaver_py wrote it \(in version 7 of its schema"
    ):
        live.ledger(forward, Term("runs", ([],)))
    for request in (
        Term("begin", ("r", "web", "x", 1.0, [], [])),
        Term("intent", ("r", "a", 1.0, [], "none", [])),
        Term("events", ("r", "a", [])),
        Term("end", ("r", 1.0, "x", [])),
    ):
        assert str(live.ledger(forward, request)).startswith(f"failed(ledger_failed('{path}',")
    assert path.read_bytes() == before
    assert list(path.parent.glob("ledger*")) == [path]


# ---- writers that are killed --------------------------------------------------------------------------------------


def survive(path: Path, rounds: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    begin(Ledger(path), "r")
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed_writers", str(path), str(rounds), str(seed)],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=60 + rounds, check=True,
    )  # fmt: skip
    told = [line.split() for line in done.stdout.splitlines()]
    assert len(told) == 2 * rounds
    assert sum(int(number) >= 0 for _, number in told) >= rounds // 2
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for host, number in told:
            query = "SELECT kind, time FROM entries WHERE run = 'r' AND host = ? ORDER BY number"
            entries = connection.execute(query, (host,)).fetchall()
            events = [time for kind, time in entries if kind == "event"]
            assert events == list(range(len(events)))
            assert len(events) in (int(number) + 1, int(number) + 2)  # one more was not told
            assert entries[-1:] == ([("intent", events[-1])] if events else [])
    connection.close()
    assert list(path.parent.glob("*damaged*")) == []


def test_what_was_acknowledged_is_there_whenever_two_writers_are_killed(path: Path) -> None:
    survive(path, 30)


@pytest.mark.soak
def test_what_was_acknowledged_is_there_whenever_many_writers_are_killed(path: Path) -> None:
    survive(path, 1000)
