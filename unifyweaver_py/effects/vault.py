"""Secret values: where they come from, what stands for them, and that nobody is shown them.

A value stays in the memory of this process. Rules get a token for a literal one, and a digest of each
for the release's hash. The digest is keyed (HMAC-SHA-256), for a plain one would tell whoever can
guess the value. The key is in the user's state folder, mode 0600, or where `UNIFYWEAVER_KEY` says.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import signal
import subprocess
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from unifyweaver_py._terms import Term
from unifyweaver_py.effects.base import EffectError, Reason, Run

MOST_BYTES = 64 << 10
COMMAND_SECONDS = 30.0
MASK = b"***"
SHORTEST_MASKED = 4
TOLD = re.compile(rb"^(\S+ (?:log|line) \S+ )?(.*)$", re.DOTALL)
KEY = re.compile(rb"[0-9a-f]{64}")
PROTOCOL = re.compile(rb"^[0-9.]+ (?:begin|end|got) ")


class SecretError(EffectError):
    """A value cannot be had; the reason never holds any of it."""


def key_path() -> Path:
    """Where the key is: `UNIFYWEAVER_KEY`, else `unifyweaver/key` in the user's state folder."""
    if chosen := os.environ.get("UNIFYWEAVER_KEY"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_state_dir("unifyweaver", appauthor=False)) / "key"


def read_key(path: Path) -> bytes:
    """The key, made when there is none: of two who make one at once, the first wins.

    Raises `SecretError`: the file cannot be read or written, holds no key, or others may read it.
    """
    try:
        with suppress(FileExistsError):
            _make_key(path)
        if path.stat().st_mode & 0o077:
            raise SecretError(Term("key_unusable", (str(path), "others may read it")))
        key = path.read_bytes().strip()
    except OSError as error:
        raise SecretError(Term("key_unusable", (str(path), error.strerror or "no file"))) from None
    if KEY.fullmatch(key) is None:
        raise SecretError(Term("key_unusable", (str(path), "it has not 64 hexadecimal digits")))
    return key


def _make_key(path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
        os.link(new, path)
    finally:
        new.unlink()


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
                run.secrets[source] = self._value(source)
            value = run.secrets[source]
            digest = f"s{self._code(name, value)}"
        except SecretError as error:
            raise SecretError(Term("secret_unavailable", (name, error.reason))) from None
        with self._lock:
            self._values[digest] = value
        return digest

    def _value(self, source: Term) -> bytes:
        match source:
            case Term("env", (str(variable),)):
                self.heed(variable)
                value = exported(variable)
            case Term("command", (str(command),)):
                value = printed(command)
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

    def masked(self, line: bytes) -> bytes:
        """A line that came from a host, with `***` for each known value of four bytes or more."""
        for value in self._maskable():
            line = line.replace(value, MASK)
        return line

    def masked_report(self, line: bytes) -> bytes:
        """As `masked`, for a line of a script's report: what is not text of others stays."""
        if PROTOCOL.match(line):
            return line
        match = TOLD.match(line)
        head, text = match.groups(b"") if match else (b"", line)
        return head + self.masked(text)

    def _maskable(self) -> list[bytes]:
        with self._lock:
            known = {*self._values.values(), *self._tokens.values()}
            known |= {os.environb.get(os.fsencode(name), b"") for name in self._variables}
        parts = {part for value in known for part in (value, *value.splitlines(), quoted(value))}
        return sorted((p for p in parts if len(p) >= SHORTEST_MASKED), key=len, reverse=True)


def exported(variable: str) -> bytes:
    """What a variable of this process holds. Raises `SecretError`: `not_set(Variable)`."""
    value = os.environb.get(os.fsencode(variable))
    if value is None:
        raise SecretError(Term("not_set", (variable,)))
    return value


def quoted(value: bytes) -> bytes:
    """The value as one word of sh."""
    return b"'" + value.replace(b"'", b"'\"'\"'") + b"'"


def printed(command: str) -> bytes:
    """What `sh -c command` prints here, without the line ends behind it.

    Raises `SecretError`: `command_failed(Code)` or `timeout`, after which its group is killed.
    """
    try:
        process = subprocess.Popen(
            ["sh", "-c", "--", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        raise SecretError(Term("command_failed", (127,))) from None
    try:
        value, _ = process.communicate(timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        raise SecretError("timeout") from None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0:
        raise SecretError(Term("command_failed", (process.returncode,)))
    return value.rstrip(b"\n")


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
