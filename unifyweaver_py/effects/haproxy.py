"""HAProxy's runtime socket: what its servers are up to, and whether they get requests.

Each request is a connection of its own, over a UNIX socket or, without TLS, over TCP.
"""

from __future__ import annotations

import csv
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from unifyweaver_py._terms import Term
from unifyweaver_py.effects.base import DeadlineError, EffectError, Reason, failed, guarded

SECONDS = 5.0
READ = 1 << 16
STATES = ("ready", "drain", "maint")
LEVELS = ("user", "operator", "admin")

# Bits of `srv_admin_state` in `show servers state`, whoever set them: the runtime socket, a tracked server, DNS.
IN_MAINTENANCE = 0x01 | 0x02 | 0x20 | 0x40
DRAINING = 0x08 | 0x10


def balance(address: str, request: Term, stop: threading.Event) -> Term | str:
    """Answer one request over the runtime socket at `address`.

    `look(Backend)` and `poll(Backend)` are answered with `servers([server(Name, Addresses, Port,
    Admin, Status, Sessions), ...])`: Admin is ready, drain or maint, Status HAProxy's word for the
    server's state, Sessions counts those that wait for it too. `look` is refused without the level
    admin, which `set(Backend, Server, State)`, answered with `done`, needs. Each may be
    `failed(Reason)`.
    """
    talk = _Talk(address, time.monotonic() + SECONDS)
    try:
        return guarded(lambda: _answer(talk, request), stop, talk.deadline, talk.abort)
    except DeadlineError:
        return failed(_unavailable(f"no answer within {SECONDS:g} s"))
    except EffectError as error:
        return failed(error.reason)


def _answer(talk: _Talk, request: Term) -> Term | str:
    match request:
        case Term("look", (str(backend),)):
            _require_admin(talk.ask("show cli level").strip())
            return _servers(talk, backend)
        case Term("poll", (str(backend),)):
            return _servers(talk, backend)
        case Term("set", (str(backend), str(server), str(state))) if state in STATES:
            if said := talk.ask(f"set server {backend}/{server} state {state}").strip():
                raise EffectError(_refused(said))
            return "done"
    raise TypeError(f"not a request to HAProxy: {request}")


def _require_admin(level: str) -> None:
    if level not in LEVELS:
        raise EffectError(_unavailable("what answers there is not HAProxy"))
    if level != "admin":
        raise EffectError(_refused(f"the socket has the level {level}"))


def _servers(talk: _Talk, backend: str) -> Term:
    states = talk.ask(f"show servers state {backend}")
    if states.startswith("Can't find backend"):
        raise EffectError(Term("balancer", (Term("no_backend", (backend,)),)))
    counted = {row["svname"]: row for row in _rows(talk.ask(f"show stat {backend} 4 -1"), ",")}
    version, _, table = states.partition("\n")
    if not version.isdecimal():
        raise EffectError(_unavailable("what answers there is not HAProxy"))
    return Term("servers", ([_server(row, counted) for row in _rows(table, " ")],))


def _rows(text: str, separator: str) -> Iterator[dict[str, str]]:
    """The rows of a table whose first line, after `# `, names its columns."""
    if not text.startswith("# "):
        raise EffectError(_unavailable("what answers there is not HAProxy"))
    lines = [line for line in text[2:].splitlines() if line]
    return iter(csv.DictReader(io.StringIO("\n".join(lines)), delimiter=separator))


def _server(row: dict[str, str], counted: dict[str, dict[str, str]]) -> Term:
    name = row["srv_name"]
    count = counted.get(name)
    if count is None:
        raise EffectError(_unavailable(f"it does not count the sessions of {name}"))
    addresses = [one for one in (row["srv_addr"], row["srv_fqdn"]) if one not in ("", "-")]
    sessions = int(count["scur"]) + int(count["qcur"] or 0)
    fields = (name, addresses, int(row["srv_port"]), _admin(int(row["srv_admin_state"])))
    return Term("server", (*fields, count["status"], sessions))


def _admin(bits: int) -> str:
    if bits & IN_MAINTENANCE:
        return "maint"
    return "drain" if bits & DRAINING else "ready"


class _Talk:
    """Commands to HAProxy, a connection each; another thread may end it."""

    def __init__(self, address: str, deadline: float) -> None:
        self.deadline = deadline
        self._address = address
        self._socket: socket.socket | None = None
        self._aborted = False

    def ask(self, command: str) -> str:
        """What HAProxy says to one command. Raises `EffectError`."""
        try:
            with self._connected() as connection:
                self._socket = connection
                if self._aborted:
                    self.abort()
                connection.sendall(f"{command}\n".encode("ascii"))
                answer = b"".join(iter(lambda: connection.recv(READ), b""))
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise DeadlineError from error
            raise EffectError(_unavailable(error.strerror or str(error))) from error
        return answer.decode("utf-8", "replace")

    def _connected(self) -> socket.socket:
        kind, place = _place(self._address)
        left = max(0.01, self.deadline - time.monotonic())
        if kind != socket.AF_UNIX:
            return socket.create_connection(place, left)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(left)
        try:
            connection.connect(place)
        except OSError:
            connection.close()
            raise
        return connection

    def abort(self) -> None:
        """End the connection: whoever waits for it is woken."""
        self._aborted = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _place(address: str) -> tuple[socket.AddressFamily, Any]:
    """The family and the place of an address as HAProxy writes it."""
    prefix, _, rest = address.rpartition("@")
    if rest.startswith("/"):
        return socket.AF_UNIX, rest
    host, _, port = rest.rpartition(":")
    family = socket.AF_INET6 if prefix == "ipv6" else socket.AF_INET
    return family, (host.strip("[]"), int(port))


def _unavailable(text: str) -> Reason:
    return Term("balancer", (Term("unavailable", (" ".join(text.split()),)),))


def _refused(text: str) -> Reason:
    return Term("balancer", (Term("refused", (" ".join(text.split()),)),))
