"""The commands, on the demo's hosts: what they show, and the exit statuses that scripts rely on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest

import unifyweaver_py as uw
from tests.site import Site
from unifyweaver_py import cli
from unifyweaver_py.demo._host import Host
from unifyweaver_py.demo.fleet import Fleet

UNIFYWEAVER = str(Path(sys.executable).with_name("unifyweaver"))
SECONDS = 60


class Project:
    """A file of declarations, and the service's files beside it."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.site = Site(folder / "site")
        self.file = folder / "services.pl"
        self.fleet = fleet
        self.declare()

    def declare(
        self, *more: str, transport: str = "ssh", hosts: int = 2, **changed: object
    ) -> None:
        """Write the file: the service `web` on so many hosts, and more directives."""
        configs = []
        for host in self.fleet.hosts[:hosts]:
            options = {**self.fleet.host_options(host), **changed}
            words = [f"{name}({atom(value)})" for name, value in options.items()]
            configs.append(f"host_config({atom(host.name)}, [{', '.join(words)}])")
        directives = [
            f"declare_service(web, [transport({transport}), source_dir(site), healthy_deadline(5)])",
            "declare_service_sources(web, ['**'])",
            f"declare_deploy_method(web, ssh, [remote_dir({atom(f'~/{self.site.folder.parent.name}')})])",
            f"declare_service_hosts(web, [{', '.join(configs)}])",
            *more,
        ]
        self.file.write_text("".join(f":- {directive}.\n" for directive in directives))

    def runs(self, host: Host) -> str:
        """The release that is active on a host."""
        link = host.folder / self.site.folder.parent.name / "web" / "current"
        return Path(os.readlink(link)).name if link.is_symlink() else ""


def atom(value: object) -> str:
    return str(value).lower() if isinstance(value, (bool, int)) else f"'{value}'"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(2) as running:
        yield running


@pytest.fixture
def project(
    fleet: Fleet, tmp_path: Path, own_ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    monkeypatch.setenv("UNIFYWEAVER_LEDGER", str(own_ledger))
    monkeypatch.setenv("COLUMNS", "200")
    yield Project(tmp_path, fleet)
    if uw.deploy_method_config("web"):
        uw.force_stop_service("web", 1)
    for name in ("web", "other"):
        uw.undeclare_service(name)


def run(*arguments: str | Path) -> click.testing.Result:
    """The command, in this process."""
    done = click.testing.CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def lines_with(text: str, words: str) -> int:
    return len(re.findall(re.escape(words), text))


def test_history_events_and_rebuild_ledger(project: Project) -> None:
    first, second = project.fleet.hosts
    assert run("deploy", project.file).exit_code == 0
    assert run("rollback", project.file, "--host", first.name).exit_code == 1
    listed = run("history", project.file)
    assert listed.exit_code == 0
    assert re.search(
        r"  rollback_service web\n .*: there is no release to go back to\n", listed.stdout
    )
    [identity] = re.findall(
        r"^(\S+)  deploy_with_rollback web .*\n .*: deployed\n", listed.stdout, re.MULTILINE
    )
    assert max(map(len, listed.stdout.splitlines())) <= 100
    assert "deploy_with_rollback" not in run("history", project.file, "web", "--limit", 1).stdout
    assert lines_with(run("history", project.file, "--unfinished").stdout, "web") == 0
    told = run("events", identity)
    assert told.exit_code == 0
    assert re.search(rf"^[0-9:]+ {first.name}: switch: ok ", told.stdout, re.MULTILINE)
    assert re.search(rf"^[0-9:]+ {second.name}: result: deployed ", told.stdout, re.MULTILINE)
    assert re.search(r"^    probe\('http://.*',200\)$", told.stdout, re.MULTILINE)
    unknown = run("events", "nothing")
    assert (unknown.exit_code, unknown.stderr) == (
        2,
        "unifyweaver: The ledger knows no run nothing\n",
    )
    rebuilt = run("rebuild-ledger", project.file)
    assert rebuilt.exit_code == 0
    assert len(re.findall(r"release [0-9a-f]{8}… is active", rebuilt.stdout)) == 2


def test_deploy_plan_status_check_rollback_and_stop(project: Project) -> None:
    first, second = project.fleet.hosts
    planned = run("plan", project.file)
    assert planned.exit_code == 0
    assert f"web on {first.name}" in planned.stdout
    assert re.search(r"stage: send release [0-9a-f]{8}…\n", planned.stdout)
    assert project.runs(first) == ""

    deployed = run("deploy", project.file)
    assert deployed.exit_code == 0
    assert lines_with(deployed.stdout, "deployed") == 2
    before, second_before = project.runs(first), project.runs(second)
    assert run("deploy", project.file, "web").stdout.count("unchanged") == 2

    project.site.release("2")
    tried = run("deploy", project.file, "--dry-run")
    assert (tried.exit_code, project.runs(first)) == (0, before)
    assert run("deploy", project.file, "--host", first.name).exit_code == 0
    assert project.runs(first) != before
    assert project.runs(second) == second_before

    shown = run("status", project.file)
    assert shown.exit_code == 0
    [line] = [line for line in shown.stdout.splitlines() if first.name in line]
    assert line.split() == [
        "web", first.name, "running", f"{project.runs(first)[:8]}…", f"{before[:8]}…",
    ]  # fmt: skip
    assert run("check", project.file, "web").exit_code == 0

    back = run("rollback", project.file, "--host", first.name)
    assert back.exit_code == 0
    assert f"went back to release {before[:8]}…" in back.stdout
    assert project.runs(first) == before

    stopped = run("stop", project.file, "--drain-timeout", "5", "--force-after", "5")
    assert (stopped.exit_code, lines_with(stopped.stdout, "stopped")) == (0, 2)
    for command in ("status", "check"):
        assert run(command, project.file).exit_code == 1


def test_lock_by_hand_refuses_with_4_until_it_is_given_back(project: Project) -> None:
    assert run("lock", project.file, "--reason", "moving house").exit_code == 0
    refused = run("deploy", project.file)
    assert refused.exit_code == 4
    assert "moving house" in refused.stdout
    assert run("unlock", project.file).exit_code == 0
    assert run("deploy", project.file).exit_code == 0


def test_force_deploys_what_is_unchanged_and_to_names_a_release(project: Project) -> None:
    project.declare(hosts=1)
    host = project.fleet.hosts[0]
    run("deploy", project.file)
    assert "unchanged" in run("deploy", project.file).stdout
    assert "unchanged" not in run("deploy", project.file, "--force").stdout
    first = project.runs(host)
    for version in "23":
        project.site.release(version)
        run("deploy", project.file)
    assert run("rollback", project.file, "--to", first).exit_code == 0
    assert project.runs(host) == first


def test_failure_that_was_rolled_back_exits_with_1_and_says_why(project: Project) -> None:
    project.declare(hosts=1)
    run("deploy", project.file)
    before = project.runs(project.fleet.hosts[0])
    project.site.release("2", "broken")
    done = run("deploy", project.file)
    assert done.exit_code == 1
    assert f"failed, and went back to release {before[:8]}…" in done.stdout
    assert "health: unhealthy: it answered 500" in done.stdout
    assert "    health: broken as told" in done.stdout
    assert "→ read the service's log on the host" in done.stdout
    assert project.runs(project.fleet.hosts[0]) == before


def test_terminal_takes_no_orders_from_the_log(project: Project) -> None:
    project.declare(hosts=1)
    orders = "import sys; print('a\\x1b]0;title\\x07b\\r'); sys.exit(3)\n"
    (project.site.folder / "server.py").write_text(orders)
    project.site.release("2")
    done = run("deploy", project.file)
    assert done.exit_code == 1
    assert "\x1b" not in done.output
    assert "a\\x1b]0;title\\x07b\\x0d" in done.output


def test_failure_that_was_not_restored_exits_with_3(project: Project) -> None:
    project.declare(hosts=1)
    project.site.release("1", "fragile")
    run("deploy", project.file)
    host = project.fleet.hosts[0]
    folder = host.folder / project.site.folder.parent.name / "web" / "releases" / project.runs(host)
    (folder / "BEHAVIOUR").write_text("crash")
    project.site.release("2", "broken")
    done = run("deploy", project.file)
    assert done.exit_code == 3
    assert "failed, and NOT restored: the process ended with 3" in done.stdout, done.stdout
    assert "→ look at the host now" in done.stdout


def test_insecure_service_is_refused_with_4_and_nothing_is_begun(project: Project) -> None:
    project.declare("declare_service(other, [host('a.example'), transport(http)])",
                    "declare_deploy_method(other, ssh, [])")  # fmt: skip
    connections = [host.connections for host in project.fleet.hosts]
    done = run("deploy", project.file, "other")
    assert done.exit_code == 4
    assert "refused: a.example is remote, and the transport is http" in done.stdout
    assert "→ declare transport(https)" in done.stdout
    assert [host.connections for host in project.fleet.hosts] == connections


def test_failing_hook_after_a_deployment_exits_with_5(project: Project) -> None:
    project.declare(
        "declare_lifecycle_hook(web, post_deploy, custom('echo oh >&2; exit 9'))", hosts=1
    )
    done = run("deploy", project.file)
    assert done.exit_code == 5
    assert "deployed, but the hook custom('echo oh >&2; exit 9') failed" in done.stdout
    assert "a command ended with 9: oh" in done.stdout


def test_several_services_are_deployed_in_order_until_one_fails(project: Project) -> None:
    project.declare("declare_service(other, [host('a.example'), transport(http)])",
                    "declare_deploy_method(other, ssh, [])", hosts=1)  # fmt: skip
    project.site.release("1", "broken")
    done = run("deploy", project.file)
    assert done.exit_code == 1
    assert "Not begun: other" in done.stderr
    project.site.release("1")
    done = run("deploy", project.file)
    assert done.exit_code == 4
    assert "Not begun" not in done.stderr


@pytest.mark.parametrize("command", ["rollback", "stop"])
def test_what_takes_away_wants_the_service_named_among_several(
    project: Project, command: str
) -> None:
    project.declare("declare_service(other, [])")
    connections = [host.connections for host in project.fleet.hosts]
    done = run(command, project.file)
    assert done.exit_code == 2
    assert "declares web, other: name the SERVICE that is meant" in done.stderr
    assert [host.connections for host in project.fleet.hosts] == connections


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["deploy"], "Missing argument 'FILE'"),
        (["deploy", "no-such-file.pl"], "does not exist"),
        (["deploi", "FILE"], "No such command 'deploi'"),
        (["deploy", "FILE", "wob"], "There is no service wob"),
        (["deploy", "FILE", "--host", "elsewhere"], "There is no host elsewhere to act on"),
        (["stop", "FILE", "--force-after", "soon"], "'soon' is not a valid float"),
        (["stop", "FILE", "--force-after", "-1"], "force_after(-1.0)"),
        (["rollback", "FILE", "--to", "../etc"], "to('../etc')"),
    ],
)
def test_error_of_use_exits_with_2_and_without_a_traceback(
    project: Project, arguments: list[str], message: str
) -> None:
    done = run(*[str(project.file) if word == "FILE" else word for word in arguments])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output


def test_file_that_is_refused_tells_line_and_column(project: Project) -> None:
    project.file.write_text(":- declare_service(web, [prot(80)]).\n:- shell('touch pwned').\n")
    done = run("status", project.file)
    assert done.exit_code == 2
    assert (
        f"{project.file}:1:1: There is no service option prot(80); did you mean port?"
        in done.stderr
    )
    assert f"{project.file}:2:1: " in done.stderr
    project.file.write_text("answer(42).\n")
    assert "declares no service" in run("status", project.file).stderr


def test_help_tells_every_exit_status() -> None:
    for name in cli.main.commands:
        if name != "demo":
            text = run(name, "--help").stdout
            for status in cli.STATUSES.values():
                assert re.search(rf"^ +{status}  ", text, re.MULTILINE), (name, status)
    assert sorted({cli.USE, *cli.STATUSES.values()}) == [0, 1, 2, 3, 4, 5]


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    return subprocess.Popen(
        [UNIFYWEAVER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def eventually(path: Path) -> None:
    end = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_signal_undoes_what_is_under_way(
    project: Project, number: signal.Signals, status: int
) -> None:
    project.declare(hosts=1)
    host = project.fleet.hosts[0]
    run("deploy", project.file)
    before = project.runs(host)
    reached = host.folder / "reached"
    reached.unlink(missing_ok=True)
    project.site.release("2")
    project.declare(
        "declare_lifecycle_hook(web, post_deploy, custom('touch ~/reached; sleep 60'))", hosts=1
    )
    process = start("deploy", project.file)
    eventually(reached)
    assert project.runs(host) != before
    process.send_signal(number)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == status, output + errors
    assert "unifyweaver: interrupted deploy_with_rollback of web: " in errors
    assert "Traceback" not in errors
    assert project.runs(host) == before


def test_without_a_terminal_nothing_is_drawn(project: Project) -> None:
    project.declare(hosts=1)
    process = start("deploy", project.file)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert "\x1b" not in output + errors
    assert re.search(r"^web +127\.0\.0\.11 +deployed +\d+\.\d s$", output, re.MULTILINE)


@pytest.mark.parametrize(
    ("operation", "result", "kind"),
    [
        ("deploy_with_rollback", "deployed", "done"),
        ("deploy_with_rollback", "[result(a, deployed), result(b, unchanged)]", "done"),
        ("deploy_with_rollback", "mixed([result(a, deployed), result(b, error(x))])", "failed"),
        ("deploy_with_rollback", "deployed_with_warnings(error(x))", "warned"),
        ("deploy_with_rollback", "rolled_back_after_failure(rolled_back(h))", "failed"),
        ("deploy_with_rollback", "rolled_back_after_failure(error(no_rollback_available))", "failed"),
        ("deploy_with_rollback", "rolled_back_after_failure(error(rollback_failed(t)))", "not_restored"),
        ("deploy_service", "error(deployment_failed(not_restored(a, b)))", "not_restored"),
        ("rollback_service", "error(rollback_failed(not_restored(a, b)))", "not_restored"),
        ("rollback_service", "error(rollback_failed(timeout))", "failed"),
        ("deploy_service", "mixed([result(a, error(security_validation_failed([]))), result(b, error(x))])", "refused"),
        ("deploy_to_all_hosts", "[]", "failed"),
        ("graceful_stop", "stopped", "done"),
        ("service_status", "stopped", "failed"),
        ("service_status", "running", "done"),
        ("service_status", "mixed([result(a, running), result(b, unreachable(timeout))])", "failed"),
        ("fleet_status", "[host_status(a, h, running, healthy, 1, none)]", "done"),
        ("fleet_status", "[host_status(a, h, running, healthy, 1, drift(g, h))]", "failed"),
        ("drain_connections", "timeout", "failed"),
    ],
)  # fmt: skip
def test_kind_of_a_result(operation: str, result: str, kind: str) -> None:
    goal = f"deployment_operations:result_kind({operation}, {result}, Kind)"
    assert list(uw.query(goal)) == [{"Kind": kind}]


@pytest.mark.parametrize(
    ("result", "words", "advice"),
    [
        ("error(deployment_failed(host_key_mismatch))", "not deployed: the host has another key", "known_hosts"),
        ("error(deployment_failed(no_match('*.py')))", "the source pattern '*.py' matches nothing", "declare_"),
        ("error(rollback_failed(not_restored(no_space, timeout)))", "full, and NOT restored: it took", "look at"),
        ("error(start_failed(port_in_use(80)))", "not started: another process listens on port 80", "another port"),
        ("unreachable(unreachable('No route'))", "unreachable: the host cannot be reached (No route)", "see that ssh"),
        (
            'error(pre_deploy_failed(error(hook_failed(custom(x), command_failed(2, ["a", "b"])))))',
            "the hook custom(x) failed: a command ended with 2: b",
            "correct the hook",
        ),
        (
            'error(deployment_failed(command_failed(1, ["the login did not run sh", "No account"])))',
            "not deployed: a command ended with 1: No account",
            "let the user have sh there",
        ),
        (
            'unreachable(command_failed(1, ["the login did not run sh"]))',
            "unreachable: a command ended with 1: the login did not run sh",
            "let the user have sh there",
        ),
        (
            'error(deployment_failed(command_failed(1, ["mkdir: /srv: Permission denied"])))',
            "not deployed: a command ended with 1: mkdir: /srv: Permission denied",
            "let the user write there",
        ),
        (
            'error(deployment_failed(command_failed(1, ["mkdir: /srv: Read-only file system"])))',
            "Read-only",
            "let the user write there",
        ),
        ('failed(command_failed(127, ["tar: not found"]))', "tar: not found", "install on the host"),
        ("failed(exited(127))", "the process ended with 127", "install on the host what"),
        ("failed(exited(1))", "the process ended with 1", "log/service.log"),
        ('failed(command_failed(2, ["no"]))', "a command ended with 2: no", None),
        ("rolled_back_after_failure(error(no_rollback_available))", "nothing was active before", None),
        ("error(no_rollback_available)", "there is no release to go back to", "--to"),
        ("deployed", "deployed", None),
        ("error(something(else))", "something(else)", None),
    ],
)  # fmt: skip
def test_result_in_words_and_what_to_do(result: str, words: str, advice: str | None) -> None:
    told = uw.once(f"deployment_narration:result_text({result}, Text)")
    assert told is not None
    assert words in str(told["Text"])
    counsel = uw.once(f"deployment_narration:advice({result}, Text)")
    assert advice is None if counsel is None else str(advice) in str(counsel["Text"])


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("hook(pre_deploy, c, command(ls, 5))", "pre_deploy hook: run ls"),
        ("try(prune(3))", "the newest 3, the active one and the rollback point (whose failure stops nothing)"),
        ("stage(r2, release(d, [], s, [], base(r1, x, copy, -)), 5)", "send release r2, copying what is unchanged"),
        ("link(current, none)", "leave no release active"),
        ("failed(timeout)", "not possible: it took too long"),
        ("unheard_of(1)", "unheard_of(1)"),
    ],
)  # fmt: skip
def test_step_in_words(action: str, words: str) -> None:
    told = uw.once(f"deployment_narration:step_text(step(x, h, {action}, []), Text)")
    assert told is not None
    assert words in str(told["Text"])
