"""Runs and their events: who did what, how far it came, and what is left of it when its controller is killed."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import unifyweaver_py as uw
from tests import controller
from tests.site import Site
from unifyweaver_py import Term, cli, effects
from unifyweaver_py._history import Runs
from unifyweaver_py.effects import LiveEffects
from unifyweaver_py.testing import RecordingEffects, using

SECONDS = 30


@pytest.fixture
def site(tmp_path: Path, free_port: int, own_ledger: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    options = {"remote_dir": str(tmp_path / "remote"), "port": free_port, "healthy_deadline": 5}
    site.declare({"localhost": {}}, "local", **options)
    yield site
    uw.force_stop_service("web", 0)
    uw.undeclare_service("web")


def declared_by(file: Path, site: Site, port: int) -> Path:
    """The same service, by a file."""
    file.write_text(
        f":- declare_service(web, [port({port}), source_dir('{site.folder}'), healthy_deadline(5)]).\n"
        f":- declare_deploy_method(web, local, [remote_dir('{file.parent}/remote')]).\n"
        ":- declare_service_sources(web, ['**']).\n"
    )
    return file


def test_run_tells_who_what_and_what_became_of_it(
    site: Site, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "alice")
    uw.undeclare_service("web")
    file = declared_by(tmp_path / "services.pl", site, free_port)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    uw.load(file)
    file.write_text("% changed since\n")
    before = time.time()
    deployed = uw.deploy_with_rollback("web", force=True)
    stopped = uw.stop_service("web")
    [second, first] = uw.history("web")
    assert (first.id, first.service, first.operation) == (
        deployed.run,
        "web",
        "deploy_with_rollback",
    )
    assert str(first.call) == "deploy_with_rollback(web,[force(true)])"
    assert first.by == f"alice@{os.uname().nodename}"
    assert (first.pid, first.hosts) == (os.getpid(), ("localhost",))
    assert (first.file, first.file_hash) == (str(file), digest)
    assert first.release == uw.deployed_hash("web")
    assert first.ended is not None
    assert before <= first.began <= first.ended <= second.began <= time.time()
    assert first.result == "deployed"
    assert (second.id, second.result, second.releases) == (stopped.run, "stopped", ())
    assert uw.run_events(first.id) == deployed.events
    assert uw.run_events(second.id) == stopped.events
    assert "probe('http:" in " ".join(
        str(note) for event in uw.run_events(first.id) for note in event.notes
    )
    assert "<td>deploy_with_rollback</td>" in uw.history("web")._repr_html_()
    with pytest.raises(uw.ExistenceError, match="The ledger knows no run nothing"):
        uw.run_events("nothing")


def test_run_asked_for_by_prolog_is_one_too(site: Site) -> None:
    assert uw.once("deploy_service(web, R), stop_service(web, stopped)") == {
        "R": Term("deployed", ("never_deployed",))
    }
    runs = uw.history("web")
    assert [run.operation for run in runs] == ["stop_service", "deploy_service"]
    assert all(uw.run_events(run.id) for run in runs)
    assert runs[0].file == "user"
    assert runs[0].file_hash is None


def test_what_finds_nothing_to_do_tells_what_is_active(site: Site) -> None:
    site.deploy()
    assert str(site.deploy()) == "unchanged"
    assert uw.history("web")[0].release == uw.deployed_hash("web")
    assert uw.rollback_service("web").run == uw.history("web")[0].id


def test_what_only_looks_is_no_run(site: Site) -> None:
    looked = [
        uw.service_status("web"), uw.service_status("web", "localhost"), uw.lock_status("web"),
        uw.run_health_check("web", retries=1), uw.wait_for_healthy("web", timeout=0), uw.rebuild_ledger("web"),
        site.deploy(backend="dry"), site.deploy(backend=Term("model", ([],))), uw.stop_service("web", backend="dry"),
    ]  # fmt: skip
    uw.deployment_plan("web")
    assert [result.run for result in looked] == [None] * len(looked)
    assert uw.history() == []


def test_history_is_asked_by_its_options(site: Site) -> None:
    for _ in range(3):
        uw.stop_service("web")
    uw.lock_service("web", reason="test")
    uw.unlock_service("web")
    everything = uw.history()
    assert [run.operation for run in everything] == [
        "unlock_service",
        "lock_service",
        *["stop_service"] * 3,
    ]
    assert uw.history("web", limit=2) == everything[:2]
    assert uw.history(since=everything[1].began) == everything[:2]
    assert uw.history(operation="lock_service") == everything[1:2]
    assert uw.history(host="localhost") == everything
    assert uw.history(host="local") == []
    assert uw.history("other") == []
    assert uw.history(unfinished=False) == everything
    assert uw.history(unfinished=True) == []
    for options in ({"limit": 0}, {"limits": 1}, {"since": "yesterday"}):
        with pytest.raises((uw.DomainError, uw.TypeError_)):
            uw.history("web", **options)


def test_terms_of_a_run_come_back_whole(site: Site) -> None:
    """Quotes, text of all kinds, what is no text, and variables."""
    goal = (
        "atom_codes(Odd, [0, 39, 92, 0xdc80, 0x1f600, 10]), atom_string(Odd, Text), "
        "Notes = [Odd, Text, 'a'-\"a\", [], '[]', {x}, 1r3, 1.0e10, -(1), - 1, 'X', '$VAR'(1), f(_), 'hello world'], "
        "Told = event(1.5, h, s, failed(Odd), 0.25, Notes), "
        "forall(member(E, [begin(r, web, look, 1, [h], [call(Told)]), end(r, 2, error(Text), [Told])]), "
        "       deployment_effects:effect(ledger(E), done)), "
        "run_events(r, [Event]), history(web, [], [run(r, Properties)]), "
        "memberchk(call(Called), Properties), memberchk(result(Result), Properties), "
        "Event =@= Told, Called =@= Told, Result == error(Text)"
    )
    assert uw.once(goal) is not None


class Watching(LiveEffects):
    """Real effects that look at the ledger, as another process would, before each script is sent."""

    def __init__(self, ledger: Path) -> None:
        super().__init__(ledger)
        self._file = ledger
        self.intents: list[list[str]] = []
        self.steps: list[list[str]] = []

    def shell(self, run: Term, target: Term, script: str, *more: Any) -> Term:
        with sqlite3.connect(self._file) as other:
            asked = "SELECT term FROM entries WHERE kind = 'intent'"
            intents = [text for (text,) in other.execute(asked)]
        other.close()
        self.intents.append(intents)
        self.steps.append(re.findall(r"^'(?:step|attempt)' '(\w+)'", script, re.MULTILINE))
        return super().shell(run, target, script, *more)


def test_intent_is_on_the_disk_before_its_script_is_sent(site: Site, own_ledger: Path) -> None:
    effects.set_ledger(None)
    with using(Watching(own_ledger)) as watching:
        site.deploy()
        site.release("2", "broken")
        site.deploy()
    assert any("undo_start_1" in steps for steps in watching.steps)
    for intents, steps in zip(watching.intents, watching.steps, strict=True):
        observing = set(steps) <= {"observe", "confirm", "drain"}
        assert [uw.effects.entries.read(text) for text in intents] == ([] if observing else [steps])


def killed_in_its_hook(site: Site, tmp_path: Path, port: int) -> Path:
    """The ledger of a controller that was killed while its hook ran; it tells what it was told while that lived."""
    begun = tmp_path / "begun"
    options = {"remote_dir": str(tmp_path / "remote"), "port": port, "healthy_deadline": 5}
    hook = f"touch {begun}; sleep 2"
    with controller.begin(site, ["localhost"], options, "local", hook=hook) as process:
        deadline = time.monotonic() + SECONDS
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        ledger = site.folder.with_suffix(".sqlite3")
        effects.set_ledger(ledger)
        assert [run.pid for run in uw.history("web", unfinished=True)] == [process.pid]
        assert uw.unfinished_runs("web") == []
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=SECONDS)
    return ledger


def test_run_whose_controller_was_killed_is_unfinished(
    site: Site, tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_in_its_hook(site, tmp_path, free_port)
    [run] = uw.unfinished_runs("web")
    assert uw.unfinished_runs() == uw.history("web") == uw.history(unfinished=True) == [run]
    assert (run.ended, run.result, run.seconds) == (None, None, None)
    assert run.release == uw.release_hash("web")
    *events, intent = uw.run_events(run.id)
    assert isinstance(intent, uw.Intent)
    assert intent.host == "localhost"
    assert any(step.startswith("post_deploy") for step in intent.steps)
    assert {"switch", "start", "health"} <= {event.step for event in events}
    assert all(event.outcome == "ok" for event in events)
    assert "unfinished" in str(run)
    cli._tell_unfinished("web")
    assert f"Unfinished: deploy_with_rollback by {run.by}, run {run.id}." in capsys.readouterr().err
    assert str(site.deploy()) in ("unchanged", "deployed")
    assert uw.unfinished_runs("web") == [run]
    cli._tell_unfinished("web")
    assert capsys.readouterr().err == ""


def test_controllers_of_before_the_machine_was_started_have_ended(site: Site) -> None:
    machine = uw.once("deployment_controllers:this_controller(Machine, Pid, Born, _)")
    assert machine is not None
    boot, _, space = str(machine["Machine"]).partition("/")
    processes = {
        "lives": (machine["Machine"], machine["Pid"], machine["Born"]),
        "gone": (machine["Machine"], machine["Pid"], 1),
        "earlier": (f"{boot[:-1]}/{space}", machine["Pid"], machine["Born"]),
        "elsewhere": (f"{boot}/pid:[1]", 1, 1),
        "unknown": ("-", 1, 1),
    }
    for name, (where, pid, born) in processes.items():
        about = [Term("machine", (where,)), Term("pid", (pid,)), Term("born", (born,))]
        about += [Term("call", ("x",)), Term("by", ("me",)), Term("file", ("user",))]
        begin = Term("begin", (name, "web", "x", 1.0, [], about))
        assert uw.once("deployment_effects:effect(ledger(Begin), done)", Begin=begin) == {}
    assert {run.id for run in uw.unfinished_runs("web")} == {"gone", "earlier"}


def test_operation_that_raises_ends_its_run_with_what_it_raised(
    own_ledger: Path, site: Site
) -> None:
    live = LiveEffects(own_ledger)
    with (
        using(RecordingEffects(ledger=live.ledger)),
        pytest.raises(AssertionError, match="shell"),
    ):
        uw.stop_service("web")
    [run] = uw.history("web")
    assert run.ended is not None
    assert str(run.result).startswith("raised(")


def test_ledger_that_cannot_be_written_stops_neither_deployment_nor_undoing(
    site: Site, tmp_path: Path
) -> None:
    site.deploy()
    effects.set_ledger(tmp_path)
    site.release("2")
    told = site.deploy()
    assert str(told) == "deployed"
    [journal] = [event for event in told.events if event.step == "journal"]
    assert str(journal.outcome).startswith(f"failed(ledger_failed('{tmp_path}',")
    site.release("3", "broken")
    undone = site.deploy()
    assert str(undone).startswith("rolled_back_after_failure(rolled_back(")
    assert [event.step for event in undone.events].count("journal") == 1


def test_ledger_is_rebuilt_from_the_hosts(site: Site, tmp_path: Path) -> None:
    site.deploy()
    first = uw.deployed_hash("web")
    site.release("2")
    site.deploy()
    known = uw.deployed_hash("web"), uw.rollback_hash("web")
    assert known[1] == first
    effects.set_ledger(tmp_path / "new.sqlite3")
    assert uw.deployed_hash("web") is None
    assert uw.once("rebuild_ledger(web, [result(localhost, recorded(_))])") is not None
    assert (uw.deployed_hash("web"), uw.rollback_hash("web")) == known
    rebuilt = uw.rebuild_ledger("web")
    assert list(rebuilt) == [Term("result", ("localhost", Term("recorded", (known[0],))))]
    assert (uw.deployed_hash("web"), uw.rollback_hash("web")) == known
    assert uw.check_for_changes("web") == "no_changes"
    effects.set_ledger(tmp_path)
    assert not uw.rebuild_ledger("web").ok


def test_host_without_a_release_is_recorded_so(site: Site) -> None:
    uw.store_deployed_hash("web", "f00")
    assert str(uw.rebuild_ledger("web")) == "[result(localhost,recorded(none))]"
    assert uw.check_for_changes("web") == "never_deployed"
    assert Runs() == uw.history()
