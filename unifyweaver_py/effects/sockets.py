"""Sockets that lead to an SSH server or to what it can reach."""

from __future__ import annotations

import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import paramiko
from paramiko.ssh_exception import ChannelException, SSHException

from unifyweaver_py.effects.base import DeadlineError, EffectError, unreachable

KEEPALIVE_SECONDS = 5
DEAD_LINK_SECONDS = 15
READ = 1 << 16
OPEN_PROHIBITED = 1
OPEN_CONNECT_FAILED = 2


def left_until(deadline: float) -> float:
    """Seconds until a moment of `time.monotonic`. Raises `DeadlineError` when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineError
    return left


class _PromptSocket(socket.socket):
    """Acknowledges at once what it has received, where the system can be told to.

    A server that sends small packets without TCP_NODELAY, as sshd does before its first session,
    otherwise waits 40 ms for each acknowledgement.
    """

    _OPTION = getattr(socket, "TCP_QUICKACK", None)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As any socket's."""
        data = super().recv(size, flags)
        if data and self._OPTION is not None:
            with suppress(OSError):  # another thread may just have closed it
                self.setsockopt(socket.IPPROTO_TCP, self._OPTION, 1)
        return data


def dialled(host: str, port: int, family: int, deadline: float) -> socket.socket:
    """A TCP connection to the first address that answers; each gets its share of the time."""
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    for index, (kind, _, _, _, address) in enumerate(found):
        sock = _PromptSocket(kind, socket.SOCK_STREAM)
        sock.settimeout(left_until(deadline) / (len(found) - index))
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            if index == len(found) - 1:
                raise
        else:
            _notice_dead_links(sock)
            return sock
    raise OSError(f"no address for {host}")


def _notice_dead_links(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_SECONDS),
        ("TCP_KEEPCNT", DEAD_LINK_SECONDS // KEEPALIVE_SECONDS),
        ("TCP_USER_TIMEOUT", 1000 * DEAD_LINK_SECONDS),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def proxied(command: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A socket to a ProxyCommand, which runs in a session of its own: a Ctrl-C is not for it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return ours, process


def forwarded(transport: paramiko.Transport, host: str, port: int, seconds: float) -> socket.socket:
    """A socket to `host:port` as seen from the target; it ends when either side closes.

    Raises `EffectError` when the target cannot connect, or does not forward.
    """
    try:
        channel = transport.open_channel(
            "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=seconds
        )
    except ChannelException as error:
        if error.code == OPEN_CONNECT_FAILED:
            raise EffectError("connection_refused") from error
        if error.code == OPEN_PROHIBITED:
            text = "the SSH server does not forward connections"
            raise EffectError(unreachable(text)) from error
        raise EffectError(unreachable(str(error))) from error
    except (SSHException, EOFError, OSError) as error:
        raise EffectError(unreachable(str(error) or "the connection was lost")) from error
    ours, theirs = socket.socketpair()
    pump = threading.Thread(
        target=_pump, args=(channel, theirs), name="unifyweaver-forward", daemon=True
    )
    pump.start()
    return ours


def _pump(channel: paramiko.Channel, sock: socket.socket) -> None:
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    poller.register(sock.fileno(), select.POLLIN)
    # Ends with either side: whoever uses the socket has a time limit and then closes it.
    with sock, suppress(OSError, EOFError, SSHException):
        try:
            while True:
                ready = {descriptor for descriptor, _ in poller.poll()}
                if sock.fileno() in ready and not _pass(sock.recv, channel.sendall):
                    return
                if channel.fileno() in ready and not _pass(channel.recv, sock.sendall):
                    return
        finally:
            channel.close()


def _pass(receive: Callable[[int], bytes], send: Callable[[bytes], object]) -> bool:
    data = receive(READ)
    if data:
        send(data)
    return bool(data)
