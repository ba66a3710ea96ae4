"""Every operation as a predicate, asked from Prolog, on a service of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.site import Site
from unifyweaver_py import Term


class Service:
    """The service `web`, in a folder of this machine, with a hook that says when it runs."""

    def __init__(self, folder: Path, port: int) -> None:
        self.site = Site(folder / "site")
        self.folder = folder / "remote" / "web"
        self.said = folder / "said"
        self.site.declare(
            {"localhost": {}}, "local", remote_dir=str(folder / "remote"), port=port,
            healthy_deadline=5,
        )  # fmt: skip
        for event in ("pre_deploy", "post_deploy", "pre_shutdown"):
            uw.declare_lifecycle_hook("web", event, uw.custom(f"echo $EVENT >> '{self.said}'"))

    def hooks(self) -> list[str]:
        """The events whose hooks ran since this was asked last."""
        lines = self.said.read_text().split() if self.said.exists() else []
        self.said.unlink(missing_ok=True)
        return lines

    @property
    def release(self) -> str:
        return (self.folder / "current").resolve().name

    @property
    def process(self) -> str:
        """The pid of the process that was started last, where it was not stopped."""
        record = self.folder / "run" / "process"
        words = record.read_text().split() if record.exists() else []
        return words[0] if words else ""


@pytest.fixture
def web(tmp_path: Path, free_port: int, own_ledger: Path) -> Iterator[Service]:
    yield Service(tmp_path, free_port)
    if uw.deploy_method_config("web"):
        uw.force_stop_service("web", 0)
    uw.undeclare_service("web")


@pytest.fixture
def running(web: Service) -> Service:
    assert uw.deploy_service("web").ok
    return web


def ask(goal: str, **bindings: object) -> object:
    """The one solution's Result."""
    [solution] = uw.query(goal, **bindings)
    return solution["Result"]


def test_deploy_service(web: Service) -> None:
    assert ask("deploy_service(web, Result)") == Term("deployed", ("never_deployed",))
    assert ask("deploy_service(web, Result)") == "unchanged"
    process = web.process
    assert ask("deploy_service(web, [force(true)], Result)") == Term("deployed", ("no_changes",))
    assert web.process not in ("", process)
    assert web.hooks() == []


def test_deploy_with_hooks(web: Service) -> None:
    web.site.release("1", "broken")
    assert ask("deploy_with_hooks(web, Result)") == "deployed"
    assert web.hooks() == ["pre_deploy", "post_deploy"]


def test_deploy_with_rollback(running: Service) -> None:
    first = running.release
    running.site.release("2")
    assert ask("deploy_with_rollback(web, Result)") == "deployed"
    second = running.release
    assert second != first
    assert running.hooks() == ["pre_deploy", "pre_shutdown", "post_deploy"]
    running.site.release("3", "broken")
    back = Term("rolled_back_after_failure", (Term("rolled_back", (second,)),))
    assert ask("deploy_with_rollback(web, Result)") == back
    running.site.release("4")
    assert ask("deploy_with_rollback(web, [backend(dry)], Result)") == "deployed"
    assert running.release == second
    assert ask("deploy_with_rollback(web, [host(localhost)], Result)") == "deployed"
    assert running.release != second


def test_deploy_to_all_hosts(web: Service) -> None:
    def results(status: str) -> list[Term]:
        return [Term("result", ("localhost", status))]

    assert ask("deploy_to_all_hosts(web, Result)") == results("deployed")
    assert ask("deploy_to_all_hosts(web, Result)") == results("unchanged")
    assert ask("deploy_to_all_hosts(web, [force(true)], Result)") == results("deployed")


def test_recover(running: Service) -> None:
    nothing = [Term("result", ("localhost", "nothing_to_recover"))]
    assert ask("recover(web, Result)") == nothing
    assert ask("recover(web, [backend(dry)], Result)") == nothing
    (running.folder / "run/history").unlink()  # as if the controller had died before commit
    done = [Term("result", ("localhost", Term("completed", (running.release,))))]
    assert ask("recover(web, [backend(dry)], Result)") == done
    assert ask("recover(web, Result)") == done
    assert ask("recover(web, [host(localhost)], Result)") == nothing


def test_deployment_plan(running: Service) -> None:
    running.site.release("2")
    plan = ask("deployment_plan(web, [], Result)")
    assert isinstance(plan, list)
    steps = [step.args[0] for step in plan]
    assert steps[:3] == ["observe", "pre_deploy_1", "scan"]
    assert "switch" in steps
    assert running.hooks() == []


def test_rollback_service(running: Service) -> None:
    first = running.release
    assert ask("rollback_service(web, Result)") == Term("error", ("no_rollback_available",))
    running.site.release("2")
    uw.deploy_service("web")
    second = running.release
    assert ask("rollback_service(web, Result)") == Term("rolled_back", (first,))
    assert running.release == first
    assert ask("rollback_service(web, [to(To)], Result)", To=second) == Term(
        "rolled_back", (second,)
    )
    assert running.release == second


def test_stop_start_and_restart(running: Service) -> None:
    first = running.process
    assert ask("stop_service(web, Result)") == "stopped"
    assert running.process == ""
    assert running.hooks() == ["pre_shutdown"]
    assert ask("start_service(web, Result)") == "started"
    second = running.process
    assert second not in ("", first)
    assert ask("restart_service(web, Result)") == "started"
    assert running.process not in ("", second)


def test_lock_by_hand(running: Service) -> None:
    assert ask("lock_status(web, Result)") == "unlocked"
    assert ask("lock_service(web, Result)") == "locked"
    assert ask("lock_status(web, Result)").args[2] == "by hand"
    assert ask("unlock_service(web, Result)") == "unlocked"
    assert ask("lock_service(web, [reason('moving house')], Result)") == "locked"
    before = running.process
    held = Term("error", (ask("lock_status(web, Result)"),))
    assert held.args[0].args[2] == "moving house"
    for goal in (
        "lock_service(web, Result)",
        "stop_service(web, Result)",
        "deploy_with_rollback(web, [force(true)], Result)",
        "rollback_service(web, Result)",
    ):
        assert ask(goal) == held
    assert running.process == before
    assert ask("unlock_service(web, Result)") == "unlocked"
    assert ask("lock_status(web, Result)") == "unlocked"
    assert ask("restart_service(web, Result)") == "started"


def test_status(running: Service) -> None:
    assert ask("service_status(web, Result)") == "running"
    [solution] = uw.query("service_status(web, Host, Result)")
    assert solution == {"Host": "localhost", "Result": "running"}
    uw.force_stop_service("web", 5)
    assert ask("service_status(web, Result)") == "stopped"
    assert ask("service_status(web, localhost, Result)") == "stopped"


@pytest.mark.parametrize(
    ("goal", "hooks"),
    [
        ("graceful_stop(web, [drain_timeout(1)], Result)", ["pre_shutdown"]),
        ("force_stop_service(web, 5, Result)", []),
    ],
)
def test_other_ways_to_stop(running: Service, goal: str, hooks: list[str]) -> None:
    assert ask(goal) == "stopped"
    assert running.process == ""
    assert running.hooks() == hooks


def test_rollout(web: Service) -> None:
    assert list(uw.query("declare_rollout(web, [batches([1]), on_failure(stop)])"))
    assert ask("rollout_config(web, Result)") == [
        Term("batches", ([1],)),
        Term("on_failure", ("stop",)),
    ]
    assert ask("resume_rollout(web, Result)") == Term("error", ("no_rollout_to_resume",))
    assert ask("deploy_to_all_hosts(web, Result)") == [Term("result", ("localhost", "deployed"))]
    [row] = uw.fleet_status("web")
    assert ask("fleet_status(web, Result)") == uw.fleet_status("web").term
    assert (row.release, row.process, row.health) == (web.release, "running", "healthy")


def test_drain_connections(running: Service) -> None:
    assert ask("drain_connections(web, [timeout(5)], Result)") == "drained"
    assert running.process


def test_execute_hooks(running: Service) -> None:
    assert ask("execute_hooks(web, post_deploy, Result)") == "ok"
    assert running.hooks() == ["post_deploy"]


def test_health(running: Service) -> None:
    assert ask("run_health_check(web, [retries(1)], Result)") == "healthy"
    assert ask("wait_for_healthy(web, [timeout(5)], Result)") == "healthy"
    uw.force_stop_service("web", 5)
    assert ask("run_health_check(web, [retries(1)], Result)") == "unhealthy"
    assert ask("wait_for_healthy(web, [timeout(0)], Result)") == "unhealthy"


def test_hashes(running: Service) -> None:
    first = running.release
    assert ask("release_hash(web, Result)") == first
    assert (
        ask("deployed_hash(web, Result)") == ask("deployed_hash(web, localhost, Result)") == first
    )
    assert ask("check_for_changes(web, Result)") == "no_changes"
    sources = ask("compute_source_hash(web, Result)")
    running.site.release("2")
    assert ask("compute_source_hash(web, Result)") != sources
    second = ask("release_hash(web, Result)")
    changed = Term("changed", (first, second))
    assert ask("check_for_changes(web, Result)") == changed
    assert ask("check_for_changes(web, localhost, Result)") == changed
    uw.deploy_service("web")
    assert (
        ask("rollback_hash(web, Result)") == ask("rollback_hash(web, localhost, Result)") == first
    )
    assert list(uw.query("store_deployed_hash(web, f00), store_rollback_hash(web, baa)"))
    assert (ask("deployed_hash(web, Result)"), ask("rollback_hash(web, Result)")) == ("f00", "baa")
