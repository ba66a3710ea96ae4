"""How long a deployment takes beside the least that could do it, and beside what else users have.

    make benchmark-peers    (as root; or: .venv/bin/python tests/benchmarks/peers.py --help)

The job: 200 files, 5 MB, to 5, 10 and 20 real hosts: ship, switch, restart, and every host answers
with the new version, which is verified on each of them after each round.

  floor      `tar | ssh`, one connection a host, all in parallel (recipes/floor.sh); nothing is
             verified, nothing kept to go back to, and what answers may be anybody
  process    `deploy_with_rollback` in a Python process of its own, start-up included
  running    the same from a Python that has loaded its declarations and deployed before
  copying    as process, without `link_unchanged(true)`; the others have it, for the job's service
             never writes into its release
  original   a script as the original module generates it, host after host
  Fabric, pyinfra, Ansible   from PyPI, installed into an environment in the user's cache folder

The rounds take turns; the table shows medians, each one's ratio to the floor's, and the limits; the
plot goes to build/peers.png. The exit status is 1 when a limit is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import unifyweaver_py as uw  # noqa: E402
from tests.lab.lab import Host, Lab  # noqa: E402
from tests.site import Site  # noqa: E402

RECIPES = Path(__file__).parent / "recipes"
FABRIC, PYINFRA, ANSIBLE, MATPLOTLIB = "3.2.3", "3.10.0", "2.19.14", "3.10.9"
PACKAGES = (
    f"fabric=={FABRIC}",
    f"pyinfra=={PYINFRA}",
    f"ansible-core=={ANSIBLE}",
    f"matplotlib=={MATPLOTLIB}",
)
FILES = 197  # beside the server and its two small files
SECONDS = 600

PROCESS = """
import sys
from unifyweaver_py import deploy_with_rollback, load
load(sys.argv[1])
result = deploy_with_rollback("web")
sys.exit(0 if str(result) == "deployed" else f"{result}")
"""

DECLARATIONS = """
:- declare_service(web, [transport(ssh), port({port}), source_dir('{site}')]).
:- declare_service_sources(web, ['**']).
:- declare_deploy_method(web, ssh, [user(root), agent(false), key_file('{key}'), known_hosts('{known}'),
                                    remote_dir('{base}'), link_unchanged({link})]).
:- declare_service_hosts(web, [{hosts}]).
"""


@dataclass
class Way:
    """One way to do the job: `work` deploys the site's version; it ends up in BASE/current."""

    name: str
    base: str
    port: int
    work: Callable[[Way], None]
    limit: float | None = None
    ahead: bool = True
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def median(self, size: int) -> float:
        return statistics.median(self.seconds[size])


class Job:
    """The site, the hosts it goes to, and the ways to get it there."""

    def __init__(self, lab: Lab, folder: Path, peers: Path | None) -> None:
        self.lab = lab
        self.folder = folder
        self.hosts: list[Host] = []
        self.site = Site(folder / "site")
        make_files(self.site.folder)
        self.declarations = folder / "services.pl"
        self.copying = folder / "copying.pl"
        self.version = ""
        self.ways = [
            Way("floor", "/srv/floor", 9000, self.script("sh", "floor.sh")),
            Way("process", "/srv/services/web", 8080, self.process(self.declarations), 1.4),
            Way("running", "/srv/services/web", 8080, self.running, 1.3),
            Way("copying", "/srv/copying/web", 8081, self.process(self.copying), 1.4, ahead=False),
        ]
        if peers:
            self.ways += self.peers(peers / "bin")

    def peers(self, programs: Path) -> list[Way]:
        python, inventory = str(programs / "python"), str(RECIPES / "pyinfra_inventory.py")
        fabric = self.script(python, "fabric_threads.py")
        pyinfra = self.script(str(programs / "pyinfra"), "-y", inventory, "pyinfra_deploy.py")
        return [
            Way(f"Fabric {FABRIC}", "/srv/fabric", 9001, fabric),
            Way(f"pyinfra {PYINFRA}", "/srv/pyinfra", 9002, pyinfra),
            Way(f"Ansible {ANSIBLE}", "/srv/ansible", 9003, self.ansible(programs)),
            Way("original", "/srv/original", 9004, self.script("bash", "original.sh")),
        ]

    def ansible(self, programs: Path) -> Callable[[Way], None]:
        def work(way: Way) -> None:
            options = ("-e", "ansible_python_interpreter=/usr/bin/python3", "-f", "50")
            hosts = "".join(f"{host.address}," for host in self.hosts)
            self.script(str(programs / "ansible-playbook"), *options, "-i", hosts, "ansible.yml")(
                way
            )

        return work

    def script(self, *words: str) -> Callable[[Way], None]:
        """Runs a recipe, which is the last word, with its job in the environment."""

        def work(way: Way) -> None:
            run([*words[:-1], str(RECIPES / words[-1])], self.environment(way))

        return work

    def process(self, declarations: Path) -> Callable[[Way], None]:
        def work(way: Way) -> None:
            environment = {**self.environment(way), "PYTHONPATH": str(ROOT)}
            run([sys.executable, "-c", PROCESS, str(declarations)], environment)

        return work

    def running(self, _: Way) -> None:
        result = uw.deploy_with_rollback("web")
        if str(result) != "deployed":
            raise RuntimeError(f"{result}: {result.events}")

    def environment(self, way: Way) -> dict[str, str]:
        arguments = shlex.join([way.base, self.version, str(way.port)])
        ssh = f"-F none -C -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={self.lab.known_hosts}"
        return {
            **os.environ,
            "PYTHONPATH": "",
            "PYTHONDONTWRITEBYTECODE": "",  # as where ours is installed, and the peers are
            "SITE": str(self.site.folder),
            "TARBALL": str(self.folder / f"{self.version}.tar"),
            "HOSTS": " ".join(host.address for host in self.hosts),
            "KNOWN_HOSTS": str(self.lab.known_hosts),
            "KEY_FILE": str(self.lab.key_file),
            "BASE": way.base,
            "VERSION": self.version,
            "PORT": str(way.port),
            "RESTART": f"set -- {arguments}\n" + (RECIPES / "restart.sh").read_text(),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_PRIVATE_KEY_FILE": str(self.lab.key_file),
            "ANSIBLE_REMOTE_USER": "root",
            "ANSIBLE_SSH_ARGS": ssh,
        }

    def spread(self, size: int) -> None:
        """From now on the job is for the first `size` hosts."""
        self.hosts = self.lab.hosts[:size]
        hosts = ", ".join(f"host_config('{host.address}', [])" for host in self.hosts)
        job = {"site": self.site.folder, "hosts": hosts}
        lab = {"key": self.lab.key_file, "known": self.lab.known_hosts}
        for path, base, port, link in (
            (self.declarations, "/srv/services", 8080, "true"),
            (self.copying, "/srv/copying", 8081, "false"),
        ):
            text = DECLARATIONS.format(base=base, port=port, link=link, **job, **lab)
            path.write_text(text)
        uw.load(self.declarations)

    def round(self, number: int) -> None:
        """Every way in turn; round 0 warms up."""
        for way in self.ways:
            self.version = f"{way.name.split()[0]}-{len(self.hosts)}-{number}"
            self.site.release(self.version)
            began = time.perf_counter()
            way.work(way)
            seconds = time.perf_counter() - began
            self.verify(way)
            Path(self.environment(way)["TARBALL"]).unlink(missing_ok=True)
            if number:
                way.seconds.setdefault(len(self.hosts), []).append(seconds)

    def verify(self, way: Way) -> None:
        """Every host has all files and answers with the new version."""
        command = (
            f"curl -s http://127.0.0.1:{way.port}/; echo\n"
            f"find -L {way.base}/current/package* -type f | wc -l\n"
        )
        if way.limit is None:  # ours prunes by itself, within its time
            command += (
                f"find {way.base}/releases/* -prune ! -name {self.version} -exec rm -rf {{}} + || :"
            )
        with ThreadPoolExecutor() as pool:
            said = list(pool.map(lambda host: host.check(command).split(), self.hosts))
        if any(words != [self.version, str(FILES)] for words in said):
            raise RuntimeError(f"{way.name}: not {self.version} with {FILES} files: {said}")


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run a tool, which must succeed."""
    options = {"capture_output": True, "text": True, "timeout": SECONDS, "check": False}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")


def make_files(folder: Path) -> None:
    bytes_of = random.Random(1).randbytes
    for number in range(FILES):
        path = folder / f"package{number % 10}" / f"file{number}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes_of(5_000_000 // FILES))


def install_peers() -> Path:
    """The environment that holds the peers, installed when it is not there or has other versions."""
    folder = platformdirs.user_cache_path("unifyweaver_py") / "peers"
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text() != "\n".join(PACKAGES):
        venv.create(folder, with_pip=True, clear=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(install, check=True, timeout=SECONDS)
        stamp.write_text("\n".join(PACKAGES))
    return folder


def verdict(way: Way, ways: list[Way], size: int) -> tuple[bool, str]:
    """Whether a way of ours keeps its limit at this size, and is ahead of every peer if it has to
    be; in words.
    """
    if way.limit is None:
        return True, ""
    ratio = way.median(size) / ways[0].median(size)
    faster = [
        peer.name
        for peer in ways
        if peer.limit is None and peer is not ways[0] and peer.median(size) <= way.median(size)
    ]
    kept = ratio <= way.limit and not (way.ahead and faster)
    behind = f", behind {', '.join(faster)}" if faster else ""
    mark = "" if kept else "  [red]not kept[/red]"
    return kept, f"at most {way.limit:g}{behind}{mark}"


def show(ways: list[Way], sizes: list[int], rounds: int) -> bool:
    """Print the table; whether all limits are kept."""
    columns = ("hosts", "way", "median", "lowest", "highest", "ratio to the floor", "limit")
    table = Table(*columns, title=f"{rounds} rounds")
    kept = True
    for size in sizes:
        for way in ways:
            seconds, base = way.seconds[size], ways[0].median(size)
            good, words = verdict(way, ways, size)
            kept = kept and good
            numbers = (f"{value:.2f} s" for value in (way.median(size), min(seconds), max(seconds)))
            table.add_row(str(size), way.name, *numbers, f"{way.median(size) / base:.2f}", words)
        table.add_section()
    Console(width=max(120, Console().width)).print(table)
    return kept


def draw(ways: list[Way], sizes: list[int], peers: Path, path: Path) -> None:
    points = {way.name: [(size, way.median(size)) for size in sizes] for way in ways}
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [str(peers / "bin" / "python"), str(RECIPES / "plot.py"), str(path)]
    subprocess.run(command, input=json.dumps(points), text=True, check=True, timeout=SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hosts", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--plot", type=Path, default=ROOT / "build" / "peers.png")
    parser.add_argument("--alone", action="store_true", help="beside the floor only; no plot")
    options = parser.parse_args()
    peers = None if options.alone else install_peers()
    with Lab(max(options.hosts)) as lab, tempfile.TemporaryDirectory() as scratch:
        os.environ["UNIFYWEAVER_LEDGER"] = f"{scratch}/ledger.sqlite3"
        job = Job(lab, Path(scratch), peers)
        for size in options.hosts:
            job.spread(size)
            for number in range(options.rounds + 1):
                job.round(number)
    kept = show(job.ways, options.hosts, options.rounds)
    if peers:
        draw(job.ways, options.hosts, peers, options.plot)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
