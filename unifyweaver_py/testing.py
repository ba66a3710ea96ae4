"""Effects that touch nothing: they record what was asked and answer from a script. For your own
tests.

    fake = RecordingEffects(
        shell=[Term("done", (0, [], []))],
        probe=lambda run, target, request: answer(200),
    )
    with using(fake):
        deploy_service("api")
    assert fake.calls_of("shell")[0].arguments[0] == Term("target", ("ssh", "a.example", []))
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unifyweaver_py._terms import PrologString, Term
from unifyweaver_py.effects import PREDICATES, using

__all__ = ["Call", "RecordingEffects", "UnexpectedCallError", "answer", "using"]

Answers = Iterable[Any] | Callable[..., Any]

DEFAULTS: dict[str, Any] = {
    "sleep": "done",
    "emit": "done",
    "reconnect": "done",
    "seal": Term("sealed", ("unknown",)),
}


class UnexpectedCallError(AssertionError):
    """An effect was asked for that the script has no answer to."""


@dataclass(frozen=True)
class Call:
    """One effect that was asked for: its name, its run, its arguments and the answer it got."""

    name: str
    run: Term
    arguments: tuple[Any, ...]
    answer: Any


def answer(status: int, body: str = "", headers: Sequence[tuple[str, str]] = ()) -> Term:
    """The outcome of a probe that was answered."""
    pairs = [
        Term("-", (PrologString(name.lower()), PrologString(value))) for name, value in headers
    ]
    return Term("answer", (status, pairs, PrologString(body)))


class RecordingEffects:
    """A fake of the effects.

    Each keyword is the name of an effect (shell, probe, balance, scan, seal, secrets, sleep, emit,
    ledger, reconnect), its value either the answers in order or a function called with the run and the
    effect's arguments. `sleep`, `emit` and `reconnect` answer `done` by default, `seal` keeps no value,
    and `ledger` remembers nothing; asking for anything
    else raises `UnexpectedCallError`. Raises `TypeError` for a name that is no effect.
    """

    def __init__(self, **script: Answers) -> None:
        unknown = set(script) - set(PREDICATES)
        if unknown:
            raise TypeError(f"no such effect: {', '.join(sorted(unknown))}")
        self._script = {
            name: answers if callable(answers) else iter(list(answers))
            for name, answers in script.items()
        }
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    @property
    def calls(self) -> list[Call]:
        """Everything asked for so far, in order."""
        with self._lock:
            return list(self._calls)

    def calls_of(self, name: str) -> list[Call]:
        """What was asked for of one effect."""
        return [call for call in self.calls if call.name == name]

    @property
    def events(self) -> list[Any]:
        """The events emitted so far."""
        return [call.arguments[0] for call in self.calls_of("emit")]

    def shell(
        self, run: Term, target: Term, script: str, payload: str | Term, seconds: float
    ) -> Any:
        """Answer from the script."""
        return self._answer("shell", run, target, script, payload, seconds)

    def probe(self, run: Term, target: Term, request: Term) -> Any:
        """Answer from the script."""
        return self._answer("probe", run, target, request)

    def balance(self, run: Term, address: str, request: Term) -> Any:
        """Answer from the script."""
        return self._answer("balance", run, address, request)

    def scan(self, run: Term, folder: str, patterns: Sequence[Any], needs: Sequence[str]) -> Any:
        """Answer from the script."""
        return self._answer("scan", run, folder, patterns, needs)

    def seal(self, run: Term, value: str | Term) -> Any:  # noqa: ARG002 - a record would show it
        """Answer from the script, else `sealed(unknown)`; the value is not recorded."""
        return self._answer("seal", run)

    def secrets(self, run: Term, wanted: Sequence[Any]) -> Any:
        """Answer from the script."""
        return self._answer("secrets", run, wanted)

    def sleep(self, run: Term, seconds: float) -> Any:
        """Answer from the script, else `done` at once."""
        return self._answer("sleep", run, seconds)

    def emit(self, run: Term, event: Any) -> Any:
        """Answer from the script, else `done`."""
        return self._answer("emit", run, event)

    def reconnect(self, run: Term, target: Term) -> Any:
        """Answer from the script, else `done`."""
        return self._answer("reconnect", run, target)

    def ledger(self, run: Term, request: Term) -> Any:
        """Answer from the script, else as an empty ledger that forgets."""
        return self._answer("ledger", run, request)

    def _answer(self, name: str, run: Term, *arguments: Any) -> Any:
        with self._lock:
            scripted = self._script.get(name)
            given = None if callable(scripted) else self._next(name, scripted, arguments)
        if callable(scripted):
            given = scripted(run, *arguments)
        with self._lock:
            self._calls.append(Call(name, run, arguments, given))
        return given

    def _next(self, name: str, scripted: Any, arguments: tuple[Any, ...]) -> Any:
        if scripted is not None:
            for given in scripted:
                return given
        elif name in DEFAULTS:
            return DEFAULTS[name]
        elif name == "ledger":
            reading = arguments[0].name in ("get", "all")
            return Term("rows", ([],)) if reading else "done"
        raise UnexpectedCallError(f"{name}{arguments}")
