"""A fleet of SSH hosts on loopback, inside this process: no root, nothing to install on a target.

    with Fleet(3) as fleet:
        for host in fleet.hosts: ...

`python -m unifyweaver_py.demo.fleet --hosts 3 --dir D` is the same fleet as a process by itself:
it prints one line of JSON and runs until its standard input ends, or TERM. Linux only, as every
target is.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import json
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncssh
    from typing_extensions import Self

    from unifyweaver_py.demo._host import Host

MARK = "UNIFYWEAVER_FLEET"
FIRST_ADDRESS = 11
MOST_HOSTS = 200
START_SECONDS = 30.0
GRACE_SECONDS = 1.0
STOP_SECONDS = 10.0

Value = TypeVar("Value")


class Fleet:
    """`count` SSH hosts at 127.0.0.11, .12, ..., each with its own folder, port and host key.

    `folder` keeps the hosts' folders, the client key and the known_hosts file; without it a
    temporary one is made, and removed by `stop`. Services started on the hosts live until `stop`,
    which ends every process that the hosts started, and only those.

    Raises ModuleNotFoundError without asyncssh, OSError on another system than Linux, ValueError
    for `count` not in 1..200.
    """

    def __init__(self, count: int = 3, folder: str | os.PathLike[str] | None = None) -> None:
        if not 1 <= count <= MOST_HOSTS:
            raise ValueError(f"a fleet has 1 to {MOST_HOSTS} hosts, not {count}")
        if not sys.platform.startswith("linux"):
            raise OSError(f"the demo fleet runs on Linux only, and this is {sys.platform}")
        self._count = count
        self._given = folder
        self._token = secrets.token_hex(16)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._acceptors: list[asyncssh.SSHAcceptor] = []
        self.hosts: list[Host] = []
        self.user = "demo"

    @property
    def key_file(self) -> Path:
        """The private key that every host accepts."""
        return self.folder / "client_key"

    @property
    def known_hosts(self) -> Path:
        """The known_hosts file that names every host's key."""
        return self.folder / "known_hosts"

    def host_options(self, host: Host) -> dict[str, object]:
        """What `declare_service_hosts` wants to know to reach `host` and to run a service on it."""
        return {
            "user": self.user,
            "port": host.service_port,
            "ssh_port": host.ssh_port,
            "key_file": str(self.key_file),
            "known_hosts": str(self.known_hosts),
            "agent": False,
        }

    def start(self) -> Self:
        """Make the hosts and wait until all of them accept logins."""
        _require_asyncssh()
        self.hosts, self._acceptors = [], []
        self.folder = Path(self._given or tempfile.mkdtemp(prefix="unifyweaver-fleet-")).absolute()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True)
        self._thread.start()
        atexit.register(self.stop)
        try:
            self._call(self._open(), START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def cut(self, host: Host) -> None:
        """Drop every connection to `host`. What runs there runs on, and it accepts new logins."""
        self._call(_drop(host), STOP_SECONDS)

    def stop(self) -> None:
        """End the hosts and every process started on them. A stop that was interrupted, or was
        never asked for, is made up for when Python exits.
        """
        if self._loop is None:
            return
        try:
            self._end_hosts(self._loop)
        finally:
            end_marked(f"{MARK}={self._token}")
        self._loop.close()
        self._loop = None
        if self._given is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.stop)

    def _end_hosts(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what the event loop serves, and end its thread."""
        if self._thread and self._thread.is_alive():
            self._call(self._close(), STOP_SECONDS)
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _call(self, work: Coroutine[Any, Any, Value], seconds: float) -> Value:
        """Run `work` on the fleet's event loop and wait for its value."""
        if self._loop is None:
            work.close()
            raise RuntimeError("the fleet is not running")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    async def _open(self) -> None:
        import asyncssh

        from unifyweaver_py.demo._host import Host

        key = asyncssh.generate_private_key("ssh-ed25519")
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_private(self.key_file, key.export_private_key())
        for number, port in enumerate(free_ports(self._count), start=1):
            folder = self.folder / f"host{number}"
            folder.mkdir(exist_ok=True)
            host = Host(f"127.0.0.{FIRST_ADDRESS + number - 1}", folder, port)
            client_key = key.export_public_key().decode()
            self._acceptors.append(await host.listen(client_key, self._environment()))
            self.hosts.append(host)
        lines = [host.known_hosts_line + "\n" for host in self.hosts]
        self.known_hosts.write_text("".join(lines), encoding="utf-8")

    async def _close(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        for host in self.hosts:
            host.cut()
        current = asyncio.current_task()
        sessions = [task for task in asyncio.all_tasks() if task is not current]
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)

    def _environment(self) -> dict[str, str]:
        """What commands see: this Python first on the PATH, and the mark that `stop` looks for."""
        path = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
        return {
            "PATH": os.pathsep.join(path),
            "USER": self.user,
            "LOGNAME": self.user,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            MARK: self._token,
        }


def free_ports(count: int) -> list[int]:
    """`count` free ports, below those that the kernel gives to outgoing connections.

    Raises OSError when there are not as many.
    """
    ports: list[int] = []
    for port in random.sample(range(20_000, 32_000), 12_000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError(f"there are no {count} free ports")


def end_marked(mark: str) -> None:
    """End every process whose environment holds `mark`, a NAME=value: TERM, a second later KILL.

    Raises TimeoutError when one is still there after ten seconds.
    """
    begun = time.monotonic()
    while time.monotonic() - begun < STOP_SECONDS:
        term = time.monotonic() - begun < GRACE_SECONDS
        if not _signal_marked(mark.encode(), signal.SIGTERM if term else signal.SIGKILL):
            return
        time.sleep(0.02)
    raise TimeoutError("processes started on the fleet's hosts could not be ended")


def _signal_marked(mark: bytes, number: signal.Signals) -> int:
    """Signal the processes that carry the mark, and count them."""
    found = 0
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with suppress(ProcessLookupError, FileNotFoundError, PermissionError):
            handle = os.pidfd_open(pid)  # so that what is looked at is what is signalled
            try:
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(handle, number)
                    found += 1
            finally:
                os.close(handle)
    return found


async def _drop(host: Host) -> None:
    host.cut()


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _require_asyncssh() -> None:
    try:
        import asyncssh  # noqa: F401  (asked for here so that its absence is explained)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the demo fleet needs asyncssh: pip install 'unifyweaver_py[demo]'", name="asyncssh"
        ) from error


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Leave in order at the first signal; a second one must not interrupt that."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def main() -> None:
    """Run a fleet until standard input ends or a signal comes."""
    parser = argparse.ArgumentParser(description="SSH hosts on loopback, until standard input ends")
    parser.add_argument("--hosts", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--dir", help="where their folders are (default: a temporary folder)")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    with Fleet(options.hosts, options.dir) as fleet:
        print(json.dumps(_description(fleet)), flush=True)
        while sys.stdin.buffer.read(4096):
            continue


def _description(fleet: Fleet) -> dict[str, object]:
    hosts = [
        {
            "name": host.name,
            "ssh_port": host.ssh_port,
            "service_port": host.service_port,
            "folder": str(host.folder),
        }
        for host in fleet.hosts
    ]
    return {
        "user": fleet.user,
        "key_file": str(fleet.key_file),
        "known_hosts": str(fleet.known_hosts),
        "hosts": hosts,
    }


if __name__ == "__main__":
    main()
