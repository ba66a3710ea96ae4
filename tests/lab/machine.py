"""What a lab needs of this machine: its network, its processes, and numbers for its labs."""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

STATE = Path("/run/unifyweaver-lab")
NETNS = Path("/run/netns")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS = ("ip", "mount", "nsenter", "ssh", "ssh-keygen", "sshd", "unshare")
SECONDS = 20.0


def obstacle() -> str | None:
    """Why no lab can be made here, or None."""
    if os.geteuid() != 0:
        return "hosts need root"
    if missing := [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]:
        return f"{', '.join(missing)} not found: apt-get install iproute2 openssh-server"
    spaces = ("--mount", "--pid", "--uts", "--net", "--fork", "--kill-child")
    trial = run("unshare", *spaces, "mount", "-t", "proc", "proc", "/proc")
    return f"no namespaces here: {trial.stderr.strip()}" if trial.returncode else None


def run(*command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of this machine with `text` on its standard input."""
    environment = {"PATH": PATH, "LANG": "C.UTF-8"}
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=environment,
        check=False,
    )


def ip(*lines: str, netns: str | None = None) -> None:
    """Perform lines of `ip`, in a network namespace if one is named; RuntimeError at a failure."""
    where = ("-n", netns) if netns else ()
    result = run("ip", *where, "-batch", "-", text="\n".join([*lines, ""]))
    if result.returncode:
        raise RuntimeError(f"ip: {result.stderr.strip()}")


def make_key(path: Path) -> str:
    """Make a key pair at `path` and `path`.pub; the public key."""
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)).check_returncode()
    return Path(f"{path}.pub").read_text().strip()


def sshd(address: str) -> list[str]:
    """The command line of a host's sshd. No file of this machine configures it.

    Its limits are those of Debian.
    """
    options = {
        "ListenAddress": address,
        "HostKey": "/run/host_key",
        "AuthorizedKeysFile": "/run/authorized_keys",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "StrictModes": "no",
        "UseDNS": "no",
        "PidFile": "none",
        "LogLevel": "VERBOSE",
        "MaxStartups": "10:30:100",
        "MaxSessions": "10",
        "Subsystem": "sftp internal-sftp",
    }
    version = re.search(r"OpenSSH_(\d+)\.(\d+)", run("ssh", "-V").stderr)
    if version and tuple(map(int, version.groups())) >= (9, 8):
        options["PerSourcePenalties"] = (
            "no"  # all tests come from one address, and some mean to be refused
        )
    path = shutil.which("sshd", path=PATH) or "sshd"
    pairs = (f"-o{name}={value}" for name, value in options.items())
    return [path, "-D", "-f", "/dev/null", "-E", "/run/sshd.log", *pairs]


def inhabitants(first: int) -> dict[int, str]:
    """What lives in the pid namespace of process `first`, but for itself.

    Command lines, by the pids that the processes have in there. Zombies are left out.
    """
    space = os.readlink(f"/proc/{first}/ns/pid")
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        # One that has just ended, or that even root may not look at, is none of them.
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if process.name == str(first) or os.readlink(process / "ns/pid") != space:
                continue
            status = (process / "status").read_text()
            if re.search(r"^State:\s+[ZX]", status, re.MULTILINE):
                continue
            pids = re.search(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE)
            command = (process / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
            if pids:
                found[int(pids[1])] = command.decode(errors="replace")
    return found


def wait_until(holds: Callable[[], bool], complaint: str, seconds: float = SECONDS) -> None:
    """Wait until it holds, or raise TimeoutError with the complaint."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        time.sleep(0.01)


def lab_name(number: int) -> str:
    """The name of a lab's bridge; those of its hosts, namespaces and cables begin with it."""
    return f"uwlab{number}"


def claim_number() -> int:
    """A number N for a lab of this process, at 10.77.N.0/24.

    What the labs of ended processes have left behind is removed first.
    """
    STATE.mkdir(mode=0o700, exist_ok=True)
    with _alone():
        for left in STATE.glob("[0-9]*"):
            if not _owned(left):
                _sweep(int(left.name))
        routes = run("ip", "-4", "route", "show").stdout
        for number in random.sample(range(1, 255), 254):
            folder = STATE / str(number)
            if f"10.77.{number}." not in routes and not folder.exists():
                folder.mkdir()
                (folder / "owner").write_text(f"{os.getpid()} {_started_at(os.getpid())}")
                return number
    raise RuntimeError("254 labs are running")


def release_number(number: int) -> None:
    """Remove everything of the lab that has this number, and let others have the number."""
    with _alone():
        _sweep(number)


@contextmanager
def _alone() -> Iterator[None]:
    """A block in which no other process claims or releases a number."""
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(number: int) -> None:
    """Remove everything that a lab of this number may have made: processes, network, files."""
    name = lab_name(number)
    spaces = [space.name for space in NETNS.glob(f"{name}-*")]
    wait_until(lambda: not sum(map(_kill_all_in, spaces)), f"processes survive in {spaces}")
    links = [link.name for link in Path("/sys/class/net").iterdir()]
    cables = [link for link in links if link == name or link.startswith(f"{name}-")]
    ip(*(f"link del {cable}" for cable in cables), *(f"netns del {space}" for space in spaces))
    shutil.rmtree(STATE / str(number))


def _kill_all_in(space: str) -> int:
    """Kill what runs in a network namespace, and count it."""
    pids = [int(pid) for pid in run("ip", "netns", "pids", space).stdout.split()]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def _owned(folder: Path) -> bool:
    """Whether the process that claimed the lab in `folder` still runs."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid, start = (folder / "owner").read_text().split()
        return _started_at(int(pid)) == start
    return False


def _started_at(pid: int) -> str:
    """When the process started, in clock ticks: with it, a pid names one process only."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """Treat a signal as Ctrl-C."""
    raise KeyboardInterrupt


@contextmanager
def undisturbed() -> Iterator[None]:
    """A block that neither Ctrl-C nor TERM interrupts; both are ignored in it. Main thread only."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
