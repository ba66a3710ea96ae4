"""The public fake, the wiring of the predicates, and the effects that need no host."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from unifyweaver_py._terms import PrologString, Term
from unifyweaver_py.effects import LiveEffects, Run, install, new_run
from unifyweaver_py.testing import RecordingEffects, UnexpectedCallError, answer, using

RUN = Term("run", ("none", "forward"))
TARGET = Term("target", ("ssh", "a.example", []))
DONE = Term("done", (0, [], []))


class Registry:
    """Stands for the engine: keeps what is registered."""

    def __init__(self) -> None:
        self.predicates: dict[tuple[str, str, int], Callable[..., Any]] = {}

    def register(self, module: str, name: str, arity: int, function: Callable[..., Any]) -> None:
        self.predicates[module, name, arity] = function


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    install(registry)
    return registry


def test_the_predicates_of_the_door(registry: Registry) -> None:
    assert set(registry.predicates) == {
        ("deployment_effects", "live_shell", 6),
        ("deployment_effects", "live_probe", 4),
        ("deployment_effects", "live_balance", 4),
        ("deployment_effects", "live_scan", 5),
        ("deployment_effects", "live_seal", 3),
        ("deployment_effects", "live_secrets", 3),
        ("deployment_effects", "live_sleep", 3),
        ("deployment_effects", "live_emit", 3),
        ("deployment_effects", "live_ledger", 3),
        ("deployment_effects", "live_reconnect", 3),
    }


def test_the_predicates_ask_whoever_is_in_use(registry: Registry) -> None:
    sleep = registry.predicates["deployment_effects", "live_sleep", 3]
    fake = RecordingEffects(sleep=["cancelled"])
    with using(fake):
        assert sleep(RUN, 100) == "cancelled"
    assert [call.arguments for call in fake.calls] == [(100,)]
    assert sleep(RUN, 0) == "done"
    assert len(fake.calls) == 1


def test_answers_are_given_in_order_and_calls_recorded() -> None:
    fake = RecordingEffects(shell=[DONE, Term("failed", ("timeout",))])
    assert fake.shell(RUN, TARGET, "true", "none", 5) == DONE
    assert fake.shell(RUN, TARGET, "false", "none", 5) == Term("failed", ("timeout",))
    first, second = fake.calls_of("shell")
    assert first.arguments == (TARGET, "true", "none", 5)
    assert second.answer == Term("failed", ("timeout",))
    with pytest.raises(UnexpectedCallError, match="shell"):
        fake.shell(RUN, TARGET, "more", "none", 5)
    assert len(fake.calls) == 2


def test_a_function_may_answer() -> None:
    fake = RecordingEffects(
        probe=lambda run, target, request: answer(200, "ok", [("X-Version", "2")])
    )
    outcome = fake.probe(RUN, TARGET, Term("request", ("GET", "http://h/", [])))
    assert outcome.args[0] == 200
    assert outcome.args[1] == [Term("-", ("x-version", "2"))]
    assert isinstance(outcome.args[2], PrologString)


def test_what_was_not_foreseen_is_an_error() -> None:
    fake = RecordingEffects()
    with pytest.raises(UnexpectedCallError, match="scan"):
        fake.scan(RUN, "/src", ["*"], [])
    with pytest.raises(TypeError, match="teleport"):
        RecordingEffects(teleport=[])


@pytest.mark.alone
def test_what_needs_no_script() -> None:
    fake = RecordingEffects()
    begun = time.monotonic()
    assert fake.sleep(RUN, 100) == "done"
    assert time.monotonic() - begun < 1
    assert fake.emit(RUN, Term("begin", ("a",))) == "done"
    assert fake.events == [Term("begin", ("a",))]
    assert fake.ledger(RUN, Term("put", ("api", "h", "/srv", "hash", "1"))) == "done"
    assert fake.ledger(RUN, Term("get", ("api", "hash"))) == Term("rows", ([],))


def test_it_may_be_asked_from_several_threads() -> None:
    fake = RecordingEffects(shell=[Term("done", (n, [], [])) for n in range(200)])
    threads = [
        threading.Thread(target=lambda: [fake.shell(RUN, TARGET, "", "none", 1) for _ in range(20)])
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(call.answer.args[0] for call in fake.calls) == list(range(200))


def test_using_ends_with_an_error_too(registry: Registry) -> None:
    sleep = registry.predicates["deployment_effects", "live_sleep", 3]
    with pytest.raises(RuntimeError), using(RecordingEffects(sleep=["cancelled"])):
        raise RuntimeError
    assert sleep(RUN, 0) == "done"


@pytest.mark.alone
def test_sleeping_ends_with_the_run(live: LiveEffects, run: Run, forward: Term) -> None:
    threading.Timer(0.2, run.cancel.set).start()
    begun = time.monotonic()
    assert live.sleep(forward, 30) == "cancelled"
    assert time.monotonic() - begun < 1
    assert live.sleep(Term("run", (run.id, "undo")), 0.05) == "done"


def test_events_reach_the_listener(live: LiveEffects) -> None:
    events: list[Any] = []
    run = new_run(events.append)
    event = Term("begin", ("a.example", ["stage"]))
    assert live.emit(Term("run", (run.id, "forward")), event) == "done"
    run.close()
    assert events == [event]


def test_runs_are_told_apart() -> None:
    runs = [new_run() for _ in range(100)]
    assert len({run.id for run in runs}) == 100
    for run in runs:
        run.close()


def test_importing_the_effects_imports_nothing_heavy() -> None:
    script = (
        "import sys, unifyweaver_py.effects, unifyweaver_py.testing\n"
        "heavy = {'fabric', 'paramiko', 'requests', 'sqlite3', 'pyswip'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
