"""What shipping and hashing cost, beside the tools that do less.

    make benchmark          (or: .venv/bin/python tests/benchmarks/shipping.py [ROUNDS]), as root

10,000 files, 500 MB, one of which changes, to one real host; 50,000 unchanged files, 50 MB; and one
sparse file of 2 GB. Every row is measured in this run, the rounds take turns, and the table shows
medians with the limit that they must keep. The exit status is 1 when one does not.

  tar | ssh      the files are unpacked, nothing is verified, nothing hashed, nothing started
  first          `deploy_with_rollback` to an empty host, from a Python that has hashed nothing yet
  shipment       its stage alone: sent, unpacked and verified
  copied, linked `deploy_with_rollback` with one file changed
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import unifyweaver_py as uw  # noqa: E402
from tests.lab.lab import Host, Lab  # noqa: E402
from tests.site import Site  # noqa: E402
from unifyweaver_py import effects  # noqa: E402

MB = 1_000_000
BASE = "/srv/services"

# A process that deploys one folder with a local file of 2 GB, and tells its peak memory in kB.
HUGE = """
import sys
import unifyweaver_py as uw
site, key_file, known_hosts, host = sys.argv[1:]
uw.declare_service("huge", transport="ssh", source_dir=site, start_command="exec python3 server.py --port $PORT")
uw.declare_service_sources("huge", ["**"])
uw.declare_deploy_method("huge", "ssh", user="root", agent=False, key_file=key_file,
                         known_hosts=known_hosts, remote_dir="/srv/services", command_timeout=600)
uw.declare_service_hosts("huge", {host: {}})
result = str(uw.deploy_service("huge"))
assert result.startswith("deployed("), result
# Unlike getrusage's, this peak begins with the program, not with the process that started it.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@dataclass(frozen=True)
class Row:
    """A measure and what it must keep."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def kept(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def cells(self) -> tuple[str, str, str]:
        if self.limit is None:
            return self.name, f"{self.value:.2f} {self.unit}", ""
        word = "at least" if self.at_least else "at most"
        mark = "" if self.kept else "  [red]not kept[/red]"
        return self.name, f"{self.value:.3f} {self.unit}", f"{word} {self.limit:g}{mark}"


def make_files(folder: Path, count: int, size: int) -> None:
    """`count` files of `size` bytes in all, in folders of a hundred or so."""
    random_bytes = random.Random(1).randbytes
    each = size // count
    for number in range(count):
        path = folder / f"package{number % 100}" / f"part{number % 7}" / f"file{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random_bytes(each))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Shipping:
    """One service on one host, and the runs of its deployments."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.host: Host = lab.hosts[0]
        self.site = Site(folder)
        self.runs: list[effects.Run] = []
        begin = effects.new_run

        def new_run(*arguments: Callable[[object], object]) -> effects.Run:
            self.runs.append(begin(*arguments))
            return self.runs[-1]

        effects.new_run = new_run

    def declare(self, **options: object) -> None:
        self.site.declare(
            {self.host.address: {}},
            user="root",
            agent=False,
            key_file=str(self.lab.key_file),
            known_hosts=str(self.lab.known_hosts),
            remote_dir=BASE,
            port=8080,
            **options,
        )

    def deploy(self) -> uw.Result:
        result = self.site.deploy()
        if str(result) != "deployed":
            raise RuntimeError(f"{result}: {result.events}")
        return result

    def empty_host(self) -> None:
        uw.force_stop_service("web", 2)
        self.lab.reset()

    def tar(self) -> None:
        command = (
            'tar -C "$1" -cf - . | ssh -F none -o BatchMode=yes -o UserKnownHostsFile="$2" -i "$3" '
            '"root@$4" "mkdir -p /srv/floor && tar -xf - -C /srv/floor"'
        )
        words = [str(self.site.folder), str(self.lab.known_hosts), str(self.lab.key_file)]
        subprocess.run(
            ["sh", "-c", command, "tar", *words, self.host.address], check=True, timeout=600
        )


def forget_hashes() -> None:
    """As in a Python that has just begun."""
    from unifyweaver_py.effects import files

    shutil.rmtree(Path(os.environ["UNIFYWEAVER_CACHE"]) / "digests", ignore_errors=True)
    files._digests = files.DigestCache()
    effects._live._scanner = files.Scanner()


def shipping_rows(lab: Lab, folder: Path, rounds: int) -> list[Row]:
    shipping = Shipping(lab, folder)
    make_files(folder, 10_000, 500 * MB)
    changed = folder / "package1/part1/file1.bin"
    size = changed.stat().st_size
    time.sleep(2.1)
    shipping.declare()
    times: dict[str, list[float]] = {
        name: [] for name in ("tar", "first", "shipment", "copied", "linked")
    }
    wire: list[int] = []
    for _ in range(rounds):
        shipping.empty_host()
        times["tar"].append(timed(shipping.tar))
        shipping.empty_host()
        forget_hashes()
        shipping.declare()
        began = time.perf_counter()
        result = shipping.deploy()
        times["first"].append(time.perf_counter() - began)
        times["shipment"].append(
            next(event.seconds for event in result.events if event.step == "stage")
        )
        for way in ("copied", "linked"):
            shipping.declare(link_unchanged=way == "linked")
            changed.write_bytes(os.urandom(size))
            times[way].append(timed(shipping.deploy))
            wire.append(shipping.runs[-1].traffic_of(shipping.host.address).bytes_sent)
    shipping.empty_host()
    uw.undeclare_service("web")
    median = {name: statistics.median(of) for name, of in times.items()}
    return [
        Row("500 MB by tar | ssh", median["tar"], "s"),
        Row("first deployment", median["first"], "s"),
        Row(
            "  speed of its shipment to tar | ssh",
            median["tar"] / median["shipment"],
            "",
            0.5,
            True,
        ),
        Row("  speed of all of it to tar | ssh", median["tar"] / median["first"], "", 0.5, True),
        Row("one file changed, others copied", median["copied"], "s"),
        Row("  of the first deployment", median["copied"] / median["first"], "", 0.4),
        Row("one file changed, others linked", median["linked"], "s"),
        Row("  of the first deployment", median["linked"] / median["first"], "", 0.1),
        Row("  sent beyond the changed file", (max(wire) - size) / MB, "MB", 1.0),
    ]


def changes_rows(folder: Path, rounds: int) -> list[Row]:
    make_files(folder, 50_000, 50 * MB)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True, timeout=300)
    time.sleep(2.1)
    uw.declare_service("tree", source_dir=str(folder), start_command="true", port=8081)
    uw.declare_service_sources("tree", ["**"])
    first = timed(lambda: uw.check_for_changes("tree"))
    subprocess.run([*git, "status"], check=True, capture_output=True, timeout=300)
    ours, theirs = [], []
    for _ in range(max(9, rounds)):
        ours.append(timed(lambda: uw.check_for_changes("tree")))
        theirs.append(
            timed(lambda: subprocess.run([*git, "status"], check=True, capture_output=True))
        )
    uw.undeclare_service("tree")
    median, status = statistics.median(ours), statistics.median(theirs)
    return [
        Row("50,000 files hashed for the first time", first, "s"),
        Row("git status on them", status, "s"),
        Row("check_for_changes on them, unchanged", median, "s"),
        Row("  to git status", median / status, "", 2.5),
    ]


def memory_rows(lab: Lab, folder: Path) -> list[Row]:
    Site(folder)
    with (folder / "huge").open("wb") as file:
        file.truncate(2_000_000_000)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [str(folder), str(lab.key_file), str(lab.known_hosts), lab.hosts[0].address]
    done = subprocess.run(
        [sys.executable, "-c", HUGE, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [Row("memory to hash and ship 2 GB", int(done.stdout) * 1024 / MB, "MB", 150)]


def main(rounds: int) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["UNIFYWEAVER_LEDGER"] = str(folder / "ledger.sqlite3")
        os.environ["UNIFYWEAVER_CACHE"] = str(folder / "cache")
        rows = changes_rows(folder / "tree", rounds)
        with Lab(1) as lab:
            rows += shipping_rows(lab, folder / "site", rounds)
            shutil.rmtree(folder / "site")
            rows += memory_rows(lab, folder / "huge")
    table = Table("what", "median", "limit", title=f"{rounds} rounds")
    for row in rows:
        table.add_row(*row.cells())
    Console().print(table)
    return 0 if all(row.kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
