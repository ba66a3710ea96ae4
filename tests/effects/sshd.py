"""A real OpenSSH server on loopback for the tests: its own keys, its own port, ended by pid."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from unifyweaver_py._terms import Term

SSHD = "/usr/sbin/sshd"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_key(path: Path, kind: str = "ed25519") -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True, timeout=60
    )
    return path


@dataclass
class Sshd:
    """The server, and the option terms with which a target reaches it."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    user: str = field(default_factory=getpass.getuser)

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def options(self, **changed: object) -> list[Term]:
        """The options as terms; a changed one given as None is left out."""
        options: dict[str, object] = {
            "user": self.user,
            "ssh_port": self.port,
            "key_file": str(self.folder / "user_key"),
            "agent": "false",
            "known_hosts": str(self.known_hosts),
        }
        options |= changed
        return [Term(name, (value,)) for name, value in options.items() if value is not None]

    def target(self, host: str = "127.0.0.1", **changed: object) -> Term:
        return Term("target", ("ssh", host, self.options(**changed)))

    def sessions(self) -> list[int]:
        """The processes of the server that serve a connection."""
        return descendants(self.process.pid)

    def cut(self) -> None:
        """Kill every connection's server process."""
        for pid in self.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        children = self.sessions()
        self.process.terminate()
        self.process.wait(timeout=10)
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Those whose name is `sshd` among the processes below `pid`."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                for child in task.read_text().split():
                    if Path(f"/proc/{child}/comm").read_text().startswith("sshd"):
                        found.append(int(child))
                        waiting.append(int(child))
    return found


def start_sshd(folder: Path, *options: str) -> Sshd:
    folder.mkdir(parents=True, exist_ok=True)
    new_key(folder / "host_key")
    new_key(folder / "user_key")
    (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())
    (folder / "authorized_keys").chmod(0o600)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    settings = [
        f"HostKey={folder}/host_key",
        f"AuthorizedKeysFile={folder}/authorized_keys",
        "ListenAddress=127.0.0.1",
        f"PidFile={folder}/sshd.pid",
        "StrictModes=no",
        "UsePAM=no",
        "PasswordAuthentication=no",
        "KbdInteractiveAuthentication=no",
        "PrintMotd=no",
        *options,
    ]
    words = [SSHD, "-D", "-e", "-f", "/dev/null", "-p", str(port)]
    for setting in settings:
        words += ["-o", setting]
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = Sshd(folder, port, process)
    server.known_hosts.write_text(f"[127.0.0.1]:{port} {key_of(folder / 'host_key.pub')}\n")
    _wait_until_listening(server)
    return server


def key_of(public: Path) -> str:
    return " ".join(public.read_text().split()[:2])


def _wait_until_listening(server: Sshd) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1) as sock:
            if sock.recv(4) == b"SSH-":
                return
        if server.process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError((server.folder / "sshd.log").read_text())


def once_there(path: Path, act: Callable[[], object]) -> None:
    """Do something as soon as a file exists, in a thread of its own; for at most 20 s."""

    def wait() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if path.exists():
                act()
                return
            time.sleep(0.01)

    threading.Thread(target=wait, daemon=True).start()
