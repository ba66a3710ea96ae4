"""Scripts over SSH: one channel an exec.

Commands run on bare channels, because Fabric's `run` and `put` cost several round trips and wait
without a time limit. This module imports Paramiko: import it where it is used.
"""

from __future__ import annotations

import re
import select
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import paramiko
from paramiko.ssh_exception import SSHException

from unifyweaver_py._terms import Term
from unifyweaver_py.effects.base import (
    POLL,
    DeadlineError,
    EffectError,
    Reason,
    Run,
    StoppedError,
    failed,
    unreachable,
)
from unifyweaver_py.effects.connection import PACKET, STOP_GRACE, Connection, connect, reason_of
from unifyweaver_py.effects.scripts import Output, command_line, followed, framed
from unifyweaver_py.effects.sockets import DEAD_LINK_SECONDS, READ

OUTPUT_GRACE = 0.5
GROUP_LINE = re.compile(rb"^unifyweaver-group (\d+)\n", re.MULTILINE)
GROUP_WITHIN = 4096


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
        if stop.is_set():
            raise StoppedError
        connection = connect(run, host, options, stop)
    except EffectError as error:
        return failed(error.reason)
    text = framed(script, report_group=True)
    blocks = followed(text, payload, PACKET - 64)
    exec_ = _Exec(connection, command_line(text, sudo=sudo), blocks, sudo=sudo)
    try:
        return exec_.hold(deadline, stop)
    finally:
        run.count(
            host,
            execs=exec_.requested,
            bytes_sent=exec_.sent,
            bytes_received=exec_.output.received,
        )


class _Exec:
    """One command on a channel: a thread opens it and sends, the caller reads and waits."""

    def __init__(
        self, connection: Connection, command: str, blocks: Iterator[bytes], *, sudo: bool
    ) -> None:
        self.output = Output()
        self.sent = 0
        self.requested = 0
        self._sudo = sudo
        self._group: int | None = None
        self._first_errors: bytes | None = b""
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
        self.output.error(self._first_errors or b"")
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
            self.requested += 1
            self._opened.set()
            channel.exec_command(self._command)
            if self._begin() and all(self._send_block(channel, block) for block in self._blocks):
                channel.shutdown_write()
        except Exception as error:  # noqa: BLE001 - judged by the reading thread
            self._error = error
            if self._channel is not None and not isinstance(error, (OSError, EOFError)):
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
            self._take_errors(channel.recv_stderr(READ))
            self._last_data = time.monotonic()

    def _take_errors(self, data: bytes) -> None:
        """Standard error, without the line that tells the script's process group."""
        if self._first_errors is not None:
            data = self._first_errors + data
            found = GROUP_LINE.search(data)
            if found is None and len(data) < GROUP_WITHIN:
                self._first_errors = data
                return
            self._first_errors = None
            if found is not None:
                self._group = int(found[1])
                data = data[: found.start()] + data[found.end() :]
        self.output.error(data)

    def _stop(self) -> None:
        """End the remote command if the link carries it; drop the connection if it does not."""
        self._give_up()
        channel = self._channel
        if not self._sender_ended.wait(STOP_GRACE):
            self._connection.drop()
        elif channel is not None and not channel.closed:
            if self._group is not None:
                self.requested += 1
                self._connection.end_with(self._terminate)
            channel.status_event.wait(STOP_GRACE)
            channel.close()

    def _terminate(self) -> None:
        """TERM to the script's process group; by an exec: sshd passes no signals on for root."""
        prefix = "sudo -n " if self._sudo else ""
        with suppress(OSError, EOFError, SSHException):
            channel = self._connection.transport.open_session(timeout=DEAD_LINK_SECONDS)
            channel.exec_command(f"{prefix}sh -c 'kill -s TERM -- -{self._group}'")
            channel.status_event.wait(DEAD_LINK_SECONDS)
            channel.close()
