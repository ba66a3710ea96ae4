"""What the rules ask of the world, done for real: SSH, HTTP, processes, files, the clock and the
ledger.

`install` gives Prolog the predicates `live_NAME(Run, ..., Outcome)` of the module
`deployment_effects`. `using` puts another implementation in their place, such as
`unifyweaver_py.testing.RecordingEffects`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from unifyweaver_py._terms import Term
from unifyweaver_py.effects import clock
from unifyweaver_py.effects.archive import Base, Extra, shipment_stream, touched_paths
from unifyweaver_py.effects.base import (
    EffectError,
    Effects,
    Run,
    Session,
    Traffic,
    failed,
    is_true,
    new_run,
    options_of,
)
from unifyweaver_py.effects.files import Scanner
from unifyweaver_py.effects.ledger import WRITING, Ledger
from unifyweaver_py.effects.manifests import ManifestCache
from unifyweaver_py.effects.patterns import Pattern, SourcesError
from unifyweaver_py.effects.secret_sources import SecretError
from unifyweaver_py.effects.vault import own_vault, pairs_of

__all__ = [
    "Effects",
    "LiveEffects",
    "Run",
    "Traffic",
    "install",
    "new_run",
    "set_ledger",
    "using",
]

# Name of the effect -> arity of its predicate: the run, the arguments, the outcome.
PREDICATES = {
    "shell": 6,
    "probe": 4,
    "balance": 4,
    "scan": 5,
    "seal": 3,
    "secrets": 3,
    "sleep": 3,
    "emit": 3,
    "ledger": 3,
    "reconnect": 3,
}
MODULE = "deployment_effects"
METHODS = ("ssh", "local")
REUSE = ("copy", "link")


class Registry(Protocol):
    """What `install` needs of the engine."""

    def register(self, module: str, name: str, arity: int, function: Callable[..., Any]) -> None:
        """Define a predicate whose last argument is what the function returns."""


class LiveEffects:
    """The effects on real hosts; `Effects` says what each answers."""

    def __init__(self, ledger_path: str | os.PathLike[str] | None = None) -> None:
        self._scanner = Scanner()
        self._manifests = ManifestCache()
        self._ledger = Ledger(ledger_path)

    def shell(
        self, run: Term, target: Term, script: str, payload: str | Term, seconds: float
    ) -> Term:
        """Run a script on the target as one exec."""
        method, host, options = _target(target)
        try:
            stream = self._payload(payload)
        except SourcesError as error:
            return failed(error.reason)
        with Session(run) as session:
            how: dict[str, Any] = {
                "payload": stream,
                "seconds": float(seconds),
                "stop": session.stop,
                "sudo": is_true(options.get("sudo", False)),
            }
            if method == "local":
                from unifyweaver_py.effects import process

                return process.run_script(session.run, host, script, **how)
            from unifyweaver_py.effects import ssh

            return ssh.run_script(session.run, host, options, script, **how)

    def _payload(self, payload: str | Term) -> Iterable[bytes]:
        match payload:
            case "none":
                return ()
            case Term("release", (str(folder), list(patterns), str(expected), list(extras), base)):
                scan = self._scanner.recall(folder, _patterns(patterns), expected)
                files = [_extra(extra) for extra in extras]
                return shipment_stream(scan, files, _base(base), self._manifests)
        raise TypeError(f"not a payload: {payload}")

    def reconnect(self, run: Term, target: Term) -> str | Term:
        """Leave the run's connection to the target, and make another."""
        method, host, options = _target(target)
        if method == "local":
            return "done"
        from unifyweaver_py.effects.connection import reconnect

        with Session(run) as session:
            try:
                reconnect(session.run, host, options, session.stop)
            except EffectError as error:
                return failed(error.reason)
        return "done"

    def probe(self, run: Term, target: Term, request: Term) -> Term:
        """One HTTP request, from here or through the run's connection to the target."""
        from unifyweaver_py.effects import http

        match request:
            case Term("request", (str(method), str(url), list(options))):
                pass
            case _:
                raise TypeError(f"not a request: {request}")
        with Session(run) as session:
            dial = http.dial_directly
            if Term("via", ("ssh",)) in options:
                try:
                    dial = _dial_through(session, target)
                except EffectError as error:
                    return failed(error.reason)
            return http.probe(method, url, options, dial, session.stop)

    def balance(self, run: Term, address: str, request: Term) -> Term | str:
        """Ask or tell HAProxy."""
        from unifyweaver_py.effects import haproxy

        with Session(run) as session:
            return haproxy.balance(address, request, session.stop)

    def scan(self, run: Term, folder: str, patterns: Sequence[Any], needs: Sequence[str]) -> Term:
        """Hash the sources."""
        with Session(run):
            try:
                found = self._scanner.scan(folder, _patterns(patterns), needs)
            except SourcesError as error:
                return failed(error.reason)
        return Term("sources", (found.hash, len(found.entries), found.size))

    def seal(self, run: Term, value: str | Term) -> Term | str:  # noqa: ARG002 - of no run
        """Keep a secret value."""
        match value:
            case Term("env", (name,)):
                return own_vault.heed(str(name))
        return own_vault.seal(str(value))

    def secrets(self, run: Term, wanted: Sequence[Any]) -> Term:
        """Fetch values."""
        pairs = pairs_of(wanted)
        with Session(run) as session:
            try:
                digests = own_vault.fetch(session.run, pairs)
            except SecretError as error:
                return failed(error.reason)
        seals = [Term("seal", (*pair, digest)) for pair, digest in zip(pairs, digests, strict=True)]
        return Term("sealed", (seals,))

    def sleep(self, run: Term, seconds: float) -> str:
        """Wait, unless the run ends."""
        with Session(run) as session:
            return clock.sleep(float(seconds), session.stop)

    def emit(self, run: Term, event: Any) -> str:
        """Tell the run's listener."""
        with Session(run) as session:
            session.run.listener(event)
        return "done"

    def ledger(self, run: Term, request: Term) -> str | Term:  # noqa: ARG002 - any run may
        """Read or write the ledger; what can't be written is answered, what can't be read raised."""
        import sqlite3

        try:
            return self._ledger.answer(request)
        except (sqlite3.Error, OSError) as error:
            if request.name not in WRITING:
                advice = "move it away, or name another with UNIFYWEAVER_LEDGER"
                text = f"the ledger {self._ledger.path} cannot be used: {error}; {advice}"
                raise type(error)(text) from error
            return failed(Term("ledger_failed", (str(self._ledger.path), str(error))))

    def set_ledger(self, path: str | os.PathLike[str] | None) -> None:
        """Use another ledger file; None for the default one."""
        old, self._ledger = self._ledger, Ledger(path)
        old.close()


def _target(target: Term) -> tuple[str, str, dict[str, Any]]:
    match target:
        case Term("target", (str(method), str(host), list(options))) if method in METHODS:
            return method, host, options_of(options)
    raise TypeError(f"not a target: {target}")


def _patterns(terms: Sequence[Any]) -> tuple[Pattern, ...]:
    return tuple(_pattern(term) for term in terms)


def _pattern(term: Any) -> Pattern:
    match term:
        case str(text):
            return Pattern(str(text))
        case Term("\\+", (str(text),)):
            return Pattern(str(text), exclude=True)
    raise TypeError(f"not a source pattern: {term}")


def _extra(term: Any) -> Extra:
    match term:
        case Term("file", (str(path), int(mode), str(text))):
            return Extra(path, mode, text.encode("utf-8", "surrogateescape"))
        case Term("file", (str(path), int(mode), Term("secrets", (list(pairs),)))):
            return Extra(path, mode, own_vault.exports(pairs_of(pairs)))
    raise TypeError(f"not a file of a release: {term}")


def _base(term: Any) -> Base | None:
    match term:
        case "none":
            return None
        case Term("base", (str(release), str(manifest), str(reuse), touched)) if reuse in REUSE:
            return Base(release, manifest, reuse, touched_paths(str(touched)))
    raise TypeError(f"not a release to build on: {term}")


def _dial_through(session: Session, target: Term) -> Any:
    """A function that connects from the target, as the SSH server sees the network."""
    method, host, options = _target(target)
    if method != "ssh":
        raise TypeError(f"not a target to forward through: {target}")
    from unifyweaver_py.effects.connection import connect
    from unifyweaver_py.effects.sockets import forwarded

    transport = connect(session.run, host, options, session.stop).transport
    return lambda name, port, seconds: forwarded(transport, name, port, seconds)


class _Switch:
    """Which effects answer now."""

    def __init__(self, effects: Effects) -> None:
        self.current = effects
        self._lock = threading.Lock()

    def turn(self, effects: Effects) -> Effects:
        """Let other effects answer; the answer is those that did so far."""
        with self._lock:
            before, self.current = self.current, effects
        return before


_live = LiveEffects()
_switch = _Switch(_live)


def set_ledger(path: str | os.PathLike[str] | None) -> None:
    """Keep the ledger in this file from now on; None for the default place."""
    _live.set_ledger(path)


@contextmanager
def using(effects: Effects) -> Iterator[Effects]:
    """Let every `live_` predicate of this process be answered by `effects` for a while."""
    before = _switch.turn(effects)
    try:
        yield effects
    finally:
        _switch.turn(before)


def install(engine: Registry) -> None:
    """Register the foreign predicates `live_shell/6` and the rest in `deployment_effects`."""
    for name, arity in PREDICATES.items():
        engine.register(MODULE, f"live_{name}", arity, _answerer(name))


def _answerer(name: str) -> Callable[..., Any]:
    def answer(*arguments: Any) -> Any:
        return getattr(_switch.current, name)(*arguments)

    return answer
