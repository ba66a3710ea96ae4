"""Real hosts on one machine: each has its own network, processes and mounts, and runs `sshd`.

    with Lab(3) as lab:
        for host in lab.hosts:
            ssh(host.user, host.address, key=lab.key_file, known_hosts=lab.known_hosts)

A host is at 10.77.N.11, .12, ... and can be reached from this machine and from the other hosts.
Inside, `/srv`, `/root`, `/tmp` and `/run` are its own, and all other files are this machine's.
Linux with root only.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

from .machine import (
    NETNS,
    PATH,
    SECONDS,
    STATE,
    claim_number,
    inhabitants,
    interrupt,
    ip,
    lab_name,
    make_key,
    obstacle,
    release_number,
    sshd,
    undisturbed,
    wait_until,
)

FIRST_ADDRESS = 11
MOST_HOSTS = 100

# The listener and its sessions, which may outlive their connections for a moment and then, about
# to end, have no command line any more.
SSHD = re.compile(r"(/\S+/)?sshd(-session|-auth)?(:? |$)|$")

# A host's first process: it makes the host's mounts, then becomes sshd, which reaps orphans too.
INIT = """
set -e
cd "$1"
hostname "$2"
mount -t proc proc /proc
mount --bind srv /srv
mount --bind shadow /etc/shadow
mount -t tmpfs -o mode=700 tmpfs /root
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount --bind run /run
shift 2
cd /
exec "$@"
"""


class LabUnavailableError(Exception):
    """No lab can be made on this machine, for the reason given."""


class Host:
    """A host of a lab: `name`, `address`, `user`, `known_hosts_line`, and what can befall it."""

    user = "root"

    def __init__(self, lab: Lab, number: int) -> None:
        self.name = f"{lab.name}-{number}"
        self.address = f"10.77.{lab.number}.{FIRST_ADDRESS + number - 1}"
        self._bridge = lab.name
        # Always the same, so that nobody keeps a stale neighbour entry when the host comes back.
        self._mac = f"02:77:00:00:{lab.number:02x}:{number:02x}"
        self._folder = lab.folder / f"host{number}"
        self._run = self._folder / "run"
        self._unshare: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._limited = False
        (self._folder / "srv").mkdir(parents=True)
        (self._run / "sshd").mkdir(parents=True)
        # sshd refuses the key of a root that is locked, as it is on some machines.
        (self._folder / "shadow").write_text("root:*:19000:0:99999:7:::\n")
        (self._run / "authorized_keys").write_text(Path(f"{lab.key_file}.pub").read_text())
        self.known_hosts_line = f"{self.address} {make_key(self._run / 'host_key')}"

    @property
    def alive(self) -> bool:
        """Whether the host is up."""
        return self._unshare is not None and self._unshare.poll() is None

    @property
    def srv(self) -> Path:
        """The host's /srv as seen from outside; of a dead host, what is on its disk."""
        return Path(f"/proc/{self._pid}/root/srv") if self.alive else self._folder / "srv"

    @property
    def state(self) -> Path:
        """The host's /run as seen from outside. It stays when the host is killed or reset."""
        return self._run

    @property
    def log(self) -> str:
        """What sshd has logged since the host was made or last reset."""
        return (self._run / "sshd.log").read_text(errors="replace")

    @property
    def connections(self) -> int:
        """How many logins sshd has accepted since the host was made or last reset."""
        return self.log.count("Accepted publickey for ")

    @property
    def execs(self) -> int:
        """How many commands sshd has run since the host was made or last reset."""
        return self.log.count("Starting session: command ")

    def start(self) -> None:
        """Bring the host up and wait until its sshd accepts connections. Its disk is as it was."""
        self._plug_in()
        self._unshare = self._boot()
        wait_until(self._accepts, f"{self.name} does not accept connections")
        children = f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children"
        self._pid = int(Path(children).read_text().split()[0])

    def kill(self) -> None:
        """Take the host's power away: it falls silent at once, and all that ran on it is gone."""
        if self._unshare is not None:
            self.link_down()
            self.end_processes()
            ip(f"link del {self.name}", f"netns del {self.name}")

    def end_processes(self) -> None:
        """End everything that runs on the host."""
        if self._unshare is not None:
            self._unshare.kill()  # it ignores TERM; --kill-child ends all that is inside
            self._unshare.wait(SECONDS)
            self._unshare, self._limited = None, False

    def cut(self) -> None:
        """End every connection to the host. What runs over them runs on."""
        everything = inhabitants(self._pid).items()
        sessions = [str(pid) for pid, command in everything if command.startswith("sshd: ")]
        self.run(f"kill -KILL {' '.join(sessions)}")

    def link_down(self) -> None:
        """Cut the host's network cable: packets are lost, in both directions, without notice."""
        ip(f"link set {self.name} down")

    def link_up(self) -> None:
        """Mend what `link_down` cut; returns when packets pass again."""
        ip(f"link set {self.name} up")
        wait_until(self._accepts, f"{self.name} does not accept connections")

    def limit_disk(self, megabytes: int) -> None:
        """Put an empty disk of this size at /srv, until the host is reset or killed."""
        self._unlimit_disk()
        self.check(f"mount -t tmpfs -o size={megabytes}m tmpfs /srv")
        self._limited = True

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the host, past its sshd."""
        inside = ("--mount", "--pid", "--uts", "--net", "--root", "--wd")
        return subprocess.run(
            ["nsenter", f"--target={self._pid}", *inside, "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"},
        )

    def check(self, command: str) -> str:
        """The output of a command run on the host, which must succeed."""
        result = self.run(command)
        if result.returncode:
            raise RuntimeError(f"{command!r} on {self.name}: {result.stderr.strip()}")
        return result.stdout

    def processes(self) -> dict[int, str]:
        """The command lines of what runs on the host beside sshd, by the pids they have there."""
        everything = inhabitants(self._pid).items()
        return {pid: command for pid, command in everything if not SSHD.match(command)}

    def reset(self) -> None:
        """Make the host as new: alive, link up, nothing running, its disk and log empty."""
        if self.alive:
            self.link_up()
        else:
            self.kill()
            self.start()
        self.run("kill -KILL -1")
        wait_until(lambda: not inhabitants(self._pid), f"processes survive on {self.name}")
        self._unlimit_disk()
        self.check("find /srv /root /tmp -mindepth 1 -delete")
        os.truncate(self._run / "sshd.log", 0)

    def _unlimit_disk(self) -> None:
        if self._limited:
            self.check("umount /srv")
            self._limited = False

    def _plug_in(self) -> None:
        peer = f"peer name eth0 address {self._mac} netns {self.name}"
        ip(
            f"netns add {self.name}",
            f"link add {self.name} type veth {peer}",
            f"link set {self.name} master {self._bridge} up",
        )
        inside = (f"addr add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up")
        ip(*inside, netns=self.name)

    def _boot(self) -> subprocess.Popen[bytes]:
        unshare = ("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child")
        init = ("sh", "-c", INIT, "init", str(self._folder), self.name, *sshd(self.address))
        with (self._folder / "console").open("wb") as console:
            return subprocess.Popen(
                ["nsenter", f"--net={NETNS / self.name}", *unshare, *init],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,  # the terminal's Ctrl-C is not for the hosts
                env={"PATH": PATH, "LANG": "C.UTF-8"},
            )

    def _accepts(self) -> bool:
        if not self.alive:
            said = (self._folder / "console").read_text(errors="replace").strip()
            raise RuntimeError(f"{self.name} does not start: {said}")
        with suppress(OSError), socket.create_connection((self.address, 22), 1) as connection:
            return connection.recv(4) == b"SSH-"
        return False


class Lab:
    """`count` hosts (1 to 100) for as long as the `with` block lasts, however it ends.

    Labs of several processes at once keep out of each other's way. What a killed process left
    behind is removed by the next `Lab`. In the block, TERM raises KeyboardInterrupt so that the
    hosts are removed too.

    Raises LabUnavailableError where no lab can be made.
    """

    def __init__(self, count: int = 3) -> None:
        if not 1 <= count <= MOST_HOSTS:
            raise ValueError(f"a lab has 1 to {MOST_HOSTS} hosts, not {count}")
        self._count = count
        self.hosts: list[Host] = []

    @property
    def key_file(self) -> Path:
        """The private key that every host accepts for root."""
        return self.folder / "client_key"

    @property
    def known_hosts(self) -> Path:
        """The known_hosts file that names every host's key."""
        return self.folder / "known_hosts"

    def wrong_known_hosts(self, host: Host) -> Path:
        """A known_hosts file that holds another key for `host`, and the right ones for the rest."""
        path = self.folder / f"wrong-{host.name}"
        if not path.exists():
            other = f"{host.address} {make_key(Path(f'{path}.key'))}"
            lines = [other if each is host else each.known_hosts_line for each in self.hosts]
            path.write_text("\n".join([*lines, ""]))
        return path

    def __enter__(self) -> Lab:
        if reason := obstacle():
            raise LabUnavailableError(reason)
        self.number = claim_number()
        self.name = lab_name(self.number)
        self.folder = STATE / str(self.number)
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._in_main_thread:
            self._on_term = signal.signal(signal.SIGTERM, interrupt)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        with undisturbed() if self._in_main_thread else nullcontext():
            for host in self.hosts:
                host.end_processes()
            release_number(self.number)
        if self._in_main_thread:
            signal.signal(signal.SIGTERM, self._on_term)

    def _start(self) -> None:
        try:
            ip(f"link add {self.name} type bridge")
        except RuntimeError as error:
            raise LabUnavailableError(f"no network bridge can be made: {error}") from error
        ip(f"addr add 10.77.{self.number}.1/24 dev {self.name}", f"link set {self.name} up")
        make_key(self.key_file)
        with ThreadPoolExecutor(self._count) as pool:
            numbers = range(1, self._count + 1)
            self.hosts = list(pool.map(lambda number: Host(self, number), numbers))
            list(pool.map(Host.start, self.hosts))
        self.known_hosts.write_text("".join(f"{host.known_hosts_line}\n" for host in self.hosts))

    def reset(self) -> None:
        """Make every host as new."""
        with ThreadPoolExecutor(self._count) as pool:
            list(pool.map(Host.reset, self.hosts))
