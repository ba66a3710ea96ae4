"""What asking Prolog costs: beside pyswip's own `Prolog.query`, and with many hosts beside few.

    make benchmark          (or: .venv/bin/python tests/benchmarks/queries.py [ROUNDS])

Both libraries ask the same facts of the same Prolog, in this process. Every row is measured in this
run, the two sides take turns, and the tables show medians with what is wanted of their ratio.

  look-ups          one fact of 100,000 by its first argument, another at every call; pyswip has no way but new
                    text, which is also what this library is asked in the row below
  foreign calls     100,000 calls of a Python function of one argument, from one goal
  facts fetched     100,000 facts of three arguments, as a list of dicts
  hosts declared    `load` of a generated file with 1,000 services of 100 hosts each, of which nothing is known
  predicates        all answers to each query about one service, among 1,000 services and among 10, of 100 hosts each
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import unifyweaver_py as uw  # noqa: E402
from unifyweaver_py._engine import engine  # noqa: E402

FACTS = 100_000
LOOK_UPS = 2_000
QUESTIONS = 100
HOSTS = 100  # of a service
MANY, FEW = 1_000, 10  # services

Times = dict[str, list[float]]

SERVICE = """
:- declare_service(service{number}, [port(8080), transport(ssh), source_dir('/srv/service{number}'),
                                     start_command('exec ./run'), health_endpoint('/health')]).
:- declare_service_sources(service{number}, ['**', \\+ '*.key']).
:- declare_deploy_method(service{number}, ssh, [user(deploy), agent(false), remote_dir('/srv/services')]).
:- declare_lifecycle_hook(service{number}, pre_deploy, custom('make')).
:- declare_service_hosts(service{number}, [{hosts}]).
"""

QUERIES = {
    "service_config/2": "service_config({service}, _X)",
    "deploy_method_config/3": "deploy_method_config({service}, _X, _Y)",
    "service_sources/2": "service_sources({service}, _X)",
    "lifecycle_hooks/2": "lifecycle_hooks({service}, _X)",
    "service_hosts/2": "service_hosts({service}, _X)",
    "service_host/3, all hosts": "service_host({service}, _X, _Y)",
    "service_host/3, one host": "service_host({service}, '{host}', _X)",
    "service_host/3, by its host": "service_host(_X, '{host}', _Y)",
    "deployed_hash/2": "deployed_hash({service}, _X)",
    "deployed_hash/3, all hosts": "deployed_hash({service}, _X, _Y)",
    "deployed_hash/3, one host": "deployed_hash({service}, '{host}', _X)",
    "rollback_hash/2": "rollback_hash({service}, _X)",
    "rollback_hash/3, all hosts": "rollback_hash({service}, _X, _Y)",
    "rollback_hash/3, one host": "rollback_hash({service}, '{host}', _X)",
    "validate_security/2": "validate_security({service}, _X)",
    "requires_encryption/1": "requires_encryption({service})",
    "is_local_service/1": "\\+ is_local_service({service})",
}
SLOW = {name for name in QUERIES if "_hash/" in name}  # these look into the ledger for every host


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def same(found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError(f"{found!r:.200} instead of {wanted!r:.200}")


class BesidePyswip:
    """The same work by this library and by pyswip, on the same Prolog engine."""

    def __init__(self, folder: Path) -> None:
        self.prolog = engine()
        from pyswip import Prolog, registerForeign

        self.pyswip = Prolog
        facts = folder / "facts.pl"
        facts.write_text("".join(f"fact({i}, name{i}, {i * 7}).\n" for i in range(FACTS)))
        self.prolog.consult(facts)
        self.prolog.register("user", "next_here", 2, lambda number: number + 1)

        def next_there(number: int, result: Any) -> bool:
            result.unify(number + 1)
            return True

        registerForeign(next_there, arity=2)
        self.asked = 0

    def keys(self) -> Iterable[int]:
        """Others at every call: neither library is to know the goal from before."""
        first = self.asked
        self.asked += LOOK_UPS
        return ((first + i) * 7_919 % FACTS for i in range(LOOK_UPS))

    def look_up_here(self) -> None:
        once = self.prolog.once
        for key in self.keys():
            same(once("fact(K, Name, _)", {"K": key}), {"Name": f"name{key}"})

    def look_up_text_here(self) -> None:
        once = self.prolog.once
        for key in self.keys():
            same(once(f"fact({key}, Name, _)"), {"Name": f"name{key}"})

    def look_up_there(self) -> None:
        query = self.pyswip.query
        for key in self.keys():
            same(list(query(f"fact({key}, Name, _)")), [{"Name": f"name{key}"}])

    def call_here(self) -> None:
        goal = f"forall(between(1, {FACTS}, _N), next_here(_N, _))"
        same(self.prolog.once(goal, module="user"), {})

    def call_there(self) -> None:
        goal = f"forall(between(1, {FACTS}, _N), next_there(_N, _))"
        same(len(list(self.pyswip.query(goal))), 1)

    def fetch_here(self) -> None:
        rows = list(self.prolog.query("fact(Number, Name, Seventh)"))
        same((len(rows), rows[-1]), (FACTS, self.last()))

    def fetch_there(self) -> None:
        rows = list(self.pyswip.query("fact(Number, Name, Seventh)"))
        same((len(rows), rows[-1]), (FACTS, self.last()))

    def last(self) -> dict[str, object]:
        number = FACTS - 1
        return {"Number": number, "Name": f"name{number}", "Seventh": number * 7}

    def rows(self, rounds: int) -> Iterable[tuple[str, float, float, float]]:
        """A name, our median, pyswip's, and how many times faster ours is wanted to be, or 0."""
        ways: list[tuple[str, Callable[[], None], Callable[[], None], float, int]] = [
            (f"{LOOK_UPS:,} look-ups", self.look_up_here, self.look_up_there, 2, rounds),
            ("  as new text", self.look_up_text_here, self.look_up_there, 0, rounds),
            (f"{FACTS:,} foreign calls", self.call_here, self.call_there, 2, rounds),
            (
                f"{FACTS:,} facts fetched",
                self.fetch_here,
                self.fetch_there,
                25,
                max(3, rounds // 2),
            ),
        ]
        for name, here, there, wanted, times in ways:
            ours, theirs = [], []
            for number in range(times + 1):
                seconds = timed(here), timed(there)
                if number:  # the first round warms up
                    ours.append(seconds[0])
                    theirs.append(seconds[1])
            yield name, statistics.median(ours), statistics.median(theirs), wanted


class Declared:
    """One file, which declares many services or few."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "services.pl"
        self.ledger = folder / "ledger.sqlite3"

    def empty(self) -> None:
        self.file.write_text(":- encoding(utf8).\n")
        uw.load(self.file)

    def load(self, services: int) -> float:
        """Seconds for declarations of which there were none."""
        self.empty()
        texts = []
        for number in range(services):
            configs = (f"host_config('h{n}.s{number}.example', [])" for n in range(HOSTS))
            texts.append(SERVICE.format(number=number, hosts=", ".join(configs)))
        self.file.write_text("".join(texts))
        seconds = timed(lambda: uw.load(self.file))
        same(len(list(uw.query("service_config(S, _)"))), services)
        self.record(services)
        uw.once("garbage_collect_clauses")  # of the load before, whose clauses are passed over
        return seconds

    def record(self, services: int) -> None:
        """Let the ledger know all services; a row for each host would be no other question."""
        uw.store_deployed_hash("service0", "d")
        with sqlite3.connect(self.ledger) as connection:
            connection.execute("DELETE FROM observed")
            connection.executemany(
                "INSERT INTO observed VALUES (?, '*', '', ?, ?)",
                [
                    (f"service{number}", key, "d" * 64)
                    for number in range(services)
                    for key in ("deployed_hash", "rollback_hash")
                ],
            )
        connection.close()

    def ask(self, services: int) -> dict[str, float]:
        """Seconds for all answers to each query about one service in the middle, but for fetching them."""
        number = services // 2
        words = {"service": f"service{number}", "host": f"h{HOSTS // 2}.s{number}.example"}
        seconds = {}
        for name, text in QUERIES.items():
            goal = f"findall(x, {text.format(**words)}, _Rows), length(_Rows, Count)"
            same(uw.once(goal), {"Count": HOSTS if "all hosts" in name else 1})
            times = QUESTIONS // 10 if name in SLOW else QUESTIONS
            began = time.perf_counter()
            for _ in range(times):
                uw.once(goal)
            seconds[name] = (time.perf_counter() - began) / times
        return seconds


def declared_times(folder: Path, rounds: int) -> tuple[list[float], Times, Times]:
    """Seconds to load many, and of each query among many and among few."""
    declared = Declared(folder)
    loads: list[float] = []
    many: Times = {name: [] for name in QUERIES}
    few: Times = {name: [] for name in QUERIES}
    for _ in range(rounds):
        declared.load(FEW)
        for name, seconds in declared.ask(FEW).items():
            few[name].append(seconds)
        loads.append(declared.load(MANY))
        for name, seconds in declared.ask(MANY).items():
            many[name].append(seconds)
    declared.empty()
    return loads, many, few


def mark(kept: bool) -> str:
    return "" if kept else "  [red]not kept[/red]"


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["UNIFYWEAVER_LEDGER"] = str(folder / "ledger.sqlite3")
        os.environ["UNIFYWEAVER_CACHE"] = str(folder / "cache")
        beside = Table(
            "what", "unifyweaver_py", "pyswip", "ratio", "wanted", title=f"{rounds} rounds"
        )
        for name, ours, theirs, wanted in BesidePyswip(folder).rows(rounds):
            ratio = theirs / ours
            kept = f"at least {wanted:g}{mark(ratio >= wanted)}" if wanted else ""
            beside.add_row(name, f"{ours:.3f} s", f"{theirs:.3f} s", f"{ratio:.1f}", kept)
        loads, many, few = declared_times(folder, rounds)
        median = statistics.median(loads)
        what = f"{MANY * HOSTS:,} hosts declared"
        beside.add_row(what, f"{median:.3f} s", "", "", f"under 5 s{mark(median < 5)}")
        Console().print(beside)
    flat = Table(
        "query about one service",
        f"of {MANY:,}",
        f"of {FEW}",
        "ratio",
        "wanted",
        title=f"{MANY * HOSTS:,} hosts beside {FEW * HOSTS:,}",
    )
    for name in QUERIES:
        among_many, among_few = statistics.median(many[name]), statistics.median(few[name])
        ratio = among_many / among_few
        kept = f"about 1{mark(ratio < 1.5)}"
        flat.add_row(
            name, f"{among_many * 1e6:.0f} µs", f"{among_few * 1e6:.0f} µs", f"{ratio:.2f}", kept
        )
    Console().print(flat)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
