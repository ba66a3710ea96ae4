"""Connections to SSH servers: whom they trust, as whom they come, one a host and run.

Fabric holds the connection and Paramiko speaks the protocol. This module imports both: import it
where it is used.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import fabric
import paramiko
from paramiko.config import SSHConfig
from paramiko.ssh_exception import AuthenticationException, SSHException

from unifyweaver_py.effects.base import (
    EffectError,
    Reason,
    Run,
    StoppedError,
    guarded,
    unreachable,
)
from unifyweaver_py.effects.known_hosts import KnownHosts, Verdict, host_name
from unifyweaver_py.effects.sockets import (
    KEEPALIVE_SECONDS,
    dialled,
    forwarded,
    left_until,
    proxied,
)
from unifyweaver_py.effects.ssh_config import Login, resolve

RETRIES = 3
WINDOW = 4 << 20
PACKET = 1 << 15
STOP_GRACE = 0.2
ENDING_SECONDS = 2.0
# A cipher that authenticates by itself costs the client less than one with a MAC beside it.
CIPHERS_FIRST = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

# Paramiko reports what it raises to its log as well, and without a handler Python prints that.
_LOG = "unifyweaver_py.ssh"
logging.getLogger(_LOG).addHandler(logging.NullHandler())


class _DroppedError(EffectError):
    """The connection ended before the server had said who it is; another attempt may succeed."""


class Connection:
    """An open, authenticated connection to a target, with those to the hosts it leads through."""

    def __init__(self) -> None:
        self._legs: list[fabric.Connection] = []
        self._sockets: list[socket.socket] = []
        self._endings: list[threading.Thread] = []
        self._proxy: subprocess.Popen[bytes] | None = None
        self._aborted = False

    @property
    def transport(self) -> paramiko.Transport:
        """Paramiko's transport to the target."""
        return self._legs[-1].transport

    @property
    def alive(self) -> bool:
        """Whether the connection can still be used."""
        return bool(self._legs) and all(leg.is_connected for leg in self._legs)

    def open(self, login: Login, deadline: float) -> Connection:
        """Connect, hop after hop; `drop` from another thread ends it early."""
        for leg in (*login.hops, login):
            sock = self._socket(leg, deadline)
            self._sockets.append(sock)
            connection = _fabric_connection(leg, sock, deadline)
            self._legs.append(connection)
            if self._aborted:
                self.drop()
                raise StoppedError
            connection.open()
            connection.transport.set_keepalive(KEEPALIVE_SECONDS)
        if self._aborted:
            self.drop()
            raise StoppedError
        return self

    def _socket(self, leg: Login, deadline: float) -> socket.socket:
        if self._legs:
            return forwarded(self.transport, leg.host, leg.port, left_until(deadline))
        if leg.proxy_command:
            ours, self._proxy = proxied(leg.proxy_command)
            return ours
        return dialled(leg.host, leg.port, leg.family, deadline)

    def end_with(self, work: Callable[[], None]) -> None:
        """Do something on the connection in a thread of its own, for which `close` waits."""
        thread = threading.Thread(target=work, name="unifyweaver-end", daemon=True)
        self._endings.append(thread)
        thread.start()

    def close(self) -> None:
        """End the connection; what is being ended on it gets two seconds."""
        end = time.monotonic() + ENDING_SECONDS
        for thread in self._endings:
            if self.alive:
                thread.join(max(0.0, end - time.monotonic()))
        self.drop()

    def drop(self) -> None:
        """End the connection at once."""
        self._aborted = True
        for sock in reversed(self._sockets):
            # Wakes Paramiko's reading threads, which otherwise look only every 0.1 s.
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for leg in reversed(self._legs):
            with suppress(OSError, EOFError, SSHException):
                leg.client.close()
        for sock in reversed(self._sockets):
            sock.close()
        if self._proxy is not None:
            self._proxy.kill()
            self._proxy.wait()


def connect(run: Run, host: str, options: Mapping[str, Any], stop: threading.Event) -> Connection:
    """The run's connection to the host, opened when there is none.

    Raises `EffectError` with connection_refused, timeout, unreachable(Why), authentication_failed,
    host_key_mismatch or cancelled.
    """
    login = resolve(host, options)
    patience = login.connect_timeout + STOP_GRACE
    connection: Connection = run.connection(
        (host, login), lambda: _connected(run, host, login, stop), stop, patience
    )
    return connection


def reconnect(run: Run, host: str, options: Mapping[str, Any], stop: threading.Event) -> None:
    """Close the run's connection to the host, if there is one, and open another.

    Raises `EffectError` as `connect` does.
    """
    run.disconnect((host, resolve(host, options)))
    connect(run, host, options, stop)


def _connected(run: Run, host: str, login: Login, stop: threading.Event) -> Connection:
    deadline = time.monotonic() + login.connect_timeout
    for attempt in range(RETRIES + 1):
        try:
            return _attempt(run, host, login, stop, deadline)
        except _DroppedError as error:  # noqa: PERF203 - connecting takes a thousand times longer
            # sshd drops connections at random when many are being opened (MaxStartups).
            pause = 0.05 * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            if attempt == RETRIES or time.monotonic() + pause > deadline:
                raise EffectError(error.reason) from error
            if stop.wait(pause):
                raise StoppedError from error
    raise AssertionError("the last attempt returns or raises")


def _attempt(
    run: Run, host: str, login: Login, stop: threading.Event, deadline: float
) -> Connection:
    connection = Connection()
    run.count(host, connections=1)
    try:
        return guarded(lambda: connection.open(login, deadline), stop, deadline, connection.drop)
    except EffectError:
        connection.drop()
        raise
    except (SSHException, EOFError, OSError) as error:
        connection.drop()
        raise _connect_error(error) from error


def _connect_error(error: Exception) -> EffectError:
    """The reason for which a connection could not be made."""
    text = str(error) or type(error).__name__
    reason: Reason = unreachable(text)
    match error:
        case EOFError() | ConnectionResetError() | BrokenPipeError():
            return _DroppedError(unreachable("the connection was closed while it was set up"))
        case SSHException() if "banner" in text:
            return _DroppedError(unreachable("no answer as an SSH server"))
        case AuthenticationException():
            reason = "authentication_failed"
        case SSHException() if "No authentication methods" in text:
            reason = "authentication_failed"
        case OSError():
            reason = reason_of(error)
    return EffectError(reason)


def reason_of(error: OSError) -> Reason:
    """The contract's reason for a failed connect."""
    match error:
        case ConnectionRefusedError():
            return "connection_refused"
        case TimeoutError():
            return "timeout"
    return unreachable(error.strerror or str(error))


def _fabric_connection(login: Login, sock: Any, deadline: float) -> fabric.Connection:
    left = left_until(deadline)
    trust = _Trust(login)
    keys = _keys(login)
    connect_kwargs = {
        "sock": sock,
        "timeout": left,
        "banner_timeout": left,
        "auth_timeout": left,
        "channel_timeout": left,
        "pkey": keys[0][1] if keys else None,
        "key_filename": [path for path, _ in keys[1:]],
        "allow_agent": login.agent,
        "look_for_keys": False,
        "transport_factory": trust.transport,
    }
    connection = fabric.Connection(
        login.host,
        user=login.user,
        port=login.port,
        # Its own: Fabric's configuration writes itself anew while it is read.
        config=fabric.Config(lazy=True, ssh_config=SSHConfig()),
        gateway=False,
        forward_agent=False,
        connect_kwargs=connect_kwargs,
    )
    connection.client.set_log_channel(_LOG)
    connection.client.set_missing_host_key_policy(trust)
    return connection


class _Trust(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Accepts the host key that known_hosts lists, and an unlisted one only when told to.

    The client's own lists stay empty, so that Paramiko asks this policy about every key.
    """

    def __init__(self, login: Login) -> None:
        self.login = login
        self.name = host_name(login.host, login.port)
        self.known = KnownHosts(login.known_hosts)

    def transport(self, sock: Any, **options: Any) -> paramiko.Transport:
        """A transport that asks for a key of a kind that is listed, if the server has one."""
        transport = paramiko.Transport(
            sock, default_window_size=WINDOW, default_max_packet_size=PACKET, **options
        )
        offered = transport.get_security_options()
        offered.ciphers = _first(CIPHERS_FIRST, offered.ciphers)
        algorithms: list[str] = []
        for kind in self.known.key_types(self.name):
            algorithms += ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]
        offered.key_types = _first(algorithms, offered.key_types)
        return transport

    def missing_host_key(self, _client: Any, _name: str, key: paramiko.PKey) -> None:
        """Raises `EffectError` host_key_mismatch unless the key is trusted."""
        verdict = self.known.judge(self.name, key.asbytes())
        if verdict is Verdict.UNKNOWN and self.login.accept_new:
            verdict = self.known.add(self.name, key.get_name(), key.asbytes())
        if verdict is not Verdict.KNOWN:
            raise EffectError("host_key_mismatch")


def _first(preferred: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    rest = tuple(names)
    chosen = tuple(name for name in preferred if name in rest)
    return chosen + tuple(name for name in rest if name not in chosen)


def _keys(login: Login) -> list[tuple[str, paramiko.PKey]]:
    """The files and private keys that need no passphrase; the agent may know the others."""
    paths = (login.key_file,) if login.key_file else login.identity_files
    keys = []
    for path in paths:
        try:
            status = os.stat(path)
            key = _key(path, status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise EffectError(unreachable(f"key file {path}: {error.strerror}")) from error
        if key is not None:
            keys.append((path, key))
    return keys


@lru_cache(maxsize=64)
def _key(path: str, _mtime: int, _size: int) -> paramiko.PKey | None:
    try:
        return paramiko.PKey.from_path(path)
    except (TypeError, paramiko.PasswordRequiredException):
        return None  # encrypted
    except (SSHException, ValueError) as error:
        raise EffectError(unreachable(f"key file {path}: {error}")) from error
