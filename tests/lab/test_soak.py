"""What takes longer than `make test` may: run by `make soak`."""

from __future__ import annotations

import random
import threading
import time

import pytest

import unifyweaver_py as uw
from tests.lab.lab import Lab
from tests.lab.test_deploy import answer, backup, current, declare, servers
from tests.site import Site

pytestmark = pytest.mark.soak

BEHAVIOURS = ["healthy", "healthy", "broken", "crash", "forks", "noisy", "slow", "redirect"]


def test_hundred_releases_good_and_bad_on_five_hosts(lab: Lab, site: Site) -> None:
    """After each, every host runs the last good release, and can go back to the one before."""
    choose = random.Random(7).choice
    declare(site, lab, *lab.hosts, keep_releases=3)
    good: list[str] = []
    for number in range(100):
        behaviour = "healthy" if number == 0 else choose(BEHAVIOURS)
        site.release(f"{number}", behaviour)
        result = site.deploy()
        bad = behaviour in ("broken", "crash", "redirect")
        if bad:
            assert str(result).startswith("rolled_back_after_failure(rolled_back(")
        else:
            assert str(result) == "deployed"
            good.append(f"{number}")
        for host in lab.hosts:
            assert answer(host) == good[-1]
            assert len(servers(host)) in (1, 2)
            assert bool(backup(host)) == (len(good) > 1)
            assert current(host) != backup(host)
            releases = list((host.srv / "services/web/releases").iterdir())
            assert len(releases) <= 4


def test_sixteen_threads_ask_and_declare_for_a_minute() -> None:
    end = time.monotonic() + 60
    wrong: list[object] = []

    def work(number: int) -> None:
        name = f"soak{number}"
        rounds = 0
        while time.monotonic() < end and not wrong:
            rounds += 1
            port = 1000 + rounds % 5000
            uw.declare_service(name, port=port)
            if uw.service_config(name) != {"port": port}:
                wrong.append((name, rounds))
            found = [row["X"] for row in uw.query("between(1, N, X)", N=20)]
            if found != list(range(1, 21)):
                wrong.append((name, found))
        uw.undeclare_service(name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)
