"""Where secret values come from, and the key of their digests.

The key is in the user's state folder, mode 0600, or where `UNIFYWEAVER_KEY` says.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from unifyweaver_py._terms import Term
from unifyweaver_py.effects.base import POLL, EffectError

COMMAND_SECONDS = 30.0
KEY = re.compile(rb"[0-9a-f]{64}")


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


def exported(variable: str) -> bytes:
    """What a variable of this process holds. Raises `SecretError`: `not_set(Variable)`."""
    value = os.environb.get(os.fsencode(variable))
    if value is None:
        raise SecretError(Term("not_set", (variable,)))
    return value


def printed(command: str, stop: threading.Event) -> bytes:
    """What `sh -c command` prints here, without the line ends behind it.

    Raises `SecretError`: `command_failed(Code)`, `timeout` or `cancelled`. Its group is killed.
    """
    try:
        process = subprocess.Popen(
            ["sh", "-c", "--", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError):
        raise SecretError(Term("command_failed", (127,))) from None
    try:
        value = _all_of(process, time.monotonic() + COMMAND_SECONDS, stop)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0:
        raise SecretError(Term("command_failed", (process.returncode,)))
    return value.rstrip(b"\n")


def _all_of(process: subprocess.Popen[bytes], deadline: float, stop: threading.Event) -> bytes:
    while (output := _output(process)) is None:
        if stop.is_set():
            raise SecretError("cancelled")
        if time.monotonic() > deadline:
            raise SecretError("timeout")
    return output


def _output(process: subprocess.Popen[bytes]) -> bytes | None:
    try:
        return process.communicate(timeout=POLL)[0]
    except subprocess.TimeoutExpired:
        return None
