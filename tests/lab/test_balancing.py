"""A service behind a real HAProxy on real hosts: it loses no request while hosts are deployed to in turn."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.haproxy import Balancer, load_on
from tests.lab.lab import Host, Lab
from tests.lab.test_deploy import settings
from tests.site import Site

START = "exec python3 server.py --port $PORT --address 0.0.0.0"
UNTOUCHED = ("hrsp_5xx", "econ", "eresp", "wretr", "wredis")


@pytest.fixture
def balancer(lab: Lab, tmp_path: Path) -> Iterator[Balancer]:
    places = {f"s{number}": f"{host.address}:8080" for number, host in enumerate(lab.hosts, 1)}
    with Balancer(tmp_path, places) as running:
        yield running


def declare(
    site: Site, lab: Lab, hosts: Mapping[str, Mapping[str, object]], **options: object
) -> None:
    site.declare(hosts, **settings(lab, start_command=START, **options))


def declare_behind(site: Site, lab: Lab, balancer: Balancer, *hosts: Host) -> None:
    declare(site, lab, {host.address: {} for host in hosts})
    uw.declare_load_balancer("web", socket=str(balancer.socket), backend="web")


def answer(balancer: Balancer) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{balancer.port}/", timeout=5) as said:
        return str(said.read().decode())


def roll(site: Site, lab: Lab, balancer: Balancer, releases: int, seconds: int) -> None:
    declare_behind(site, lab, balancer, *lab.hosts)
    uw.declare_rollout("web", max_unavailable=1)
    assert str(site.deploy()) == "deployed"
    balancer.wait_for("UP")
    with load_on(balancer, seconds) as loads:
        for number in range(releases):
            site.release(f"{number + 2}")
            assert answer(balancer) == f"{number + 1}"
            before = {name: int(row["stot"]) for name, row in balancer.servers().items()}
            results = uw.deploy_to_all_hosts("web")
            assert set(results.hosts.values()) == {"deployed"}, results
            assert answer(balancer) == f"{number + 2}"
            assert all(int(row["stot"]) > before[name] for name, row in balancer.servers().items())
            assert {row["status"] for row in balancer.servers().values()} == {"UP"}
    assert (loads[0].failed, loads[0].requests > 100) == (0, True), loads[0].said
    for row in balancer.servers().values():
        assert [row[name] for name in UNTOUCHED] == ["0"] * len(UNTOUCHED)


def test_rolling_deployment_loses_no_request(lab: Lab, site: Site, balancer: Balancer) -> None:
    roll(site, lab, balancer, releases=1, seconds=60)


@pytest.mark.parametrize("balanced", [True, False])
def test_restart_loses_requests_unless_the_load_balancer_is_declared(
    lab: Lab, site: Site, balancer: Balancer, balanced: bool
) -> None:
    declare_behind(site, lab, balancer, *lab.hosts[:2])
    assert str(site.deploy()) == "deployed"
    balancer.wait_for("UP", "s1", "s2")
    if not balanced:
        declare(site, lab, {host.address: {} for host in lab.hosts[:2]})
    with load_on(balancer, 60) as loads:
        assert str(uw.restart_service("web", max_parallel=1)) == "started"
    assert (loads[0].failed == 0) == balanced, loads[0].said


@pytest.mark.soak
def test_twenty_rolling_deployments_lose_no_request(
    lab: Lab, site: Site, balancer: Balancer
) -> None:
    roll(site, lab, balancer, releases=20, seconds=600)
