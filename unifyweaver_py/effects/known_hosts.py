"""Whom we trust: host keys in OpenSSH's known_hosts format.

Paramiko's own reader knows neither `@revoked` nor wildcards, and reads every key of the file for
each connection; this one compares the encoded keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache


class Verdict(Enum):
    """What the files say about a host's key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Line:
    """One line: its marker (`@revoked`, `@cert-authority` or nothing), host patterns, key type and
    encoded key.
    """

    marker: str
    patterns: tuple[str, ...]
    key_type: str
    key: bytes

    def names(self, host: str) -> bool:
        """Whether the line is about this host."""
        found = False
        for pattern in self.patterns:
            if pattern.startswith("!"):
                if _wildcard(pattern[1:]).fullmatch(host):
                    return False
            elif pattern.startswith("|1|"):
                found = found or _hashed(pattern, host)
            else:
                found = found or bool(_wildcard(pattern).fullmatch(host))
        return found


@lru_cache(maxsize=4096)
def _wildcard(pattern: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    text = "".join(parts.get(character) or re.escape(character) for character in pattern)
    return re.compile(text, re.IGNORECASE | re.DOTALL)


def _hashed(pattern: str, host: str) -> bool:
    try:
        _, _, salt, digest = pattern.split("|")
        wanted = base64.b64decode(digest)
        found = hmac.digest(base64.b64decode(salt), host.encode(), hashlib.sha1)
    except ValueError:
        return False
    return hmac.compare_digest(wanted, found)


def host_name(host: str, port: int) -> str:
    """The name under which a host's key is listed: `host`, or `[host]:port` for another port than
    22.
    """
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


class KnownHosts:
    """The lines of several files; files that do not exist are empty."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)

    def key_types(self, name: str) -> list[str]:
        """The types of the keys listed for a host, in the files' order."""
        return list(dict.fromkeys(line.key_type for line in self._about(name) if not line.marker))

    def judge(self, name: str, key: bytes) -> Verdict:
        """What the files say of this key of the host."""
        about = self._about(name)
        if any(line.marker == "@revoked" and line.key == key for line in about):
            return Verdict.REVOKED
        listed = [line.key for line in about if not line.marker]
        if not listed:
            return Verdict.UNKNOWN
        return Verdict.KNOWN if key in listed else Verdict.CHANGED

    def _about(self, name: str) -> list[Line]:
        return [line for path in self.paths for line in _lines(path) if line.names(name)]

    def add(self, name: str, key_type: str, key: bytes) -> Verdict:
        """List an unknown key in the first file, which is made with mode 0600 when it is missing.

        The answer is the verdict on the key afterwards: another connection may have been first with
        another one. Raises `OSError` when the file cannot be written.
        """
        text = f"{name} {key_type} {base64.b64encode(key).decode()}\n".encode()
        with _adding:
            verdict = self.judge(name, key)
            if verdict is not Verdict.UNKNOWN:
                return verdict
            _append(self.paths[0], text)
        return Verdict.KNOWN


_adding = threading.Lock()
_read: dict[str, tuple[tuple[int, int, int], tuple[Line, ...]]] = {}


def _append(path: str, text: bytes) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with open(descriptor, "r+b", buffering=0) as file:
        size = os.fstat(descriptor).st_size
        ended = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        file.write(text if ended else b"\n" + text)


def _lines(path: str) -> tuple[Line, ...]:
    """The lines of a file, read again when it has changed."""
    try:
        status = os.stat(path)
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = _read.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = tuple(line for text in file if (line := _line(text)) is not None)
    except FileNotFoundError:
        return ()
    _read[path] = (stamp, lines)
    return lines


def _line(text: str) -> Line | None:
    fields = text.split()
    if not fields or fields[0].startswith("#"):
        return None
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    if len(fields) < 3:
        return None
    try:
        key = base64.b64decode(fields[2], validate=True)
    except binascii.Error:
        return None
    return Line(marker, tuple(fields[0].split(",")), fields[1], key)
