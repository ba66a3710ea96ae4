"""Bad input is refused with a message that says what, where and what to do, and leaves nothing half done.

What needs a host of its own is in `lab/test_bad_input.py`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import unifyweaver_py as uw
from tests.site import Site
from unifyweaver_py import Term
from unifyweaver_py.testing import RecordingEffects, using

ASKED_BY_NAME = (
    "deploy_service", "deploy_with_hooks", "deploy_with_rollback", "deploy_to_all_hosts", "deployment_plan",
    "rollback_service", "start_service", "stop_service", "restart_service", "service_status",
    "graceful_stop", "recover", "drain_connections", "run_health_check", "wait_for_healthy",
    "compute_source_hash", "release_hash", "check_for_changes",
    "validate_security", "requires_encryption", "is_local_service",
    "generate_deploy_script", "generate_ssh_deploy", "generate_rollback_script",
    "generate_health_check_script", "generate_systemd_unit",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _declared(own_ledger: Path) -> Iterator[None]:
    uw.declare_service("web", host="localhost", port=8080)
    uw.declare_deploy_method("web", "local")
    uw.declare_service_hosts("web", {"localhost": {}})
    uw.declare_lifecycle_hook("web", "pre_deploy", "save_state")
    yield
    for name in ("web", "other"):
        uw.undeclare_service(name)


def declared() -> object:
    """Everything that is declared about all services."""
    return (
        list(uw.service_config()), list(uw.deploy_method_config()), list(uw.service_sources()),
        list(uw.service_hosts()), list(uw.lifecycle_hooks()),
    )  # fmt: skip


def refusal(what: Callable[[], object]) -> str:
    """The message with which something is refused that changes no declaration and asks nothing of the world."""
    before = declared()
    with using(RecordingEffects()) as untouched, pytest.raises(uw.PrologError) as refused:
        what()
    assert (declared(), untouched.calls) == (before, [])
    return str(refused.value)


def refused_file(folder: Path, directive: str) -> str:
    """The message, behind its place, with which a file is refused whole."""
    path = folder / "services.pl"
    path.write_text(f":- declare_service(other, [port(1)]).\n\n  :- {directive}.\n")
    message = refusal(lambda: uw.load(path))
    place = f"{path}:3:3: "
    assert message.startswith(place)
    return message.removeprefix(place)


# ---- names that nobody knows -----------------------------------------------------------------------------


@pytest.mark.parametrize("function", ASKED_BY_NAME)
def test_unknown_service_is_named_with_the_nearest(function: str) -> None:
    message = refusal(lambda: getattr(uw, function)("wbe"))
    assert message == "There is no service wbe; did you mean web?"


def test_unknown_service_of_a_hook_or_a_forced_stop_is_named_too() -> None:
    message = "There is no service wbe; did you mean web?"
    assert refusal(lambda: uw.execute_hooks("wbe", "pre_deploy")) == message
    assert refusal(lambda: uw.force_stop_service("wbe", 1)) == message


def test_service_that_nobody_declared_is_nothing_to_a_query() -> None:
    assert uw.service_config("wbe") is None
    assert uw.deploy_method_config("wbe") is None
    assert uw.service_sources("wbe") is None
    assert uw.service_hosts("wbe") is None
    assert uw.deployed_hash("wbe") is None
    uw.undeclare_service("wbe")


TYPOS = {
    "service option": (
        lambda: uw.declare_service("web", prot=80),
        "declare_service(web, [prot(80)])",
        "There is no service option prot(80); did you mean port?",
    ),
    "option without a value": (
        lambda: uw.once("declare_service(web, [prt()])"),
        "declare_service(web, [prt()])",
        "There is no service option prt(); did you mean port?",
    ),
    "method option": (
        lambda: uw.declare_deploy_method("web", "ssh", usr="me"),
        "declare_deploy_method(web, ssh, [usr(me)])",
        "There is no method option usr(me); did you mean user?",
    ),
    "host option": (
        lambda: uw.declare_service_hosts("web", {"a.example": {"ssh_prot": 22}}),
        "declare_service_hosts(web, [host_config('a.example', [ssh_prot(22)])])",
        "There is no host option ssh_prot(22); did you mean ssh_port?",
    ),
    "word of an option": (
        lambda: uw.declare_service("web", transport="htps"),
        "declare_service(web, [transport(htps)])",
        "A value that is not allowed: transport(htps) (allowed: http, https, ssh); did you mean https?",
    ),
    "option of the method": (
        lambda: uw.declare_service("web", known_hosts="/k"),
        "declare_service(web, [known_hosts('/k')])",
        "There is no service option known_hosts('/k'); it is one of the deploy method",
    ),
    "method": (
        lambda: uw.declare_deploy_method("web", "shs"),
        "declare_deploy_method(web, shs, [])",
        "There is no deploy method shs (there are ssh, local); did you mean ssh?",
    ),
    "event": (
        lambda: uw.declare_lifecycle_hook("web", "post_deply", "health_check"),
        "declare_lifecycle_hook(web, post_deply, health_check)",
        re.compile(r"There is no event post_deply \(there are pre_deploy, .*\); did you mean post_deploy\?"),
    ),
    "action": (
        lambda: uw.declare_lifecycle_hook("web", "post_deploy", "helth_check"),
        "declare_lifecycle_hook(web, post_deploy, helth_check)",
        re.compile(r"There is no hook action helth_check \(there are .*\); did you mean health_check\?"),
    ),
    "action with an argument": (
        lambda: uw.declare_lifecycle_hook("web", "post_deploy", Term("custon", ("make",))),
        "declare_lifecycle_hook(web, post_deploy, custon(make))",
        re.compile(r"There is no hook action custon\(make\) \(there are .*\); did you mean custom\?"),
    ),
    "action within another": (
        lambda: uw.declare_lifecycle_hook("web", "post_deploy", uw.run_once("warm_cashe")),
        "declare_lifecycle_hook(web, post_deploy, run_once(warm_cashe))",
        re.compile(r"There is no hook action .*warm_cashe.* \(there are .*\); did you mean warm_cache\?"),
    ),
}  # fmt: skip


def says(message: str, expected: str | re.Pattern[str]) -> bool:
    if isinstance(expected, str):
        return message == expected
    return expected.fullmatch(message) is not None


@pytest.mark.parametrize("typo", TYPOS)
def test_typo_in_python_names_the_nearest_and_changes_nothing(typo: str) -> None:
    declare, _, expected = TYPOS[typo]
    message = refusal(declare)
    assert says(message, expected), message


@pytest.mark.parametrize("typo", TYPOS)
def test_typo_in_a_file_names_its_place_and_the_nearest_and_changes_nothing(
    tmp_path: Path, typo: str
) -> None:
    _, directive, expected = TYPOS[typo]
    message = refused_file(tmp_path, directive)
    assert says(message, expected), message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: uw.deploy_with_rollback("web", forse=True),
            "There is no operation option forse(true); did you mean force?",
        ),
        (
            lambda: uw.run_health_check("web", retrys=1),
            "There is no health_check option retrys(1); did you mean retries?",
        ),
        (
            lambda: uw.graceful_stop("web", drain_timout=1),
            "There is no graceful_stop option drain_timout(1); did you mean drain_timeout?",
        ),
        (
            lambda: uw.rollback_service("web", too="f00"),
            "There is no rollback option too(f00); did you mean to?",
        ),
        (
            lambda: uw.deploy_with_rollback("web", host="elsewhere"),
            "There is no host elsewhere to act on",
        ),
    ],
)
def test_typo_in_a_call_is_told_before_anything_is_done(
    call: Callable[[], object], message: str
) -> None:
    assert refusal(call) == message


def test_typo_in_an_event_that_is_asked_for_names_the_nearest() -> None:
    message = refusal(lambda: uw.execute_hooks("web", "pre_shutdwn"))
    assert message.startswith("There is no event pre_shutdwn (there are ")
    assert message.endswith("; did you mean pre_shutdown?")


# ---- ports and hosts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [0, -1, 65536, 10**30])
def test_port_out_of_range_is_refused_wherever_it_is_declared(tmp_path: Path, port: int) -> None:
    def message(name: str) -> str:
        return (
            f"A value that is not allowed: {name}({port}) (needed: a port number from 1 to 65535)"
        )

    assert refusal(lambda: uw.declare_service("web", port=port)) == message("port")
    assert refusal(lambda: uw.declare_deploy_method("web", "ssh", ssh_port=port)) == message(
        "ssh_port"
    )
    assert refusal(lambda: uw.declare_service_hosts("web", {"h": {"port": port}})) == message(
        "port"
    )
    assert refused_file(tmp_path, f"declare_service(web, [port({port})])") == message("port")
    assert (
        refused_file(tmp_path, f"declare_deploy_method(web, ssh, [ssh_port({port})])")
        == message("ssh_port")
    )  # fmt: skip


@pytest.mark.parametrize("port", ["80", 80.0, True])
def test_port_that_is_no_whole_number_is_refused(port: object) -> None:
    message = refusal(lambda: uw.declare_service("web", port=port))
    assert message.startswith("A value of the wrong type: port(")
    assert message.endswith("(needed: a port number from 1 to 65535)")


@pytest.mark.parametrize(
    "host",
    ["a b", " a", "-oProxyCommand=touch pwned", "-", "", "a;b", "a\nb", "$(id)", "`id`", "a'b", "u@h", "a/b",
     "h" * 256],
)  # fmt: skip
def test_host_that_is_no_host_name_is_refused_wherever_it_is_declared(
    tmp_path: Path, host: str
) -> None:
    needed = "(needed: a host name or address)"
    for declare in (
        lambda: uw.declare_service("web", host=host),
        lambda: uw.declare_deploy_method("web", "ssh", host=host),
        lambda: uw.declare_service_hosts("web", {host: {}}),
        lambda: uw.deploy_with_rollback("web", host=host),
        lambda: uw.declare_service("web", address=host),
    ):
        message = refusal(declare)
        assert message.startswith("A value that is not allowed: ")
        assert message.endswith(needed)
    written = str(Term("host", (host,)))
    assert refused_file(tmp_path, f"declare_service(web, [{written}])").endswith(needed)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
@pytest.mark.parametrize("address", [None, "127.0.0.2"])
def test_two_services_on_one_port_of_one_host_are_refused_before_anything_is_done(
    host: str, address: str | None
) -> None:
    uw.declare_service("other", port=8080, host=host, address=address)
    uw.declare_deploy_method("other", "local")
    message = (
        "The services web and other both have port 8080 on localhost; give one of them another port"
    )
    for function in (
        uw.deploy_service, uw.deploy_with_hooks, uw.deploy_with_rollback, uw.deploy_to_all_hosts, uw.deployment_plan,
    ):  # fmt: skip
        assert refusal(lambda: function("web")) == message  # noqa: B023 - called at once


def test_two_services_on_one_port_of_a_remote_host_are_refused_too() -> None:
    for name, port in (("web", 8080), ("other", 9090)):
        uw.declare_service(name, transport="ssh", port=port)
        uw.declare_deploy_method(name, "ssh")
        uw.declare_service_sources(name, ["**"])
    uw.declare_service_hosts("web", {"a.example": {}, "b.example": {"port": 9090}})
    uw.declare_service_hosts("other", {"b.example": {}})
    told = (
        "The services web and other both have port 9090 on b.example; give one of them another port"
    )
    assert refusal(lambda: uw.deploy_with_rollback("web")) == told
    told = told.replace("web and other", "other and web")
    assert refusal(lambda: uw.deploy_with_rollback("other")) == told


@pytest.mark.parametrize("changed", [{"port": 8081}, {"host": "elsewhere.example"}])
def test_two_services_that_differ_in_port_or_host_are_deployed(changed: dict[str, object]) -> None:
    uw.declare_service("other", **{"host": "localhost", "port": 8080, **changed})
    uw.declare_deploy_method("other", "ssh")
    uw.declare_service_sources("web", ["**"])
    result = uw.deploy_with_rollback("web", backend=Term("model", ([],)))
    assert str(result) == "deployed"


def test_service_is_not_in_its_own_way_on_a_port() -> None:
    uw.declare_service_sources("web", ["**"])
    uw.declare_service_hosts("web", {"localhost": {}, "127.0.0.1": {"port": 8081}})
    assert str(uw.deploy_with_rollback("web", backend=Term("model", ([],)))) == "deployed"


# ---- sources --------------------------------------------------------------------------------------------------


class Running:
    """The service `web` of this machine, deployed once."""

    def __init__(self, folder: Path, port: int) -> None:
        self.site = Site(folder / "site")
        self.remote = folder / "remote" / "web"
        self.port = port
        self.declare()
        assert str(self.site.deploy()) == "deployed"
        self.before = self.found()

    def declare(self, *patterns: object, **options: object) -> None:
        usual = {"remote_dir": str(self.remote.parent), "port": self.port, "healthy_deadline": 5}
        self.site.declare({"localhost": {}}, "local", **{**usual, **options})
        if patterns:
            uw.declare_service_sources("web", list(patterns))

    def found(self) -> object:
        """The releases, the links and the process."""
        links = [os.readlink(self.remote / link) for link in ("current",)]
        releases = sorted(path.name for path in (self.remote / "releases").iterdir())
        record = (self.remote / "run" / "process").read_text()
        return releases, links, (self.remote / ".backup").is_symlink(), record

    def refused(self) -> str:
        """In words and with its advice, the result of a deployment that changed nothing."""
        result = uw.deploy_with_rollback("web")
        assert not result.ok
        assert self.found() == self.before
        assert str(uw.service_status("web", "localhost")) == "running"
        return in_words(result.term)


def in_words(result: object) -> str:
    told = uw.once("deployment_narration:result_text(Result, Text)", Result=result)
    advice = uw.once("deployment_narration:advice(Result, Text)", Result=result)
    assert told is not None
    assert advice is not None, result
    return f"{told['Text']} → {advice['Text']}"


@pytest.fixture
def running(tmp_path: Path, free_port: int) -> Iterator[Running]:
    service = Running(tmp_path, free_port)
    yield service
    service.declare()
    uw.force_stop_service("web", 0)


CORRECT = "correct declare_service_sources/2"


def test_sources_that_cannot_be_shipped_leave_what_runs(running: Running, tmp_path: Path) -> None:
    folder = running.site.folder
    running.declare("*.py", "lib/**")
    assert (
        running.refused()
        == f"not deployed: the source pattern 'lib/**' matches nothing → {CORRECT}"
    )
    running.declare("*.py", uw.exclude("**"))
    assert running.refused() == f"not deployed: the sources are empty → {CORRECT}"
    running.declare(source_dir="nowhere")
    missing = f"there is no source folder {Path.cwd() / 'nowhere'}"
    advice = "correct source_dir; it is relative to the file that declares the service"
    assert running.refused() == f"not deployed: {missing} → {advice}"
    (folder / "secret").symlink_to("/etc/passwd")
    running.declare()
    assert (
        running.refused()
        == f"not deployed: the link secret leads outside the source folder → {CORRECT}"
    )
    (folder / "secret").unlink()
    (tmp_path / "outside").mkdir()
    (folder / "away").symlink_to(tmp_path / "outside")
    running.declare("*.py", "away")
    assert (
        running.refused()
        == f"not deployed: the link away leads outside the source folder → {CORRECT}"
    )


def test_entry_point_that_is_not_among_the_sources_leaves_what_runs(running: Running) -> None:
    advice = "name it in declare_service_sources/2, or correct entry_point"
    running.declare("VERSION")
    told = f"not deployed: 'server.py' is started, and is not among the sources → {advice}"
    assert running.refused() == told
    running.declare(entry_point="main.py")
    assert running.refused() == told.replace("server.py", "main.py")
    running.declare("**", uw.exclude("server.py"))
    assert running.refused() == told


@pytest.mark.parametrize("pattern", ["../x", "/etc/passwd", "a/../../b", ""])
def test_pattern_that_leads_outside_is_refused_when_it_is_declared(
    tmp_path: Path, pattern: str
) -> None:
    needed = (
        f"A value that is not allowed: '{pattern}' "
        "(needed: a relative path without .., with * ? [...] ** as wildcards, or \\+ before one)"
    )
    assert refusal(lambda: uw.declare_service_sources("web", ["**", pattern])) == needed
    directive = f"declare_service_sources(web, ['**', \\+ '{pattern}'])"
    assert refused_file(tmp_path, directive) == needed


@pytest.mark.parametrize("function", ["compute_source_hash", "release_hash", "check_for_changes"])
def test_sources_that_cannot_be_hashed_are_told_with_what_to_do(
    function: str, tmp_path: Path
) -> None:
    uw.declare_service("web", source_dir=str(tmp_path))
    uw.declare_service_sources("web", ["*.py"])
    with pytest.raises(uw.DomainError) as refused:
        getattr(uw, function)("web")
    told = (
        f"The files of web cannot be hashed: the source pattern '*.py' matches nothing; {CORRECT}"
    )
    assert str(refused.value) == told


# ---- a ledger that cannot be used ---------------------------------------------------------------------------------


def test_damaged_ledger_is_set_aside_and_the_deployment_goes_on(
    running: Running, own_ledger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uw.effects.set_ledger(own_ledger)  # closed, and opened again
    damaged = b"no ledger" * 1000
    own_ledger.write_bytes(damaged)
    running.site.release("2")
    assert str(running.site.deploy()) == "deployed"
    assert uw.deployed_hash("web") == uw.release_hash("web")
    [aside] = own_ledger.parent.glob("ledger.sqlite3.damaged-*Z")
    assert aside.read_bytes() == damaged
    assert f"The ledger {own_ledger} is damaged" in caplog.text
    assert f"was set aside as {aside}" in caplog.text


def test_ledger_that_is_something_else_is_told_and_left_alone_and_the_deployment_goes_on(
    running: Running, own_ledger: Path
) -> None:
    uw.effects.set_ledger(None)
    for file in own_ledger.parent.glob("ledger.sqlite3*"):
        file.unlink()
    own_ledger.mkdir()
    uw.effects.set_ledger(own_ledger)
    running.site.release("2")
    result = running.site.deploy()
    assert str(result) == "deployed"
    [record] = [event for event in result.events if event.step == "record"]
    assert f"ledger_failed('{own_ledger}'" in str(record.outcome)
    with pytest.raises(Exception, match=re.escape(f"the ledger {own_ledger} cannot be used: ")):
        uw.deployed_hash("web")
    with pytest.raises(Exception, match="name another with UNIFYWEAVER_LEDGER"):
        uw.deployed_hash("web")
    assert own_ledger.is_dir()


# ---- hostile text, against a real shell ------------------------------------------------------------------------------

PIECES = st.sampled_from([
    "'", '"', "`id`", "$(id)", "${HOME}", "$HOME", "$0", "\\", "\n", "\r", "\t", " ", ";", "&", "|", "<", ">", "*",
    "?", "~", "!", "#", "=", "%", "%s", "^", "-", "+", ",", "@", ":", "[a]", "{a,b}", "(", ")",
    "é", "ß", "🙂", "\udcff", "a",
])  # fmt: skip
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
AWKWARD = st.lists(st.one_of(PIECES, PIECES, PIECES, LETTERS), max_size=10).map("".join)
OPTIONS = st.sampled_from(
    ["-n", "--", "-", "-rf", "--help", "-e", "-c", "-s", "+x", "--version", "=", "a=b"]
)
WORDS = st.one_of(AWKWARD, OPTIONS, st.tuples(OPTIONS, AWKWARD).map("".join))
hostile = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))

SHOW = (
    "import os, sys; said = [*sys.argv[1:], os.environ[sys.argv[1]]]; "
    "os.write(1, b'\\0'.join(map(os.fsencode, said)))"
)


def shell(text: str, *shell_words: str, cwd: Path | None = None) -> bytes:
    done = subprocess.run(
        shell_words or ("sh", "-s"),
        input=text.encode("utf-8", "surrogateescape"),
        capture_output=True,
        timeout=60,
        check=True,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    return done.stdout


def written(goal: str, **bindings: object) -> str:
    """The text that a grammar rule of the library makes."""
    found = uw.once(
        f"phrase(deployment_scripts:{goal}, Codes), string_codes(Text, Codes)", **bindings
    )
    assert found is not None
    return str(found["Text"])


@hostile
@given(st.lists(WORDS, max_size=6))
def test_every_word_reaches_a_shell_byte_for_byte(words: list[str]) -> None:
    printed = shell(written("shell_words(Words)", Words=["printf", "%s\\0", "begin", *words]))
    assert printed == b"".join(os.fsencode(word) + b"\0" for word in ["begin", *words])


@hostile
@given(WORDS)
def test_every_word_between_double_quotes_reaches_bash_byte_for_byte(word: str) -> None:
    text = written("double_quoted(Word)", Word=word)
    assert shell(f'word={text}\nprintf %s "$word"\n', "bash", "-s") == os.fsencode(word)


def started(**options: object) -> str:
    """What a release of `web` is started with."""
    uw.declare_service("web", host="localhost", **options)
    goal = (
        "deployment_releases:release(web, localhost, [], s, release(_, _, Files)), "
        "memberchk(file('.unifyweaver/start', _, Text), Files)"
    )
    found = uw.once(goal)
    assert found is not None
    return str(found["Text"])


@hostile
@given(value=WORDS, words=st.lists(WORDS, max_size=4))
def test_environment_and_start_command_reach_the_process_byte_for_byte(
    value: str, words: list[str]
) -> None:
    command = shlex.join([sys.executable, "-c", SHOW, "VALUE", *words])
    printed = shell(started(env={"VALUE": value}, start_command=f"exec {command}"))
    assert printed.split(b"\0") == [b"VALUE", *map(os.fsencode, [*words, value])]


@hostile
@given(WORDS)
def test_entry_point_is_one_word_of_the_process_whatever_it_is_called(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    assume(
        name not in ("", ".") and "/" not in name and name != ".." and len(os.fsencode(name)) < 256
    )
    folder = tmp_path_factory.mktemp("entry")
    (folder / name).write_text("import sys; print(*sys.argv[1:])")
    assert shell(started(entry_point=name, port=99), cwd=folder) == b"--port 99\n"


@hostile
@given(words=st.lists(WORDS, min_size=1, max_size=4), folder=WORDS)
def test_hook_command_in_a_folder_of_any_name_is_run_whole(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], folder: str
) -> None:
    """A folder with control characters is refused when it is declared."""
    remote = f"{tmp_path_factory.mktemp('hook')}/{folder}"
    try:
        uw.declare_deploy_method("web", "local", remote_dir=remote)
    except uw.DomainError:
        assume(False)
    said = Path(remote.rstrip("/")) / "web" / "said"
    command = f"printf '%s\\0' {shlex.join(words)} >said"
    assert b" end hook ok\n" in shell(script_for(remote, command))
    assert said.read_bytes() == b"".join(os.fsencode(word) + b"\0" for word in words)


def script_for(remote: str, command: str) -> str:
    goal = (
        "deployment_scripts:script_text(context(web, localhost, none, Dir, 8080, token), "
        "[do(hook, must, hook(pre_deploy, custom(x), command(Command, 10)))], Text)"
    )
    found = uw.once(goal, Dir=remote, Command=command)
    assert found is not None
    return str(found["Text"])


@pytest.mark.parametrize("command", ["-s", "-e", "+x true", "--version", "-"])
def test_command_that_looks_like_an_option_is_a_command(tmp_path: Path, command: str) -> None:
    program = tmp_path / command.split(maxsplit=1)[0]
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    path = f"PATH={shlex.quote(str(tmp_path))}:$PATH\n"
    assert shell(path + started(start_command=command)) == b"ran\n"
    assert b"line hook ran\n" in shell(path + script_for(str(tmp_path), command))


@hostile
@given(st.lists(WORDS, min_size=1, max_size=4))
def test_shared_paths_of_any_name_are_linked_and_nothing_else_is_touched(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str]
) -> None:
    try:
        uw.declare_service("web", shared_paths=paths)
    except uw.PrologError:
        assume(False)
    wanted = uw.service_config("web")["shared_paths"]
    assume(all(len(os.fsencode(path)) < 200 for path in wanted))
    base = tmp_path_factory.mktemp("shared")
    release = base / "web" / "releases" / "r1"
    (release / ".unifyweaver").mkdir(parents=True)
    goal = (
        "deployment_scripts:script_text(context(web, localhost, none, Dir, 8080, token), "
        "[do(share, must, share(r1, Paths))], Text)"
    )
    found = uw.once(goal, Dir=str(base), Paths=wanted)
    assert found is not None
    assert b" end share ok\n" in shell(str(found["Text"]))
    shared = base / "web" / "shared"
    for path in wanted:
        assert os.readlink(release / path) == str(shared / path)
        assert (shared / path).is_dir()
    tops = {path.split("/")[0] for path in wanted}
    assert set(os.listdir(shared)) == tops
    assert set(os.listdir(release)) == {".unifyweaver", *tops}


class _Listening(socketserver.ThreadingTCPServer):
    """Answers every request, and remembers the lines of the last one."""

    daemon_threads = True
    received: tuple[bytes, ...] = ()


class _Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Listening)
        self.server.received = tuple(iter(lambda: self.rfile.readline().removesuffix(b"\r\n"), b""))
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")


@pytest.fixture
def listening() -> Iterator[_Listening]:
    with _Listening(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@hostile
@given(
    name=st.from_regex(r"[A-Za-z!#$%&'*+.^_`|~][A-Za-z0-9!#$%&'*+.^_`|~-]{0,8}", fullmatch=True),
    value=WORDS,
)
def test_header_value_reaches_the_service_byte_for_byte_or_is_refused(
    listening: _Listening, name: str, value: str
) -> None:
    uw.declare_service("web", host="127.0.0.1", port=listening.server_address[1])
    listening.received = ()
    asked = {"retries": 1, "header": {f"X{name}": value}}
    if any(not 32 <= ord(letter) <= 255 or ord(letter) == 127 for letter in value):
        with pytest.raises(uw.DomainError, match="header"):
            uw.run_health_check("web", **asked)
        assert listening.received == ()
        return
    result = uw.run_health_check("web", **asked)
    assert str(result) == "healthy"
    sent = [line for line in listening.received if line.startswith(b"x")]
    assert sent == [f"x{name.lower()}: ".encode() + value.encode("latin-1").strip(b" ")]


@pytest.mark.parametrize(
    "folder",
    ["it's \"quoted\"", "$(touch owned) `touch owned`", "-rf --help", "a;b & c | d > e", "*?[x] \\ #~", "grün 🙂"],
)  # fmt: skip
def test_deployment_from_and_to_a_folder_of_any_name(
    tmp_path: Path, free_port: int, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path / "from" / folder)
    names = [
        b"-rf",
        b"new\nline",
        b"'\"$(touch owned)`id`",
        b"not utf-8 \xff",
        b" lead",
        b"back\\slash",
    ]
    for name in names:
        Path(os.fsdecode(os.fsencode(site.folder) + b"/" + name)).write_bytes(name)
    remote = tmp_path / "to" / folder
    site.declare(
        {"localhost": {}}, "local", remote_dir=str(remote), port=free_port, healthy_deadline=5
    )
    uw.declare_lifecycle_hook("web", "post_deploy", uw.custom('echo "$PWD" > hooked'))
    try:
        assert str(site.deploy()) == "deployed"
        first = os.readlink(remote / "web" / "current")
        release = remote / "web" / first
        for name in names:
            assert Path(os.fsdecode(os.fsencode(release) + b"/" + name)).read_bytes() == name
        assert (release / "hooked").read_text() == f"{release}\n"
        site.release("2")
        assert str(site.deploy()) == "deployed"
        assert uw.rollback_service("web").ok
        assert os.readlink(remote / "web" / "current") == first
    finally:
        uw.force_stop_service("web", 0)
    assert list(tmp_path.rglob("owned")) == []


PATHS = WORDS.map("/{}".format).filter(lambda path: "/.." not in path and path.isprintable())


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client on this machine")
@hostile
@given(remote=PATHS, key=PATHS, known=PATHS, endpoint=PATHS.filter(lambda path: " " not in path))
def test_paths_in_a_script_reach_bash_and_ssh_byte_for_byte(
    remote: str, key: str, known: str, endpoint: str
) -> None:
    uw.declare_service("web", transport="ssh", health_endpoint=endpoint)
    uw.declare_deploy_method(
        "web", "ssh", remote_dir=remote, key_file=key, known_hosts=known, host="h.example"
    )
    uw.declare_service_hosts("web", {})
    if "${" in key + known:
        with pytest.raises(uw.DomainError, match="in place of which ssh puts a variable"):
            uw.generate_deploy_script("web")
        return
    head = uw.generate_deploy_script("web").partition("\nKEEP_RELEASES=")[0]
    shown = 'printf "%s\\0" "$REMOTE_DIR" "$ENDPOINT"; ssh -G "${SSH_OPTIONS[@]}" -l "$USER" -- "$HOST"\n'
    printed = shell(f"{head}\n{shown}", "bash", "-s")
    *variables, options = printed.split(b"\0")
    assert variables == [os.fsencode(remote), os.fsencode(endpoint)]
    told = dict(line.partition(b" ")[::2] for line in options.splitlines())
    assert told[b"hostname"] == b"h.example"
    assert unquoted(told[b"identityfile"]) == os.fsencode(key).replace(b"%", b"%%")
    assert unquoted(told[b"userknownhostsfile"]) == os.fsencode(
        known
    )  # in which ssh has put % for %%
    assert b"proxycommand" not in told


def unquoted(value: bytes) -> bytes:
    return value.strip(b'"') if value.startswith(b'"') else value


COMMAND = """
import ctypes.util, os, sys
if sys.argv[1] == "none":
    os.environ["PATH"] = "/nowhere"
    ctypes.util.find_library = lambda name: None
    exists = os.path.exists
    os.path.exists = lambda path: "swipl" not in str(path) and exists(path)
else:
    from unifyweaver_py import _engine
    _engine._OLDEST = 990000
from unifyweaver_py import cli
sys.argv[1:] = ["deploy", sys.argv[2]]
cli.main()
"""


@pytest.mark.parametrize(
    ("found", "told"),
    [("none", "SWI-Prolog not found"), ("old", r"SWI-Prolog \d+\.\d+\.\d+ is too old")],
)
def test_command_without_a_prolog_that_will_do_says_what_to_install(
    tmp_path: Path, found: str, told: str
) -> None:
    file = tmp_path / "services.pl"
    file.write_text(":- declare_service(web, []).\n")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, found, str(file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    line = rf"unifyweaver: {told}\. SWI-Prolog 9\.0 or newer is needed: .*install swi-?prolog.*\n"
    assert re.fullmatch(line, done.stderr), done.stderr


def test_command_tells_a_name_of_any_bytes_without_sending_them_to_the_terminal(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "site")
    os.symlink("/etc/passwd", os.fsencode(site.folder) + b"/odd \xff\x1b[31m\nname")
    file = tmp_path / "services.pl"
    file.write_text(
        f":- declare_service(odd, [source_dir(site)]).\n"
        f":- declare_deploy_method(odd, local, [remote_dir('{tmp_path}/remote')]).\n"
        ":- declare_service_sources(odd, ['**']).\n"
    )
    environment = {**os.environ, "UNIFYWEAVER_LEDGER": str(tmp_path / "own"), "COLUMNS": "200"}
    command = [Path(sys.executable).with_name("unifyweaver"), "deploy", file]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment)
    assert done.returncode == 1, done
    assert rb"the link 'odd \\xff\x1B" in done.stdout
    assert CORRECT.encode() in done.stdout
    for output in (done.stdout, done.stderr):
        assert b"\x1b" not in output
        assert b"\xff" not in output
        assert b"Traceback" not in output
    assert not (tmp_path / "remote").exists()
