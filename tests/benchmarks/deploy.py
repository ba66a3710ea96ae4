"""How long a deployment to five real hosts takes, beside the least that could do it.

    make benchmark          (or: .venv/bin/python tests/benchmarks/deploy.py [ROUNDS]), as root

The job: 200 files, 5 MB; ship, switch, restart, and every host answers with the new version.

  floor      a shell script: `tar | ssh`, one connection a host, all in parallel; nothing is verified, nothing
             kept to go back to, and what answers may be anybody
  process    `deploy_with_rollback` in a Python process of its own, start-up included
  running    the same from a Python that has loaded its declarations and deployed before

The rounds take turns; the table shows medians, and each one's ratio to the floor's.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import unifyweaver_py as uw  # noqa: E402
from tests.lab.lab import Lab  # noqa: E402
from tests.site import Site  # noqa: E402

FLOOR = """
set -eu
deploy() {
    tar -C "$SITE" -cf - . |
        ssh -F none -o BatchMode=yes -o UserKnownHostsFile="$KNOWN_HOSTS" -i "$KEY_FILE" "root@$1" '
        set -e
        new=/srv/floor/releases/'"$VERSION"'
        mkdir -p "$new"
        tar -xf - -C "$new"
        ln -sfn "$new" /srv/floor/current
        [ ! -e /srv/floor/pid ] || kill "$(cat /srv/floor/pid)" || :
        cd /srv/floor/current
        setsid python3 server.py --port 9000 >/srv/floor/log 2>&1 </dev/null &
        echo $! >/srv/floor/pid
        until [ "$(curl -s http://127.0.0.1:9000/)" = '"$VERSION"' ]; do sleep 0.02; done'
}
for host in $HOSTS; do deploy "$host" & jobs="${jobs:-} $!"; done
for job in $jobs; do wait "$job"; done
"""

PROCESS = """
import sys
from unifyweaver_py import deploy_with_rollback, load
load(sys.argv[1])
result = deploy_with_rollback("web")
sys.exit(0 if str(result) == "deployed" else f"{result}")
"""

DECLARATIONS = """
:- declare_service(web, [transport(ssh), port(8080), source_dir('{site}')]).
:- declare_service_sources(web, ['**']).
:- declare_deploy_method(web, ssh, [user(root), agent(false), key_file('{key}'), known_hosts('{known}'),
                                    remote_dir('/srv/services')]).
:- declare_service_hosts(web, [{hosts}]).
"""


def make_site(folder: Path) -> Site:
    site = Site(folder)
    bytes_of = random.Random(1).randbytes
    for number in range(197):
        path = folder / f"package{number % 10}" / f"file{number}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes_of(5_000_000 // 197))
    return site


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(rounds: int) -> None:
    with Lab(5) as lab, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        site = make_site(folder / "site")
        hosts = ", ".join(f"host_config('{host.address}', [])" for host in lab.hosts)
        declarations = folder / "services.pl"
        declarations.write_text(
            DECLARATIONS.format(
                site=site.folder, key=lab.key_file, known=lab.known_hosts, hosts=hosts
            )
        )
        os.environ["UNIFYWEAVER_LEDGER"] = str(folder / "ledger.sqlite3")
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SITE": str(site.folder),
            "HOSTS": " ".join(host.address for host in lab.hosts),
            "KNOWN_HOSTS": str(lab.known_hosts),
            "KEY_FILE": str(lab.key_file),
        }

        def floor() -> None:
            subprocess.run(["sh", "-c", FLOOR], env=environment, check=True, timeout=120)

        def process() -> None:
            command = [sys.executable, "-c", PROCESS, str(declarations)]
            subprocess.run(command, env=environment, check=True, timeout=120)

        def running() -> None:
            result = uw.deploy_with_rollback("web")
            if str(result) != "deployed":
                raise RuntimeError(str(result))

        uw.load(declarations)
        ways = {"floor": floor, "process": process, "running": running}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                version = f"{name}{number}"
                site.release(version)
                environment["VERSION"] = version
                seconds = timed(way)
                if number:  # the first round warms up
                    times[name].append(seconds)

    table = Table(
        "way", "median", "lowest", "highest", "ratio to the floor", title=f"{rounds} rounds"
    )
    base = statistics.median(times["floor"])
    for name, of in times.items():
        median = statistics.median(of)
        table.add_row(
            name, f"{median:.2f} s", f"{min(of):.2f} s", f"{max(of):.2f} s", f"{median / base:.2f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
