"""Secret values: where they come from, what stands for them, and that nobody is shown them.

A value stays in the memory of this process. Rules get a token for a literal one, and a digest of each
for the release's hash. The digest is keyed (HMAC-SHA-256), for a plain one would tell whoever can
guess the value.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unifyweaver_py._terms import Term
from unifyweaver_py.effects.base import Reason, Run
from unifyweaver_py.effects.secret_sources import SecretError, exported, key_path, printed, read_key

MOST_BYTES = 64 << 10
MASK = b"***"
SHORTEST_MASKED = 4
TOLD = re.compile(rb"^(\S+ (?:log|line) \S+ )?(.*)$", re.DOTALL)
PROTOCOL = re.compile(rb"^[0-9.]+ (?:begin|end|got) ")


class Vault:
    """The secret values that this process knows; its methods may be called from any thread."""

    def __init__(self, key: Path | None = None) -> None:
        self._key_path = key
        self._lock = threading.Lock()
        self._tokens: dict[str, bytes] = {}
        self._sealed: dict[bytes, str] = {}
        self._values: dict[str, bytes] = {}
        self._variables: set[str] = set()

    def __repr__(self) -> str:
        """Nothing of what is in it."""
        return "Vault()"

    def seal(self, text: str) -> Term | str:
        """Keep a literal value: `sealed(Token)`, the same for the same value; or `refused`."""
        value = text.encode("utf-8", "surrogateescape")
        if _objection(value) is not None:
            return "refused"
        with self._lock:
            token = self._sealed.setdefault(value, f"s{secrets.token_hex(8)}")
            self._tokens[token] = value
        return Term("sealed", (token,))

    def heed(self, variable: str) -> Term:
        """The value that this variable has, or will have, is secret: `env(Variable)`."""
        with self._lock:
            self._variables.add(variable)
        return Term("env", (variable,))

    def fetch(self, run: Run, wanted: Sequence[tuple[str, Term]]) -> list[str]:
        """A digest for each `(name, source)`; in one run, each source is asked once.

        Raises `SecretError`: `secret_unavailable(Name, Why)`.
        """
        with run.secrets_lock:
            return [self._digest(run, name, source) for name, source in wanted]

    def _digest(self, run: Run, name: str, source: Term) -> str:
        try:
            if source not in run.secrets:
                run.secrets[source] = self._value(run, source)
            value = run.secrets[source]
            digest = f"s{self._code(name, value)}"
        except SecretError as error:
            raise SecretError(Term("secret_unavailable", (name, error.reason))) from None
        with self._lock:
            self._values[digest] = value
        return digest

    def _value(self, run: Run, source: Term) -> bytes:
        match source:
            case Term("env", (str(variable),)):
                self.heed(variable)
                value = exported(variable)
            case Term("command", (str(command),)):
                value = printed(command, run.cancel)
            case Term("sealed", (str(token),)) if token in self._tokens:
                value = self._tokens[token]
            case _:
                raise SecretError("unknown")
        if (why := _objection(value)) is not None:
            raise SecretError(why)
        return value

    def _code(self, name: str, value: bytes) -> str:
        key = read_key(self._key_path or key_path())
        return hmac.new(key, name.encode() + b"\0" + value, hashlib.sha256).hexdigest()

    def exports(self, pairs: Iterable[tuple[str, str]]) -> bytes:
        """The text of the file that a service's start reads, of `(name, digest)` pairs.

        Its first line can't be guessed, so that the plain digest in a manifest tells nothing.
        """
        lines = b"".join(
            b"export %s=%s\n" % (name.encode(), quoted(self._values[digest]))
            for name, digest in pairs
        )
        return b"# %s\n" % self._code("file", lines).encode() + lines

    def masked(self, text: bytes) -> bytes:
        """What a host wrote, with `***` for each known value of four bytes or more."""
        return _masked(text, self._maskable())

    def masked_report(self, report: bytes) -> bytes:
        """As `masked`, for the lines of a script's report: what is not text of others stays."""
        parts = self._maskable()
        if not any(part in report for part in parts):
            return report
        return b"\n".join(_masked_line(line, parts) for line in report.split(b"\n"))

    def _maskable(self) -> list[bytes]:
        with self._lock:
            known = {*self._values.values(), *self._tokens.values()}
            known |= {os.environb.get(os.fsencode(name), b"") for name in self._variables}
        parts = {part for value in known for part in (value, *value.splitlines(), quoted(value))}
        return sorted((p for p in parts if len(p) >= SHORTEST_MASKED), key=len, reverse=True)


def _masked(text: bytes, parts: Iterable[bytes]) -> bytes:
    for part in parts:
        text = text.replace(part, MASK)
    return text


def _masked_line(line: bytes, parts: Iterable[bytes]) -> bytes:
    match = TOLD.match(line)
    if PROTOCOL.match(line) or match is None:
        return line
    head, text = match.groups(b"")
    return head + _masked(text, parts)


def quoted(value: bytes) -> bytes:
    """The value as one word of sh."""
    return b"'" + value.replace(b"'", b"'\"'\"'") + b"'"


def _objection(value: bytes) -> Reason | None:
    if b"\0" in value:
        return "nul_character"
    if len(value) > MOST_BYTES:
        return "too_long"
    return None


def pairs_of(terms: Sequence[Any]) -> list[tuple[str, Any]]:
    """The pairs of a list of `Name-Value` terms. Raises `TypeError` for anything else."""
    pairs = []
    for term in terms:
        match term:
            case Term("-", (str(name), value)):
                pairs.append((str(name), value))
            case _:
                raise TypeError(f"not a pair: {term}")
    return pairs


own_vault = Vault()
"""The one of this process."""
