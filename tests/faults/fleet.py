"""The demo's hosts as a process of its own, with breakpoints, and each with a small disk for its services.

Run by `tests.faults.hosts` in a mount namespace of its own. It prints one line of JSON, then does what it reads, a
line each: `cut HOST` drops the connections, `kill HOST` ends all that runs there too. It answers each with `done`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from unifyweaver_py.demo import fleet

TARGET = Path(__file__).parent / "target"
MEGABYTES = 8


class Fleet(fleet.Fleet):
    """Its hosts find the `sh` with breakpoints first."""

    def _environment(self) -> dict[str, str]:
        environment = super()._environment()
        return {**environment, "PATH": f"{TARGET}:{environment['PATH']}"}


def kill(host: object) -> None:
    """End everything that was started on the host."""
    mark = f"HOME={host.folder}".encode()
    while fleet._signal_marked(mark, signal.SIGKILL):
        pass


def main() -> None:
    with Fleet(int(sys.argv[1]), sys.argv[2]) as hosts:
        by_name = {host.name: host for host in hosts.hosts}
        for host in hosts.hosts:
            disk = host.folder / "services"
            disk.mkdir()
            (host.folder / ".faults").mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(disk)]
            subprocess.run(mount, check=True)
        options = {host.name: hosts.host_options(host) for host in hosts.hosts}
        print(json.dumps(options), flush=True)
        for line in sys.stdin:
            word, name = line.split()
            hosts.cut(by_name[name])
            if word == "kill":
                kill(by_name[name])
            print("done", flush=True)


if __name__ == "__main__":
    main()
