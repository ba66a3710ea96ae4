"""Scripts and forwarded connections over SSH: one connection a host and run, one channel an exec.

Fabric holds the connection and Paramiko speaks the protocol; commands run on bare channels, because
Fabric's `run` and `put` cost several round trips and wait without a time limit. This module imports
both: import it where it is used.
"""

from __future__ import annotations

import logging
import os
import random
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import fabric
import paramiko
from paramiko.config import SSHConfig
from paramiko.ssh_exception import (
    AuthenticationException,
    ChannelException,
    SSHException,
)

from unifyweaver_py._terms import Term
from unifyweaver_py.effects.base import (
    POLL,
    DeadlineError,
    EffectError,
    Output,
    Reason,
    Run,
    StoppedError,
    command_line,
    failed,
    framed,
    guarded,
    unreachable,
)
from unifyweaver_py.effects.files import in_blocks
from unifyweaver_py.effects.known_hosts import KnownHosts, Verdict, host_name
from unifyweaver_py.effects.ssh_config import Login, resolve

KEEPALIVE_SECONDS = 5
DEAD_LINK_SECONDS = 15
RETRIES = 3
WINDOW = 4 << 20
PACKET = 1 << 15
READ = 1 << 16
OUTPUT_GRACE = 0.5
STOP_GRACE = 0.2
# A cipher that authenticates by itself costs the client less than one with a MAC beside it.
CIPHERS_FIRST = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
MSG_CHANNEL_REQUEST = b"\x62"
OPEN_PROHIBITED = 1
OPEN_CONNECT_FAILED = 2

# Paramiko reports what it raises to its log as well, and without a handler Python prints that.
_LOG = "unifyweaver_py.ssh"
logging.getLogger(_LOG).addHandler(logging.NullHandler())


class _DroppedError(EffectError):
    """The connection ended before the server had said who it is; another attempt may succeed."""


class Connection:
    """An open, authenticated connection to a target, with those to the hosts it leads through."""

    def __init__(self) -> None:
        self._legs: list[fabric.Connection] = []
        self._sockets: list[Any] = []
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
        """Connect, hop after hop; `close` from another thread ends it early."""
        for leg in (*login.hops, login):
            sock = self._socket(leg, deadline)
            self._sockets.append(sock)
            connection = _fabric_connection(leg, sock, deadline)
            self._legs.append(connection)
            if self._aborted:
                self.close()
                raise StoppedError
            connection.open()
            connection.transport.set_keepalive(KEEPALIVE_SECONDS)
        if self._aborted:
            self.close()
            raise StoppedError
        return self

    def _socket(self, leg: Login, deadline: float) -> Any:
        if self._legs:
            return self.transport.open_channel(
                "direct-tcpip", (leg.host, leg.port), ("127.0.0.1", 0), timeout=_left(deadline)
            )
        if leg.proxy_command:
            ours, self._proxy = _proxied(leg.proxy_command)
            return ours
        return _dialled(leg.host, leg.port, leg.family, deadline)

    def close(self) -> None:
        """End the connection at once."""
        self._aborted = True
        if self._sockets:
            # Wakes Paramiko's reading threads, which otherwise look only every 0.1 s.
            with suppress(OSError):
                self._sockets[0].shutdown(socket.SHUT_RDWR)
        for leg in reversed(self._legs):
            with suppress(OSError, EOFError, SSHException):
                leg.client.close()
        for sock in reversed(self._sockets):
            with suppress(OSError, EOFError, SSHException):
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
        return guarded(lambda: connection.open(login, deadline), stop, deadline, connection.close)
    except EffectError:
        connection.close()
        raise
    except (SSHException, EOFError, OSError) as error:
        connection.close()
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
        case ChannelException():
            reason = unreachable(f"the host in between could not connect: {text}")
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


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineError
    return left


# ---- sockets


def _dialled(host: str, port: int, family: int, deadline: float) -> socket.socket:
    """A TCP connection to the first address that answers; each gets its share of the time."""
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    for index, (kind, _, _, _, address) in enumerate(found):
        sock = socket.socket(kind, socket.SOCK_STREAM)
        sock.settimeout(_left(deadline) / (len(found) - index))
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


def _proxied(command: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
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


# ---- setting up a connection


@lru_cache(maxsize=1)
def _fabric_config() -> fabric.Config:
    return fabric.Config(lazy=True, ssh_config=SSHConfig())


def _fabric_connection(login: Login, sock: Any, deadline: float) -> fabric.Connection:
    left = _left(deadline)
    trust = _Trust(login)
    keys = _keys(login)
    connection = fabric.Connection(
        login.host,
        user=login.user,
        port=login.port,
        config=_fabric_config(),
        gateway=False,
        forward_agent=False,
        connect_kwargs={
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
        },
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


# ---- scripts


def run_script(
    run: Run,
    host: str,
    options: Mapping[str, Any],
    script: str,
    *,
    payload: Iterable[bytes],
    seconds: float,
    stop: threading.Event,
    sudo: bool = False,
) -> Term:
    """Run the script on the host as one exec; `payload` follows it on standard input.

    The answer is as `Effects.shell` says. When `seconds` are over or `stop` is set, the script's
    process group gets TERM, as far as the link still carries it.
    """
    deadline = time.monotonic() + seconds
    try:
        connection = connect(run, host, options, stop)
    except EffectError as error:
        return failed(error.reason)
    text = framed(script)
    blocks = in_blocks(_after(text, payload), PACKET - 64)
    exec_ = _Exec(connection, command_line(text, sudo=sudo), blocks)
    try:
        return exec_.hold(deadline, stop)
    finally:
        run.count(
            host,
            execs=int(exec_.requested),
            bytes_sent=exec_.sent,
            bytes_received=exec_.output.received,
        )


def _after(text: bytes, payload: Iterable[bytes]) -> Iterator[bytes]:
    yield text
    yield from payload


class _Exec:
    """One command on a channel: a thread opens it and sends, the caller reads and waits."""

    def __init__(self, connection: Connection, command: str, blocks: Iterator[bytes]) -> None:
        self.output = Output()
        self.sent = 0
        self.requested = False
        self._connection = connection
        self._command = command
        self._blocks = blocks
        self._channel: paramiko.Channel | None = None
        self._opened = threading.Event()
        self._over = False
        self._started = False
        self._turn = threading.Lock()
        self._sender_ended = threading.Event()
        self._error: Exception | None = None
        self._last_data = 0.0

    def hold(self, deadline: float, stop: threading.Event) -> Term:
        """Until the command and its output have ended, or it has to end."""
        sender = threading.Thread(target=self._send, name="unifyweaver-sender", daemon=True)
        sender.start()
        try:
            while not self._opened.wait(POLL):
                self._check(deadline, stop)
            if self._channel is None:
                return failed(self._failure())
            status = self._read(self._channel, deadline, stop)
        except EffectError as error:
            self._stop()
            return self.output.cut(error.reason) if self._started else failed(error.reason)
        self._give_up()
        self._channel.close()
        self._sender_ended.wait(STOP_GRACE)
        if status is not None:
            return self.output.done(status)
        return self._ended_without_status()

    def _check(self, deadline: float, stop: threading.Event) -> None:
        if stop.is_set():
            raise StoppedError
        if time.monotonic() > deadline:
            raise DeadlineError

    def _failure(self) -> Reason:
        match self._error:
            case None:
                return unreachable("no channel")
            case OSError() as error if error.errno is not None:
                return reason_of(error)
        return unreachable(f"no channel: {self._error or type(self._error).__name__}")

    def _ended_without_status(self) -> Term:
        if self._error is not None and not isinstance(
            self._error, (OSError, EOFError, SSHException)
        ):
            raise self._error
        if not self._started:
            return failed(unreachable("the host did not run the command"))
        if self._connection.alive:
            return self.output.cut(unreachable("the command ended without an exit status"))
        return self.output.cut(unreachable("the connection was lost"))

    def _give_up(self) -> None:
        """Nothing is sent from now on."""
        with self._turn:
            self._over = True

    # the sending thread

    def _send(self) -> None:
        try:
            channel = self._connection.transport.open_session()
            channel.settimeout(POLL)
            self._channel = channel
            self.requested = True
            self._opened.set()
            channel.exec_command(self._command)
            if self._begin() and all(self._send_block(channel, block) for block in self._blocks):
                channel.shutdown_write()
        except Exception as error:  # noqa: BLE001 - judged by the reading thread
            self._error = error
            if self._channel is not None and not isinstance(error, OSError):
                self._channel.close()
        finally:
            self._opened.set()
            self._sender_ended.set()

    def _begin(self) -> bool:
        """False when the caller has given up; from here on the script may have run."""
        with self._turn:
            self._started = not self._over
        return self._started

    def _send_block(self, channel: paramiko.Channel, block: bytes) -> bool:
        """False when nobody reads any more, or nobody wants it sent."""
        rest = memoryview(block)
        while rest:
            if self._over or channel.exit_status_ready():
                return False
            try:
                sent = channel.send(rest)
            except TimeoutError:
                continue
            if sent == 0:
                return False
            self.sent += sent
            rest = rest[sent:]
        return True

    # the reading thread

    def _read(
        self, channel: paramiko.Channel, deadline: float, stop: threading.Event
    ) -> int | None:
        """The exit status; None when the channel closed without one."""
        poller = select.poll()
        poller.register(channel.fileno(), select.POLLIN)
        while True:
            self._drain(channel)
            if channel.exit_status_ready() and self._output_ended(channel):
                self._drain(channel)
                return channel.exit_status if channel.exit_status >= 0 else None
            self._check(deadline, stop)
            if channel.eof_received:
                channel.status_event.wait(POLL)
            else:
                poller.poll(1000 * POLL)

    def _output_ended(self, channel: paramiko.Channel) -> bool:
        if channel.eof_received or channel.closed:
            return True
        # A process left behind may hold the streams open for as long as it lives.
        return time.monotonic() - self._last_data > OUTPUT_GRACE

    def _drain(self, channel: paramiko.Channel) -> None:
        while channel.recv_ready():
            self.output.out(channel.recv(READ))
            self._last_data = time.monotonic()
        while channel.recv_stderr_ready():
            self.output.error(channel.recv_stderr(READ))
            self._last_data = time.monotonic()

    def _stop(self) -> None:
        """End the remote command if the link carries it; drop the connection if it does not."""
        self._give_up()
        channel = self._channel
        if not self._sender_ended.wait(STOP_GRACE):
            self._connection.close()
        elif channel is not None and not channel.closed:
            _signal(channel, "TERM")
            channel.status_event.wait(STOP_GRACE)
            channel.close()


def _signal(channel: paramiko.Channel, name: str) -> None:
    """Ask the server to send a signal to the command's process group; Paramiko has no method for
    it.
    """
    message = paramiko.Message()
    message.add_byte(MSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string(name)
    with suppress(OSError, EOFError, SSHException):
        channel.transport._send_user_message(message)


# ---- forwarding


def forwarded(connection: Connection, host: str, port: int, seconds: float) -> socket.socket:
    """A socket to `host:port` as seen from the target; it ends when either side closes.

    Raises `EffectError` when the target cannot connect, or does not forward.
    """
    try:
        channel = connection.transport.open_channel(
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
