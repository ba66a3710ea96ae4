"""Whatever is asked for, a host is reached with the same options, and none that is not safe is deployed to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import unifyweaver_py as uw
from tests.site import Site
from unifyweaver_py import Term
from unifyweaver_py._terms import PrologString
from unifyweaver_py.testing import RecordingEffects, answer, using

HOST = "a.example"
DEPLOYING: dict[str, Callable[[], Any]] = {
    "deploy_service": lambda: uw.deploy_service("web"),
    "deploy_with_hooks": lambda: uw.deploy_with_hooks("web"),
    "deploy_with_rollback": lambda: uw.deploy_with_rollback("web"),
    "deploy_to_all_hosts": lambda: uw.deploy_to_all_hosts("web"),
}
ASKING: dict[str, Callable[[], Any]] = {
    **DEPLOYING,
    "deployment_plan": lambda: uw.deployment_plan("web"),
    "rollback_service": lambda: uw.rollback_service("web"),
    "recover": lambda: uw.recover("web"),
    "start_service": lambda: uw.start_service("web"),
    "stop_service": lambda: uw.stop_service("web"),
    "restart_service": lambda: uw.restart_service("web"),
    "graceful_stop": lambda: uw.graceful_stop("web"),
    "drain_connections": lambda: uw.drain_connections("web"),
    "force_stop_service": lambda: uw.force_stop_service("web", 1),
    "execute_hooks": lambda: uw.execute_hooks("web", "pre_shutdown"),
    "service_status": lambda: uw.service_status("web"),
    "service_status of a host": lambda: uw.service_status("web", HOST),
    "run_health_check": lambda: uw.run_health_check("web", retries=1),
    "wait_for_healthy": lambda: uw.wait_for_healthy("web", timeout=1),
}
SCRIPTS: dict[str, Callable[..., str]] = {
    "generate_deploy_script": uw.generate_deploy_script,
    "generate_ssh_deploy": uw.generate_ssh_deploy,
    "generate_rollback_script": uw.generate_rollback_script,
}


@pytest.fixture
def site(tmp_path: Path, own_ledger: Path) -> Iterator[Site]:
    yield Site(tmp_path / "site")
    uw.undeclare_service("web")


@pytest.fixture
def web(site: Site) -> Site:
    """Each option is given in all the places that may give it; the nearest to the host counts."""
    uw.declare_service(
        "web", source_dir=str(site.folder), host="of.the.service", port=1001, transport="ssh",
        health_endpoint="/of-the-service",
    )  # fmt: skip
    uw.declare_deploy_method(
        "web", "ssh", host="of.the.method", user="of_the_method", ssh_port=2002, agent=False,
        key_file="/of/the/method", remote_dir="/of/the/method", known_hosts="/known",
    )  # fmt: skip
    of_the_host = {"user": "of_the_host", "port": 3003, "remote_dir": "/of/the/host"}
    uw.declare_service_hosts("web", {HOST: of_the_host})
    uw.declare_service_sources("web", ["**"])
    uw.declare_lifecycle_hook("web", "pre_shutdown", uw.custom("true"))
    return site


def reached(ask: Callable[[], Any]) -> list[tuple[Term, str, str]]:
    """The targets that are reached: each with the script that is run, or the URL that is asked there."""
    nothing = Term("failed", ("timeout",))
    fake = RecordingEffects(
        shell=lambda *_: nothing,
        probe=lambda *_: answer(200),
        scan=lambda *_: Term("sources", ("0" * 64, 1, 1)),
    )
    with using(fake):
        ask()
    scripts = [(call.arguments[0], call.arguments[1], "") for call in fake.calls_of("shell")]
    urls = [
        (call.arguments[0], "", str(call.arguments[1].args[1])) for call in fake.calls_of("probe")
    ]
    return scripts + urls


@pytest.mark.parametrize("name", ASKING)
def test_every_operation_reaches_the_host_with_the_same_options(web: Site, name: str) -> None:
    found = reached(ASKING[name])
    assert found
    for target, script, url in found:
        method, host, options = target.args
        assert (method, host) == ("ssh", HOST)
        given = {option.name: option.args[0] for option in options}
        assert given["user"] == "of_the_host"
        assert given["ssh_port"] == 2002
        assert given["key_file"] == "/of/the/method"
        assert str(given["agent"]) in ("false", "False")
        assert given["known_hosts"] == "/known"
        if url:
            assert url == "http://127.0.0.1:3003/of-the-service"
        else:
            assert "\nservice_port='3003'\n" in script
            assert "\ndir='/of/the/host/web'\n" in script


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_reach_the_host_with_the_same_options(web: Site, name: str) -> None:
    script = SCRIPTS[name]("web")
    for line in (
        f'HOST="{HOST}"', 'USER="of_the_host"', 'REMOTE_DIR="/of/the/host"', 'PORT="3003"',
    ):  # fmt: skip
        assert f"\n{line}\n" in script
    [options] = [line for line in script.splitlines() if line.startswith("SSH_OPTIONS=")]
    for words in ('"-p" "2002"', "IdentityFile=", "/of/the/method", '"IdentityAgent=none"'):
        assert words in options


@pytest.mark.parametrize("name", DEPLOYING)
@pytest.mark.parametrize("transport", ["http", None])
def test_host_in_the_method_or_among_the_hosts_does_not_escape_the_security_check(
    site: Site, name: str, transport: str | None
) -> None:
    reason = "remote_missing_transport" if transport is None else "remote_requires_encryption"
    refused = Term("error", (Term("security_validation_failed", ([Term(reason, (HOST,))],)),))
    for host_of_method, hosts in ((HOST, {}), (None, {"localhost": {}, HOST: {}})):
        uw.undeclare_service("web")
        uw.declare_service(
            "web", source_dir=str(site.folder), host="localhost", transport=transport
        )
        uw.declare_deploy_method("web", "ssh", host=host_of_method)
        uw.declare_service_sources("web", ["**"])
        uw.declare_service_hosts("web", hosts)
        with using(RecordingEffects()) as untouched:
            term = DEPLOYING[name]().term
        assert untouched.calls == []
        results = [each.args[1] for each in term] if isinstance(term, list) else [term]
        assert set(map(str, results)) == {str(refused)}


@pytest.mark.parametrize(
    "host", ["localhost", PrologString("localhost"), "LocalHost", "127.8.9.1", "::1"]
)
def test_local_host_is_local_however_it_is_written(
    site: Site, free_port: int, tmp_path: Path, host: str
) -> None:
    uw.declare_service(
        "web", source_dir=str(site.folder), host=host, port=free_port, address="127.0.0.1"
    )
    uw.declare_deploy_method("web", "local", remote_dir=str(tmp_path / "remote"))
    uw.declare_service_sources("web", ["**"])
    assert uw.is_local_service("web")
    assert not uw.requires_encryption("web")
    assert uw.validate_security("web") == []
    try:
        assert uw.deploy_service("web").ok
    finally:
        uw.force_stop_service("web", 0)


def test_port_of_the_method_is_refused_since_it_is_the_services(site: Site) -> None:
    uw.declare_service("web", port=1001)
    with pytest.raises(
        uw.DomainError, match=r"There is no method option port\(22\); it is one of the service"
    ):
        uw.declare_deploy_method("web", "ssh", port=22)
