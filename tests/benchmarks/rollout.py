"""What a rollout's rules cost: fleets of 100 to 1,000 modelled hosts, planned and rolled out.

    make benchmark          (or: .venv/bin/python tests/benchmarks/rollout.py)

Each size runs in a process of its own, in batches of 1 and then a tenth, spread over ten zones: all its
hosts are deployed, or the last one fails and all go back. The table shows medians of the rounds; the plot,
milliseconds a host, goes to build/rollout.png. The exit status is 1 when a limit is not kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from tests.benchmarks.peers import RECIPES, install_peers  # noqa: E402

SIZES = (100, 200, 400, 700, 1000)
SECONDS, MB = 5.0, 200.0
FLAT = 1.5
"""Times the cost of a host among 100 that one among 1,000 may have."""

RUN = """
import json, sys, time
import unifyweaver_py as uw
from unifyweaver_py import Term
folder, count, failing = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "failing"
hosts = {f"host{number:04}.example": {"zone": f"z{number % 10}"} for number in range(count)}
uw.declare_service("big", transport="https", source_dir=folder)
uw.declare_service_sources("big", ["*.py"])
uw.declare_deploy_method("big", "ssh")
uw.declare_service_hosts("big", hosts)
uw.declare_rollout("big", batches=[1, "10%"], spread="zone")
script = [Term("sources", ("new",))]
if failing:
    script.append(Term("answers", (list(hosts)[-1], [500])))
began = time.perf_counter()
results = uw.deploy_to_all_hosts("big", backend=Term("model", (script,)))
seconds = time.perf_counter() - began
assert len(results) == count and results.ok is not failing, str(results)[:500]
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, peak * 1024 / 1e6]))
"""


def measure(count: int, outcome: str) -> tuple[float, float]:
    """Seconds and megabytes."""
    words = [sys.executable, "-c", RUN, str(ROOT / "tests" / "sites"), str(count), outcome]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds, megabytes = json.loads(done.stdout)
    return seconds, megabytes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=ROOT / "build" / "rollout.png")
    options = parser.parse_args()
    table = Table(
        "hosts", "outcome", "seconds", "ms a host", "MB", title=f"{options.rounds} rounds"
    )
    points: dict[str, list[tuple[int, float]]] = {}
    kept = True
    for outcome in ("succeeding", "failing"):
        for count in SIZES:
            found = [measure(count, outcome) for _ in range(options.rounds)]
            seconds = statistics.median(each[0] for each in found)
            megabytes = max(each[1] for each in found)
            points.setdefault(outcome, []).append((count, seconds / count * 1000))
            kept = kept and seconds < SECONDS and megabytes < MB
            cells = (f"{seconds:.2f}", f"{seconds / count * 1000:.2f}", f"{megabytes:.0f}")
            table.add_row(str(count), outcome, *cells)
        table.add_section()
    Console().print(table)
    for outcome, line in points.items():
        growth = line[-1][1] / line[0][1]
        kept = kept and growth <= FLAT
        print(f"{outcome}: a host among 1,000 costs {growth:.2f} of one among 100, at most {FLAT}")
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    command = [install_peers() / "bin" / "python", RECIPES / "plot.py", options.plot, "ms a host"]
    subprocess.run(command, input=json.dumps(points), text=True, check=True, timeout=300)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
