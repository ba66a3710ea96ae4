"""What every public predicate keeps to: it succeeds once, and it catches nothing that it did not cause."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests import mutation
from tests.site import Site

# In the order in which they are asked, of a service that is declared and not deployed at first. A comment tells why
# an argument is not left open: a query that enumerates has a solution a service or host.
GOALS = [
    "declare_service(asked, [port(1)])",
    "service_config(asked, _)",
    "declare_deploy_method(asked, local, [])",
    "deploy_method_config(asked, _, _)",
    "declare_service_sources(asked, ['*'])",
    "service_sources(asked, _)",
    "declare_lifecycle_hook(asked, pre_deploy, save_state)",
    "declare_lifecycle_hook(asked, pre_deploy, save_state)",
    "lifecycle_hooks(asked, _)",
    "declare_service_hosts(asked, [host_config(localhost, []), host_config('127.0.0.1', [])])",
    "service_hosts(asked, _)",
    "declare_load_balancer(asked, haproxy([socket('/run/haproxy.sock'), backend(web)]))",
    "load_balancer_config(asked, _)",
    "service_host(asked, localhost, _)",
    "service_host(asked, '127.0.0.1', _)",
    "undeclare_service(asked)",
    "undeclare_service(asked)",
    "validate_security(web, _)",
    "\\+ requires_encryption(web)",
    "is_local_service(web)",
    "compute_source_hash(web, _)",
    "release_hash(web, _)",
    "check_for_changes(web, _)",
    "check_for_changes(web, localhost, _)",
    "store_deployed_hash(web, f00)",
    "deployed_hash(web, _)",
    "deployed_hash(web, localhost, _)",
    "store_rollback_hash(web, f00)",
    "rollback_hash(web, _)",
    "rollback_hash(web, localhost, _)",
    "rebuild_ledger(web, _)",
    "history(web, [], _)",
    "run_events(asked, _)",
    "unfinished_runs(web, _)",
    "deployment_plan(web, [], _)",
    "deploy_service(web, _)",
    "deploy_service(web, _)",
    "deploy_service(web, [force(true)], _)",
    "deploy_with_hooks(web, _)",
    "deploy_with_rollback(web, _)",
    "deploy_with_rollback(web, [backend(dry)], _)",
    "deploy_to_all_hosts(web, _)",
    "deploy_to_all_hosts(web, [force(true)], _)",
    "declare_rollout(web, [batches([1, '100%'])])",
    "rollout_config(web, _)",
    "resume_rollout(web, _)",
    "fleet_status(web, _)",
    "recover(web, _)",
    "recover(web, [], _)",
    "execute_hooks(web, post_deploy, _)",
    "run_health_check(web, [], _)",
    "wait_for_healthy(web, [], _)",
    "service_status(web, _)",
    "service_status(web, localhost, _)",
    "drain_connections(web, [], _)",
    "lock_service(web, _)",
    "lock_status(web, _)",
    "unlock_service(web, _)",
    "lock_service(web, [reason(moving)], _)",
    "unlock_service(web, _)",
    "restart_service(web, _)",
    "stop_service(web, _)",
    "start_service(web, _)",
    "graceful_stop(web, [], _)",
    "force_stop_service(web, 1, _)",
    "rollback_service(web, _)",
    "rollback_service(web, [to(f00)], _)",
    "generate_deploy_script(web, [], _)",
    "generate_rollback_script(web, [], _)",
    "generate_health_check_script(web, [], _)",
    "generate_systemd_unit(web, [], _)",
    "generate_ssh_deploy(web, [], _)",
]


@pytest.fixture
def web(tmp_path: Path, free_port: int, own_ledger: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    site.declare(
        {"localhost": {}}, "local", remote_dir=str(tmp_path / "remote"), port=free_port,
        healthy_deadline=5,
    )  # fmt: skip
    yield site
    if uw.deploy_method_config("web"):
        uw.force_stop_service("web", 0)
    for name in ("web", "asked"):
        uw.undeclare_service(name)


def test_every_predicate_succeeds_once_and_leaves_no_choice_point(web: Site) -> None:
    run = "begin(asked, web, look, 0, [], [])"
    assert uw.once(f"deployment_effects:effect(ledger({run}), done)") == {}
    for goal in GOALS:
        [solution] = uw.query(
            f"call_cleanup(({goal}), Ended = true), (Ended == true -> Once = yes ; Once = no)"
        )
        assert solution["Once"] == "yes", goal


def test_every_predicate_is_among_them() -> None:
    asked = {goal.removeprefix("\\+ ").partition("(")[0] for goal in GOALS}
    assert asked == {indicator.split("/")[0] for indicator in mutation.exported()}


# ---- nothing is left of what is undeclared ----------------------------------------------------------------------

MENTIONED = (
    "findall(Module:Name/Arity, ("
    "  current_module(Module), atom_concat(deployment_, _, Module),"
    "  current_predicate(Module:Name/Arity), functor(Head, Name, Arity),"
    "  predicate_property(Module:Head, dynamic), \\+ predicate_property(Module:Head, imported_from(_)),"
    "  clause(Module:Head, Body), once(( sub_term(Part, Head-Body), Part == Service ))"
    "), All), sort(All, Places)"
)


def places(service: str) -> list[str]:
    """The dynamic predicates of the library whose clauses mention a service."""
    found = uw.once(
        f"use_module(library(occurs), []), use_module(library(occurs)), {MENTIONED}",
        Service=service,
    )
    assert found is not None
    return [str(place) for place in found["Places"]]


def test_nothing_is_left_of_a_service_that_is_undeclared(tmp_path: Path, own_ledger: Path) -> None:
    def declare() -> None:
        uw.declare_service("asked", host="a.example", env={"A": "b"})
        uw.declare_deploy_method("asked", "ssh", user="me")
        uw.declare_service_sources("asked", ["**"])
        uw.declare_service_hosts("asked", {"b.example": {"port": 2}, "c.example": {}})
        uw.declare_load_balancer("asked", socket="/run/haproxy.sock", backend="web")
        uw.declare_lifecycle_hook("asked", "pre_deploy", "save_state")
        uw.declare_lifecycle_hook("asked", "post_deploy", uw.run_once(uw.custom("x")))

    assert places("asked") == []
    declare()
    file = tmp_path / "services.pl"
    file.write_text(
        ":- declare_service(asked, [port(2)]).\n:- declare_deploy_method(asked, local, []).\n"
        ":- declare_service_sources(asked, [x]).\n:- declare_service_hosts(asked, [host_config(h, [])]).\n"
        ":- declare_lifecycle_hook(asked, pre_deploy, warm_cache).\n"
    )
    uw.load(file)
    declare()
    assert len(places("asked")) >= 5
    uw.undeclare_service("asked")
    assert places("asked") == []
    for question in (
        uw.service_config, uw.deploy_method_config, uw.service_sources, uw.service_hosts, uw.lifecycle_hooks,
    ):  # fmt: skip
        assert question("asked") is None
    assert uw.service_host("asked", "a.example") is None
    file.write_text("nothing(here).\n")
    uw.load(file)
    assert places("asked") == []


# ---- what others cause is theirs ----------------------------------------------------------------------------------

WITHIN = "call_with_time_limit({seconds}, ( {goal} ))"


def outcome(goal: str) -> str:
    """What a goal throws, else what becomes of it."""
    try:
        found = uw.once(f"catch(( {goal} -> Outcome = true ; Outcome = failed ), Outcome, true)")
    except uw.PrologError as error:  # of an abort, catch/3 only takes note
        return str(error)
    assert found is not None
    return str(found["Outcome"])


OPERATIONS = {
    "deploy_service(web, _)": "prepare",
    "deploy_with_hooks(web, _)": "post_deploy",
    "deploy_with_rollback(web, _)": "pre_deploy",
    "deploy_to_all_hosts(web, _)": "post_deploy",
    "rollback_service(web, _)": "post_rollback",
    "stop_service(web, _)": "pre_shutdown",
    "restart_service(web, _)": "post_shutdown",
    "graceful_stop(web, [], _)": "pre_shutdown",
    "execute_hooks(web, post_deploy, _)": "post_deploy",
}


@pytest.mark.parametrize("goal", OPERATIONS)
def test_outer_time_limit_is_thrown_when_the_operation_has_left_the_host_whole(
    web: Site, goal: str, tmp_path: Path
) -> None:
    for version in ("1", "2"):
        web.release(version)
        assert uw.deploy_service("web").ok
    web.release("3")
    slow = f"sleep 1; touch '{tmp_path}/ran'"
    if OPERATIONS[goal] == "prepare":
        uw.declare_service("web", **{**uw.service_config("web"), "prepare_command": slow})
    else:
        uw.declare_lifecycle_hook("web", OPERATIONS[goal], uw.custom(slow))
    assert outcome(WITHIN.format(seconds=0.3, goal=goal)) == "time_limit_exceeded"
    service = tmp_path / "remote" / "web"
    assert (tmp_path / "ran").exists()
    assert (service / "current" / "server.py").exists()
    assert not list((service / "releases").glob(".partial-*"))
    assert str(uw.service_status("web")) == ("stopped" if "stop" in goal else "running")


def test_outer_time_limit_is_thrown_when_all_hosts_are_whole(web: Site, tmp_path: Path) -> None:
    port = uw.service_config("web")["port"]
    folders = {"localhost": tmp_path / "one", "127.0.0.1": tmp_path / "two"}
    own = {host: {"remote_dir": str(folder)} for host, folder in folders.items()}
    own["127.0.0.1"]["port"] = free_port_beside(port)
    uw.declare_service_hosts("web", own)
    uw.declare_lifecycle_hook("web", "post_deploy", uw.custom("sleep 1"))
    limited = WITHIN.format(seconds=0.3, goal="deploy_with_rollback(web, _)")
    assert outcome(limited) == "time_limit_exceeded"
    for host, folder in folders.items():
        assert (folder / "web" / "current" / "server.py").exists()
        assert str(uw.service_status("web", host)) == "running"


def free_port_beside(taken: int) -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    return port if port != taken else free_port_beside(taken)


def test_outer_time_limit_ends_a_query_and_a_check_that_waits(web: Site) -> None:
    began = time.monotonic()
    waiting = "wait_for_healthy(web, [timeout(1.5), interval(0.2)], _)"
    assert outcome(WITHIN.format(seconds=0.3, goal=waiting)) == "time_limit_exceeded"
    endless = "repeat, service_config(web, []), fail"
    assert outcome(WITHIN.format(seconds=0.3, goal=endless)) == "time_limit_exceeded"
    assert time.monotonic() - began < 10


def test_time_limit_that_is_kept_is_none(web: Site) -> None:
    assert (
        outcome(
            WITHIN.format(seconds=60, goal="deploy_service(web, R), R == deployed(never_deployed)")
        )
        == "true"
    )


@pytest.mark.parametrize(
    ("thrown", "told"),
    [
        ("'$aborted'", "Execution Aborted"),
        ("unwind(abort)", "unwind(abort)"),
        ("stop_it", "stop_it"),
        ("error(resource_error(x), _)", "error(resource_error(x),"),
    ],
)
def test_what_another_thread_throws_into_an_operation_is_not_swallowed(
    web: Site, thrown: str, told: str
) -> None:
    uw.declare_lifecycle_hook("web", "pre_deploy", uw.custom("sleep 1"))
    throwing = (
        "thread_self(Me), thread_create(( sleep(0.3), thread_signal(Me, throw({thrown})) ), Other), "
        "call_cleanup(deploy_with_rollback(web, _), thread_join(Other))"
    )
    caught = outcome(throwing.format(thrown=thrown))
    assert caught.startswith(told)
    assert str(uw.service_status("web")) == "running"


def test_outer_time_limit_of_loading_is_thrown_and_no_error_of_the_file(tmp_path: Path) -> None:
    slow = tmp_path / "slow.pl"
    slow.write_text(":- sleep(2).\n")
    loading = f"deployment_engine:load('{slow}', _)"
    assert outcome(WITHIN.format(seconds=0.3, goal=loading)) == "time_limit_exceeded"
    consulting = f"deployment_loader:load_trusted('{slow}')"
    assert outcome(WITHIN.format(seconds=0.3, goal=consulting)) == "time_limit_exceeded"
