"""Every fault at every step: after recovery each host is on one whole release, and nobody else was touched."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.faults.cases import FAULTS, OPERATIONS, Case
from tests.faults.hosts import embedded, real
from tests.faults.recovery import RECOVERIES
from tests.faults.trial import Bench
from tests.lab.conftest import lab, running_lab  # noqa: F401 - the lab's fixtures
from tests.lab.lab import Lab
from tests.lab.test_deploy import settings

pytestmark = pytest.mark.usefixtures("own_ledger")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with embedded(1, tmp_path / "fleet") as hosts:
        yield Bench(hosts, tmp_path)
    uw.undeclare_service("web")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Bench]:
    with embedded(2, tmp_path / "fleet") as hosts:
        yield Bench(hosts, tmp_path)
    uw.undeclare_service("web")


Tell = Callable[[str, object], None]
Survive = Callable[[Bench, Iterable[Case]], None]


@pytest.fixture
def survive(record_property: Tell) -> Survive:
    """Tries each, has printed how many were survived, and tells what the others left."""

    def tried(bench: Bench, cases: Iterable[Case]) -> None:
        lost = {}
        count = 0
        for case in cases:
            count += 1
            if found := bench.attempt(case):
                lost[str(case)] = found
                bench.host.kill()
                bench.renew()
        record_property("told", f"{count} faults tried, {count - len(lost)} survived")
        assert count
        assert not lost, "\n".join(f"{case}: {'; '.join(found)}" for case, found in lost.items())

    return tried


def sample(bench: Bench, operations: Iterable[str]) -> Iterator[Case]:
    """Each step once, with one fault after another, and both ways to recover."""
    seen: set[str] = set()
    faults, ways = itertools.cycle(FAULTS), itertools.cycle(RECOVERIES)
    for operation in operations:
        for step in bench.steps(operation):
            if step not in seen:
                seen.add(step)
                fault = next(fault for fault in faults if bench.suits(fault, step))
                yield Case(operation, step, fault, next(ways))


def test_each_step_and_each_fault_once(bench: Bench, survive: Survive) -> None:
    cases = list(sample(bench, ("rollback", "stop", "deploy")))
    assert {case.fault for case in cases} == set(FAULTS)
    survive(bench, cases)


@pytest.mark.soak
@pytest.mark.parametrize("then", RECOVERIES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_fault_at_every_step(
    bench: Bench, survive: Survive, operation: str, then: str
) -> None:
    survive(bench, bench.cases(operation, then))


@pytest.mark.soak
@pytest.mark.parametrize("then", RECOVERIES)
def test_every_fault_at_every_step_of_a_rollout(fleet: Bench, survive: Survive, then: str) -> None:
    survive(fleet, fleet.cases("rollout", then))


@pytest.mark.soak
def test_controllers_killed_at_random_times(bench: Bench, record_property: Tell) -> None:
    """200 of them; the seed is printed, and read from UNIFYWEAVER_SEED."""
    seed = int(os.environ.get("UNIFYWEAVER_SEED", time.time()))
    record_property("told", f"UNIFYWEAVER_SEED={seed}")
    random_time = random.Random(seed).uniform
    began = time.monotonic()
    bench.steps("deploy")
    longest = time.monotonic() - began
    for number, then in zip(range(200), itertools.cycle(RECOVERIES), strict=False):
        seconds = random_time(0, longest)
        assert bench.interrupt(seconds, then) == [], f"round {number}: {seconds} s, then {then}"


@pytest.mark.soak
def test_each_step_and_each_fault_on_a_real_host(
    lab: Lab,  # noqa: F811
    tmp_path: Path,
    survive: Survive,
) -> None:
    """Those that need a small disk are tried with one."""
    host = lab.hosts[0]
    with real(host) as breaking:
        bench = Bench([breaking], tmp_path, **settings(lab))
        cases = list(sample(bench, OPERATIONS))
        survive(bench, (case for case in cases if case.fault.name != "disk full"))
        lab.reset()
        host.limit_disk(8)
        bench.begin()
        survive(bench, (case for case in cases if case.fault.name == "disk full"))
    uw.undeclare_service("web")
