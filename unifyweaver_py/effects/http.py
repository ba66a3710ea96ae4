"""One HTTP request of a health check or a hook: a fresh connection, no redirect followed, a total
time limit.

This module imports requests: import it where it is used.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ReadTimeoutError

from unifyweaver_py._terms import PrologString, Term
from unifyweaver_py.effects.base import (
    DeadlineError,
    EffectError,
    Reason,
    failed,
    guarded,
    unreachable,
)

BODY_LIMIT = 64 << 10
DEFAULT_TIMEOUT = 5.0

Dial = Callable[[str, int, float], socket.socket]


def dial_directly(host: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection from this machine."""
    sock = socket.create_connection((host, port), seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def probe(method: str, url: str, options: list[Term], dial: Dial, stop: threading.Event) -> Term:
    """Ask once: `answer(Status, Headers, Body)`, or `failed(Reason)` when there was no whole answer
    in time.

    Options: timeout(Seconds), header(Name, Value), ca_file(Path). Headers are `Name-Value` strings
    with the names in lower case; of the body, the first 64 kB.
    """
    timeout, ca_file = DEFAULT_TIMEOUT, ""
    headers: dict[str, str | bytes] = {"accept-encoding": "identity", "connection": "close"}
    for option in options:
        match option:
            case Term("timeout", (int() | float() as seconds,)):
                timeout = float(seconds)
            case Term("ca_file", (str(path),)):
                ca_file = path
            case Term("header", (name, value)):
                headers[str(name).lower()] = str(value).strip(" ").encode("latin-1", "replace")
    request = _Request(
        method, url, headers=headers, verify=ca_file or True, dial=dial, timeout=timeout
    )
    try:
        return guarded(request.answer, stop, request.deadline, request.abort)
    except EffectError as error:
        return failed(error.reason)


class _Request:
    """A request that another thread may end by closing its connection."""

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str | bytes],
        verify: str | bool,
        dial: Dial,
        timeout: float,
    ) -> None:
        self.deadline = time.monotonic() + timeout
        self._asked = (str(method).upper(), str(url), headers, verify)
        self._dial = dial
        self._sockets: list[socket.socket] = []
        self._aborted = False

    def answer(self) -> Term:
        """The answer. Raises `EffectError`."""
        try:
            return self._ask()
        except (requests.RequestException, OSError, ValueError) as error:
            raise EffectError(_reason(error)) from error

    def _ask(self) -> Term:
        method, url, headers, verify = self._asked
        with requests.Session() as session:
            session.trust_env = False
            adapter = _Adapter(self._connect)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            response = session.request(
                method,
                url,
                headers=headers,
                timeout=self._left(),
                allow_redirects=False,
                stream=True,
                verify=verify,
            )
            body = response.raw.read(BODY_LIMIT, decode_content=False) or b""
            named = response.raw.headers.items()
        pairs = [
            Term("-", (PrologString(name.lower()), PrologString(value))) for name, value in named
        ]
        text = body.decode("utf-8", "replace")
        return Term("answer", (response.status_code, pairs, PrologString(text)))

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineError
        return left

    def _connect(self, host: str, port: int) -> socket.socket:
        sock = self._dial(host, port, self._left())
        sock.settimeout(self._left())
        self._sockets.append(sock)
        if self._aborted:
            self.abort()
        return sock

    def abort(self) -> None:
        """End the connection: whoever waits for it is woken."""
        self._aborted = True
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """Requests over connections that are dialled by a function."""

    def __init__(self, connect: Callable[[str, int], socket.socket]) -> None:
        self._connect = connect
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        """Set up the pools of urllib3 with our own connections."""
        super().init_poolmanager(*arguments, **more)
        connect = self._connect

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return connect(self._dns_host, self.port)

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return connect(self._dns_host, self.port)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}


def _reason(error: BaseException) -> Reason:
    """The contract's reason for what requests raised: its cause, not its account of it."""
    causes = list(_causes(error))
    known = [reason for cause in causes if (reason := _known_reason(cause)) is not None]
    if known:
        return known[0]
    texts = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return unreachable(texts[0] if texts else str(causes[-1]) or type(causes[-1]).__name__)


def _known_reason(cause: BaseException) -> Reason | None:
    reason: Reason | None = None
    match cause:
        case EffectError():
            reason = cause.reason
        case ConnectionRefusedError():
            reason = "connection_refused"
        case TimeoutError() | ReadTimeoutError() | requests.Timeout():
            reason = "timeout"
        case ssl.SSLCertVerificationError():
            reason = unreachable(f"certificate: {cause.verify_message}")
        case ssl.SSLError():
            reason = unreachable(f"TLS: {cause.reason or cause}")
    return reason


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and those inside it, outermost first."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one in seen:
            continue
        seen.append(one)
        yield one
        inside = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
        waiting += [inner for inner in inside if isinstance(inner, BaseException)]
