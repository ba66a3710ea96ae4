"""One SSH host of the demo fleet: an asyncssh server that runs `sh` for real in its own folder.

It behaves as OpenSSH without a terminal does: a command runs in its own session, its streams are
pipes, the client's end of file is passed on, the channel closes once the command has exited and
its output has ended, and a command outlives a client that goes away.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import asyncssh

CHUNK = 64 * 1024
Value = TypeVar("Value")
Session = asyncssh.SSHServerProcess[bytes]


@dataclass
class Host:
    """A host of the fleet.

    `name` is its address on loopback, `folder` the home folder of its commands, `service_port` a
    port that was free on loopback when the fleet started. `connections` and `execs` count the
    accepted logins and the commands run so far.
    """

    name: str
    folder: Path
    service_port: int
    ssh_port: int = 0
    host_key: str = ""
    connections: int = 0
    execs: int = 0
    _links: set[asyncssh.SSHServerConnection] = field(default_factory=set, repr=False)

    @property
    def known_hosts_line(self) -> str:
        """The host's line of a known_hosts file."""
        return f"[{self.name}]:{self.ssh_port} {self.host_key}"

    async def listen(self, client_key: str, environment: Mapping[str, str]) -> asyncssh.SSHAcceptor:
        """Accept logins with `client_key`; commands get `environment`, and the folder as HOME."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        self.host_key = key.export_public_key().decode().strip()
        environment = {**environment, "HOME": str(self.folder)}

        async def run(session: Session) -> None:
            self.execs += 1
            await _run(session, self.folder, environment)

        acceptor = await asyncssh.listen(
            self.name,
            0,
            server_factory=lambda: _Login(self),
            server_host_keys=[key],
            authorized_client_keys=asyncssh.import_authorized_keys(client_key),
            process_factory=run,
            encoding=None,
            allow_pty=False,
            agent_forwarding=False,
            gss_host=None,
        )
        self.ssh_port = acceptor.get_port()
        return acceptor

    def cut(self) -> None:
        """Drop every connection to this host. To be called on the event loop that serves it."""
        for link in list(self._links):
            link.abort()


class _Login(asyncssh.SSHServer):
    """Counts a host's logins and lets them forward channels to loopback."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._link = conn
        self._host._links.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncssh's signature)
        self._host._links.discard(self._link)

    def auth_completed(self) -> None:
        self._host.connections += 1

    def connection_requested(self, dest_host: str, *_where: object) -> bool:
        """Whether a channel may be forwarded to `dest_host`."""
        return _is_loopback(dest_host)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _run(session: Session, folder: Path, environment: Mapping[str, str]) -> None:
    """Run the session's command until it and its output have ended, or the client is gone."""
    try:
        shell = _start(session.command, folder, environment)
    except (OSError, ValueError) as error:  # too long for a command line, or not text
        session.stderr.write(f"sh: {error}\n".encode())
        session.exit(126)
        return
    stdin, stdout, stderr = _pipes(shell)
    feeding = asyncio.create_task(_feed(session.stdin, stdin))
    ended = asyncio.create_task(
        _ended(_exit_status(shell), _drain(stdout, session.stdout), _drain(stderr, session.stderr))
    )
    gone = asyncio.create_task(session.wait_closed())
    try:
        await asyncio.wait((ended, gone), return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            _report(session, ended.result())
    finally:
        for task in (feeding, ended, gone):
            task.cancel()
        await asyncio.gather(feeding, ended, gone, return_exceptions=True)


def _start(
    command: str | None, folder: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start the command, or without one a shell that reads commands, in a session of its own."""
    return subprocess.Popen(
        ["sh"] if command is None else ["sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )


def _pipes(shell: subprocess.Popen[bytes]) -> list[IO[bytes]]:
    """Our ends of the command's input, output and error output, which never block."""
    pipes = [pipe for pipe in (shell.stdin, shell.stdout, shell.stderr) if pipe]
    for pipe in pipes:
        os.set_blocking(pipe.fileno(), False)
    return pipes


async def _ended(exited: asyncio.Future[int], *outputs: Coroutine[Any, Any, None]) -> int:
    """The exit status, once the command has exited and both its outputs have ended."""
    await asyncio.gather(exited, *outputs)
    return exited.result()


def _report(session: Session, status: int) -> None:
    """Send the exit status, or the signal that ended the command, and close the channel."""
    if status >= 0:
        session.exit(status)
    else:
        session.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))


async def _feed(client: asyncssh.SSHReader[bytes], pipe: IO[bytes]) -> None:
    """Copy the client's stream to the pipe, and close it at the end.

    What a command will not read is discarded.
    """
    with suppress(BrokenPipeError), pipe:
        while data := await _received(client):
            await _write(pipe, data)
    while await _received(client):
        pass


async def _received(client: asyncssh.SSHReader[bytes]) -> bytes:
    """The next bytes from the client, empty at their end or when the connection is lost."""
    for_terminals = (
        asyncssh.BreakReceived,
        asyncssh.SignalReceived,
        asyncssh.TerminalSizeChanged,
    )
    try:
        while True:
            with suppress(*for_terminals):  # there is none here
                return await client.read(CHUNK)
    except (asyncssh.Error, OSError):
        return b""


async def _drain(pipe: IO[bytes], client: asyncssh.SSHWriter[bytes]) -> None:
    """Copy the pipe to the client, no faster than it reads, until either has ended; close it."""
    with suppress(asyncssh.Error, OSError), pipe:
        while data := await _read(pipe):
            client.write(data)
            await client.drain()


async def _read(pipe: IO[bytes]) -> bytes:
    """The next bytes of the pipe, empty at its end."""
    loop = asyncio.get_running_loop()
    while True:
        with suppress(BlockingIOError):
            return os.read(pipe.fileno(), CHUNK)
        with _once(loop.add_reader, loop.remove_reader, pipe) as ready:
            await ready


async def _write(pipe: IO[bytes], data: bytes) -> None:
    """Write all of `data` to the pipe."""
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        with suppress(BlockingIOError):
            rest = rest[os.write(pipe.fileno(), rest) :]
            continue
        with _once(loop.add_writer, loop.remove_writer, pipe) as ready:
            await ready


@contextmanager
def _once(
    watch: Callable[[IO[bytes], Callable[[], None]], None],
    unwatch: Callable[[IO[bytes]], bool],
    pipe: IO[bytes],
) -> Iterator[asyncio.Future[None]]:
    """A future that is done when the pipe is ready. The event loop watches it in the block only."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    watch(pipe, lambda: _settle(ready, None))
    try:
        yield ready
    finally:
        unwatch(pipe)


def _exit_status(shell: subprocess.Popen[bytes]) -> asyncio.Future[int]:
    """The command's exit status, or minus the signal that ended it.

    A thread waits for the command, so that it is reaped even when the client is gone.
    """
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[int] = loop.create_future()

    def reap() -> None:
        status = shell.wait()
        with suppress(RuntimeError):  # the fleet, and with it the loop, may have ended before
            loop.call_soon_threadsafe(_settle, exited, status)

    threading.Thread(target=reap, name=f"reap-{shell.pid}", daemon=True).start()
    return exited


def _settle(future: asyncio.Future[Value], value: Value) -> None:
    """Give the future its value, unless nobody waits for it any more."""
    if not future.done():
        future.set_result(value)
