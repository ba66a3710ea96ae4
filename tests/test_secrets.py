"""Secrets reach the service, and nothing else: what is declared, sent, logged and printed is searched for them."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unifyweaver_py as uw
from tests.site import Site
from unifyweaver_py import Term
from unifyweaver_py.demo._host import Host
from unifyweaver_py.demo.fleet import Fleet
from unifyweaver_py.effects.base import Run
from unifyweaver_py.effects.secret_sources import SecretError, printed, read_key
from unifyweaver_py.effects.vault import MOST_BYTES, Vault, own_vault

NAMES = ("LITERAL", "VARIABLE", "COMMAND")


def values(version: int) -> list[str]:
    return [
        f'lit\'eral $(id) "{version}"-9f3',
        f"vari\\able `x` {version}-77c\nand a second line-{version}d1",
        f"com mand é {version}-b2a",
    ]


class Place:
    """A fleet of one host, a service there with three secrets, and everything that was said meanwhile."""

    def __init__(self, fleet: Fleet, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.host: Host = fleet.hosts[0]
        self.fleet = fleet
        self.site = Site(folder / "site")
        self.output = folder / "printed"
        self.patch = patch

    def declare(self, version: int, **options: object) -> None:
        literal, variable, command = values(version)
        self.output.write_text(command + "\n")
        self.patch.setenv("SECRET_VARIABLE", variable)
        env = {
            "PLAIN": "seen",
            "LITERAL": uw.secret(literal),
            "VARIABLE": uw.secret(env="SECRET_VARIABLE"),
            "COMMAND": uw.secret(command=f"cat {self.output}"),
        }
        base = str(self.host.folder / "services")
        connection = self.fleet.host_options(self.host)
        given = {"env": env, "remote_dir": base, **connection, "healthy_deadline": 3, **options}
        self.site.declare({self.host.name: {}}, **given)

    def served(self) -> list[str]:
        url = f"http://127.0.0.1:{self.host.service_port}/env?"
        return [urllib.request.urlopen(url + name, timeout=5).read().decode() for name in NAMES]

    def files(self) -> Iterator[Path]:
        """Those of the host but for the secrets' own and what the service and its hook wrote themselves."""
        own = {"service.log", "output"}
        for path in self.host.folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.name not in own:
                if path.match(".unifyweaver/secrets"):
                    assert path.stat().st_mode & 0o777 == 0o600
                else:
                    yield path


class CommandLines(threading.Thread):
    """All command lines of this machine, sampled until `end`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.005):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                self.seen.add(_read(path))

    def end(self) -> bytes:
        self._over.set()
        self.join()
        return b"\n".join(self.seen)


def traces(text: bytes | str) -> list[str]:
    """The parts of secrets that are in a text."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    parts = [
        part for version in (1, 2) for value in values(version) for part in (value[-8:], value[:9])
    ]
    return [part for part in parts if part.encode() in data]


@pytest.fixture
def place(tmp_path: Path, own_ledger: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with Fleet(1) as fleet:
        yield Place(fleet, tmp_path, monkeypatch)
    uw.undeclare_service("web")


def test_a_failing_deployment_tells_nothing(
    place: Place,
    own_ledger: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("paramiko", "fabric", "unifyweaver_py", "asyncssh"):
        caplog.set_level(logging.DEBUG, logger=name)
    place.declare(1)
    assert place.site.deploy().term == "deployed"
    assert place.served() == values(1)

    place.declare(2, start_command="env >&2; exec python3 server.py --port $PORT")
    place.site.release("2", "broken")
    told = "cat .unifyweaver/secrets; echo told; false"
    uw.declare_lifecycle_hook("web", "on_health_failure", uw.custom(told))
    lines = CommandLines()
    lines.start()
    plan = uw.deployment_plan("web")
    result = place.site.deploy()
    sampled = lines.end()

    assert str(result).startswith("rolled_back_after_failure(rolled_back(")
    assert place.served() == values(1)
    shown = "\n".join(
        map(repr, (result, result.events, plan, uw.service_config("web"), uw.service_hosts("web")))
    )
    assert "PLAIN=seen" in shown, "the service printed its environment"
    assert "told" in shown, "the hook printed the secrets"
    assert "LITERAL=***" in shown
    assert traces(shown) == []
    assert traces(result._repr_html_()) == []
    assert b"server.py" in sampled
    assert traces(sampled) == []
    assert traces(caplog.text) == []
    assert traces("".join(capfd.readouterr())) == []
    kept = [
        own_ledger,
        *own_ledger.parent.glob("ledger*"),
        *Path(os.environ["UNIFYWEAVER_CACHE"]).rglob("*"),
    ]
    found = {
        str(path): traces(path.read_bytes()) for path in (*kept, *place.files()) if path.is_file()
    }
    assert {path: parts for path, parts in found.items() if parts} == {}
    assert any("manifest" in path for path in found)


def test_another_value_is_another_release_and_rolling_back_restores_it(place: Place) -> None:
    place.declare(1)
    assert place.site.deploy().term == "deployed"
    assert place.site.deploy().term == "unchanged"
    old = uw.release_hash("web")
    place.declare(2)
    assert uw.release_hash("web") != old
    assert isinstance(uw.check_for_changes("web"), Term)
    assert place.site.deploy().term == "deployed"
    assert place.served() == values(2)
    assert uw.rollback_service("web").term == Term("rolled_back", (old,))
    assert place.served() == values(1)


def test_a_secret_that_cannot_be_had_ends_the_deployment_before_it_begins(place: Place) -> None:
    place.declare(1)
    uw.declare_lifecycle_hook("web", "pre_deploy", uw.custom("touch ~/hooked"))
    place.patch.delenv("SECRET_VARIABLE")
    why = Term("secret_unavailable", ("VARIABLE", Term("not_set", ("SECRET_VARIABLE",))))
    assert place.site.deploy().term == Term("error", (Term("deployment_failed", (why,)),))
    assert not (place.host.folder / "hooked").exists()
    with pytest.raises(
        uw.DomainError, match="VARIABLE cannot be had: SECRET_VARIABLE is not set here"
    ):
        uw.release_hash("web")


def test_no_script_holds_a_secret(place: Place) -> None:
    place.declare(1)
    for generate in (
        uw.generate_rollback_script,
        uw.generate_health_check_script,
        uw.generate_systemd_unit,
    ):
        assert traces(generate("web")) == []
    for generate in (uw.generate_deploy_script, uw.generate_ssh_deploy):
        with pytest.raises(uw.DomainError) as refused:
            generate("web")
        assert "LITERAL" in str(refused.value)
        assert traces(str(refused.value)) == []
    place.declare(1, env=fetched(place))
    for generate in (uw.generate_deploy_script, uw.generate_ssh_deploy):
        assert traces(generate("web")) == []


def fetched(place: Place) -> dict[str, object]:
    return {
        "QUOTED": uw.secret(env="SECRET_VARIABLE"),
        "COMMAND": uw.secret(command=f"cat {place.output}"),
        "EMPTY": uw.secret(command=":"),
        "PLAIN": "x",
    }


@pytest.mark.parametrize("own", [{}, {"env": {"COMMAND": uw.secret(env="SECRET_VARIABLE")}}])
def test_a_script_names_releases_as_the_library_does(
    place: Place, tmp_path: Path, free_port: int, own: dict[str, Any]
) -> None:
    settings = {"port": free_port, "env": fetched(place)}
    services = str(tmp_path / "services")
    script = tmp_path / "deploy"
    try:
        for version in (1, 2, 1):
            place.declare(version)
            place.site.declare({"localhost": own}, method="local", **settings, remote_dir=services)
            script.write_text(uw.generate_deploy_script("web"))
            lines = CommandLines()
            lines.start()
            done = subprocess.run(
                ["bash", script, place.site.folder], capture_output=True, timeout=60, check=False
            )
            assert (done.returncode, traces(done.stdout + done.stderr + lines.end())) == (0, []), (
                done
            )
            assert place.site.deploy().term == "unchanged"
        by_script = release(tmp_path / "services")
        assert uw.stop_service("web").term == "stopped"
        place.site.declare(
            {"localhost": own}, method="local", **settings, remote_dir=str(tmp_path / "own")
        )
        assert place.site.deploy().term == "deployed"
        assert release(tmp_path / "own") == by_script
    finally:
        uw.stop_service("web")
    releases = tmp_path / "services" / "web" / "releases"
    assert len([path for path in releases.iterdir() if not path.name.startswith(".")]) == 2
    assert list(releases.glob(".partial*")) == []


def release(services: Path) -> tuple[str, list[tuple[bytes, int]]]:
    """The name of the active release, and what the library has put into it."""
    folder = services / "web" / "current" / ".unifyweaver"
    names = ("secrets", "start", "port", "manifest")
    found = [((folder / name).read_bytes(), (folder / name).stat().st_mode) for name in names]
    return folder.resolve().parent.name, found


# ---- declaring ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "[envv(['A'-secret(hunter22)])]",
        "[env(['A'-secret(hunter22), 'B C'-x])]",
        "[env(['A'-secret(f(hunter22))])]",
        "[env(secret(hunter22))]",
        '[prot(secret("hunter22"))]',
        "env(['A'-secret(hunter22)])",
        "[env(['A'-secret(hunter22)]), env(['A'-secret(hunter22)])]",
        "[env(['A'-secret(hunter22), 'A'-secret(env('B'))])]",
    ],
)
def test_no_error_shows_a_value(options: str, tmp_path: Path) -> None:
    with pytest.raises(uw.PrologError) as refused:
        uw.once(f"declare_service(web, {options})")
    assert "hunter22" not in repr(refused.value) + str(refused.value)
    file = tmp_path / "services.pl"
    file.write_text(f":- declare_service(web, {options}).\n")
    with pytest.raises(uw.PrologError) as refused:
        uw.load(file)
    assert "hunter22" not in repr(refused.value) + str(refused.value)


@pytest.mark.parametrize("library", ["lists", "prolog_stack"])
def test_plain_prolog_prints_no_value(library: str, tmp_path: Path) -> None:
    file = tmp_path / "program.pl"
    file.write_text(
        f":- use_module(library({library})).\n:- use_module(library(deployment_glue)).\n"
        ":- initialization(go, main).\n"
        "go :- declare_service(web, [env(['A'-secret(hunter22)]), prot(1)]).\n"
        ":- declare_service(web, [env(['A'-secret(hunter22)]), prot(1)]).\n"
    )
    words = ["swipl", "-q", "-f", "none", "-p", "library=prolog", str(file)]
    root = Path(__file__).parent.parent
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=root)
    assert done.stderr.count("prot") > 1
    assert "hunter22" not in done.stdout + done.stderr


def test_what_is_declared_is_shown_without_the_value() -> None:
    uw.once("declare_service(web, [env(['A'-secret(\"hunter22\"), 'B'-secret(env('C'))])])")
    try:
        shown = repr(uw.service_config("web")) + repr(uw.once("service_config(web, Options)"))
        assert "hunter22" not in shown
        assert "env" in shown
    finally:
        uw.undeclare_service("web")


@pytest.mark.parametrize("value", ["a\0b", "x" * (MOST_BYTES + 1)])
def test_a_value_that_no_environment_holds_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="64 kB"):
        uw.secret(value)


def test_a_variable_is_masked_from_its_declaration_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEEDED", "heeded-value")
    assert own_vault.masked(b"x heeded-value") == b"x heeded-value"
    uw.declare_service("web", env={"A": uw.secret(env="HEEDED")})
    uw.undeclare_service("web")
    assert own_vault.masked(b"x heeded-value") == b"x ***"


def test_a_secret_is_of_one_kind() -> None:
    with pytest.raises(TypeError):
        uw.secret()
    with pytest.raises(TypeError):
        uw.secret("x", env="Y")


# ---- the vault ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return Vault(tmp_path_factory.mktemp("vault") / "key")


def digest(vault: Vault, value: str, name: str = "NAME") -> str:
    return vault.fetch(Run("none"), [(name, vault.seal(value))])[0]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)


@given(TEXTS)
@settings(max_examples=40, deadline=None)
def test_sh_reads_what_was_written(vault: Vault, value: str) -> None:
    text = vault.exports([("NAME", digest(vault, value))])
    show = b'eval "$(cat)"; printf %s "$NAME"'
    done = subprocess.run(
        ["sh", "-c", show], input=text, capture_output=True, timeout=10, check=True
    )
    assert done.stdout == value.encode()


def test_bytes_that_are_not_utf_8_arrive(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"ODD", b"\xff'\xfe")
    (sealed,) = vault.fetch(Run("none"), [("NAME", Term("env", ("ODD",)))])
    assert b"export NAME='\xff'\"'\"'\xfe'\n" in vault.exports([("NAME", sealed)])


def test_a_digest_is_of_name_value_and_key(vault: Vault, tmp_path: Path) -> None:
    other = Vault(tmp_path / "key")
    again = Vault(vault._key_path)
    assert digest(vault, "a") == digest(again, "a")
    assert (
        len({digest(vault, "a"), digest(vault, "b"), digest(vault, "a", "B"), digest(other, "a")})
        == 4
    )


def test_the_key_is_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    key = read_key(path)
    assert key == read_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["key"]
    path.chmod(0o644)
    with pytest.raises(SecretError, match="others may read it"):
        read_key(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(SecretError, match="64 hexadecimal digits"):
        read_key(path)


def test_a_run_asks_a_source_once(vault: Vault, tmp_path: Path) -> None:
    command = Term("command", (f"echo x >> {tmp_path}/asked; date +%N",))
    run = Run("none")
    assert vault.fetch(run, [("A", command)]) == vault.fetch(run, [("A", command)])
    assert (tmp_path / "asked").read_text() == "x\n"


def test_a_failing_command_tells_its_code_alone() -> None:
    with pytest.raises(SecretError) as failed:
        printed("echo hunter22; echo hunter22 >&2; exit 3", threading.Event())
    assert failed.value.reason == Term("command_failed", (3,))
    assert "hunter22" not in repr(failed.value)


@pytest.mark.parametrize("why", ["timeout", "cancelled"])
def test_a_command_that_hangs_is_ended(
    why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stop = threading.Event()
    if why == "timeout":
        monkeypatch.setattr("unifyweaver_py.effects.secret_sources.COMMAND_SECONDS", 0.3)
    else:
        threading.Timer(0.3, stop.set).start()
    with pytest.raises(SecretError) as failed:
        printed(f"sh -c 'sleep 20; touch {tmp_path}/late'; true", stop)
    assert failed.value.reason == why
    end = time.monotonic() + 2
    while _running(str(tmp_path)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _running(str(tmp_path))


def _running(word: str) -> bool:
    return any(word.encode() in _read(path) for path in Path("/proc").glob("[0-9]*/cmdline"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_what_hosts_say_is_masked_and_what_scripts_report_is_not(vault: Vault) -> None:
    for value in ("stage", "abc", "two\nlines"):
        digest(vault, value)
    assert vault.masked_report(b"12.5 end stage ok") == b"12.5 end stage ok"
    assert vault.masked_report(b"12.5 line stage at stage") == b"12.5 line stage at ***"
    assert vault.masked_report(b"12.5 log x lines of abc") == b"12.5 log x *** of abc"
    assert vault.masked_report(b"sh: stage") == b"sh: ***"
