"""A real HAProxy on loopback, and `wrk`, which sends it requests."""

from __future__ import annotations

import csv
import io
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SECONDS = 10
CONFIG = """
global
  stats socket {folder}/admin.sock mode 600 level admin
  stats socket {folder}/user.sock mode 600 level user
  stats socket ipv4@127.0.0.1:{runtime_port} level admin
defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
frontend front
  bind 127.0.0.1:{port}
  default_backend web
backend web
  default-server check inter {interval} fall 2 rise 2
"""


class Balancer:
    """HAProxy with a backend `web`; it runs inside `with`."""

    def __init__(self, folder: Path, servers: Mapping[str, str], interval: str = "200ms") -> None:
        self.port, self.runtime_port = _free_ports(2)
        self.socket = folder / "admin.sock"
        self.user_socket = folder / "user.sock"
        self._config = folder / "haproxy.cfg"
        lines = [f"  server {name} {place}\n" for name, place in servers.items()]
        values = {"folder": folder, "port": self.port, "runtime_port": self.runtime_port}
        self._config.write_text(CONFIG.format(**values, interval=interval) + "".join(lines))

    def __enter__(self) -> Balancer:
        self._process = subprocess.Popen(
            ["/usr/sbin/haproxy", "-db", "-f", str(self._config)], stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + SECONDS
        while not self.socket.exists():
            assert self._process.poll() is None, "HAProxy did not start"
            assert time.monotonic() < end
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(SECONDS)
        self.socket.unlink()

    def say(self, command: str) -> str:
        """What HAProxy answers to a command."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(self.socket))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()

    def servers(self) -> dict[str, dict[str, str]]:
        """HAProxy's own counts of each server."""
        table = self.say("show stat web 4 -1").removeprefix("# ").strip()
        return {row["svname"]: row for row in csv.DictReader(io.StringIO(table))}

    def status(self, server: str) -> str:
        """HAProxy's word for the state of a server."""
        return self.servers()[server]["status"]

    def admin(self, server: str) -> str:
        """What the administrator wants of a server, whatever its checks say: ready, drain or maint."""
        _, names, *rows = self.say("show servers state web").strip().splitlines()
        [row] = [row.split() for row in rows if row.split()[3] == server]
        bits = int(row[names.removeprefix("# ").split().index("srv_admin_state")])
        return {0: "ready", 1: "maint", 8: "drain"}[bits]

    def wait_for(self, status: str, *names: str) -> None:
        """Wait until the servers, all by default, have this status."""
        end = time.monotonic() + SECONDS
        while any(
            row["status"] != status
            for name, row in self.servers().items()
            if name in (names or [name])
        ):
            assert time.monotonic() < end, self.servers()
            time.sleep(0.02)

    def wait_for_sessions(self) -> None:
        """Wait until requests are under way."""
        end = time.monotonic() + SECONDS
        while not any(int(row["scur"]) for row in self.servers().values()):
            assert time.monotonic() < end
            time.sleep(0.01)


class Load:
    """What `wrk` told at its end."""

    def __init__(self, said: str) -> None:
        self.said = said
        [sent] = re.findall(r"(\d+) requests in", said)
        self.requests = int(sent)
        wrong = re.findall(r"Non-2xx or 3xx responses: (\d+)", said)
        wrong += [
            count
            for line in re.findall(r"Socket errors: .*", said)
            for count in re.findall(r"\d+", line)
        ]
        self.failed = sum(map(int, wrong))


@contextmanager
def load_on(balancer: Balancer, seconds: int) -> Iterator[list[Load]]:
    """Send requests of 0.05 s each over eight connections until the block is left, which has to be
    before `seconds` are over; the list then holds what came of it.
    """
    command = ["wrk", "-t", "1", "-c", "8", "-d", f"{seconds}s", "--timeout", "5s"]
    process = subprocess.Popen(
        [*command, f"http://127.0.0.1:{balancer.port}/late?0.05"], stdout=subprocess.PIPE, text=True
    )
    found: list[Load] = []
    try:
        balancer.wait_for_sessions()
        yield found
        assert process.poll() is None, "the requests ended too early"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=SECONDS)
        found.append(Load(said))
    finally:
        process.kill()
        process.wait(SECONDS)


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports
