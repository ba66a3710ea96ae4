"""Loading declaration files from Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw

NOTHING = ":- use_module(library(deployment_glue)).\n"

DECLARATIONS = """
:- use_module(library(deployment_glue)).

:- declare_service(loaded, [host('a.example'), port(8080), transport(ssh), env(['A'-b])]).
:- declare_service_sources(loaded, ['**', \\+ '*.key']).
:- declare_deploy_method(loaded, ssh, [user(deploy)]).
:- declare_service_hosts(loaded, [host_config('api1.example.com', [user('deploy')])]).
:- declare_lifecycle_hook(loaded, pre_deploy, custom('make')).

critical(loaded).
watched(Service, Host) :- critical(Service), service_host(Service, Host, _).
"""


@pytest.fixture(autouse=True)
def clean(tmp_path: Path) -> Iterator[None]:
    yield
    (tmp_path / "services.pl").write_text(NOTHING)
    uw.load(tmp_path / "services.pl")
    uw.undeclare_service("loaded")


def load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "services.pl"
    path.write_text(text)
    uw.load(path)


def test_file_declares_and_its_rules_answer_queries(tmp_path: Path) -> None:
    load(tmp_path, DECLARATIONS)
    assert uw.service_config("loaded")["env"] == {"A": "b"}
    assert list(uw.query("watched(S, H)")) == [{"S": "loaded", "H": "api1.example.com"}]
    assert uw.lifecycle_hooks("loaded") == [
        uw.Term("hook", ("pre_deploy", uw.Term("custom", ("make",))))
    ]


def test_loading_again_replaces_what_the_file_had_declared(tmp_path: Path) -> None:
    load(tmp_path, DECLARATIONS)
    load(tmp_path, ":- declare_service(loaded, [port(1)]).\ncritical(nobody).\n")
    assert uw.service_config("loaded") == {"port": 1}
    assert uw.service_hosts("loaded") is None
    assert uw.lifecycle_hooks("loaded") in (None, [])
    assert list(uw.query("critical(S)")) == [{"S": "nobody"}]


def test_later_declaration_wins_and_the_earlier_counts_again(tmp_path: Path) -> None:
    uw.declare_service("loaded", port=1)
    load(tmp_path, ":- declare_service(loaded, [port(2)]).\n")
    assert uw.service_config("loaded") == {"port": 2}
    load(tmp_path, NOTHING)
    assert uw.service_config("loaded") == {"port": 1}


def test_refused_file_leaves_no_trace_in_later_loads(tmp_path: Path) -> None:
    uw.declare_service("loaded", port=1)
    uw.declare_service_hosts("loaded", {"own.example": {}})
    declaring = ":- declare_service(loaded, [port(2)]).\n:- declare_service_hosts(loaded, []).\n"
    load(tmp_path, declaring)
    for _ in range(3):
        with pytest.raises(uw.PrologError):
            load(tmp_path, declaring + "foo :- bar(.\n")
        load(tmp_path, declaring)
        assert list(uw.query("service_config(loaded, X)")) == [{"X": [uw.Term("port", (2,))]}]
        assert list(uw.query("service_hosts(loaded, X)")) == [{"X": []}]
    load(tmp_path, NOTHING)
    assert list(uw.query("service_config(loaded, X)")) == [{"X": [uw.Term("port", (1,))]}]
    assert uw.service_hosts("loaded") == {"own.example": {}}


@pytest.mark.parametrize("bad", ["foo :- bar(.\n", ":- declare_service(loaded, [prot(1)]).\n"])
def test_predicates_of_a_refused_file_remain_unknown(tmp_path: Path, bad: str) -> None:
    for text in (
        "refused_fact(1).\n",
        "refused_fact(X) :- X = 1.\n",
        ":- dynamic refused_fact/1.\n",
    ):
        with pytest.raises(uw.PrologError):
            load(tmp_path, text + bad)
        with pytest.raises(uw.ExistenceError):
            uw.once("refused_fact(_)")


def test_services_come_in_order_of_declaration_also_when_one_counts_again(tmp_path: Path) -> None:
    def ports() -> list[object]:
        return [options["port"] for name, options in uw.service_config() if name in pair]

    pair = {"loaded", "later"}
    uw.declare_service("loaded", port=1)
    uw.declare_service("later", port=2)
    try:
        load(tmp_path, ":- declare_service(loaded, [port(3)]).\n")
        assert ports() == [2, 3]
        load(tmp_path, NOTHING)
        assert ports() == [1, 2]
    finally:
        uw.undeclare_service("later")


def test_hooks_keep_their_order_when_a_trusted_file_fails(tmp_path: Path) -> None:
    path = tmp_path / "services.pl"
    path.write_text(":- declare_lifecycle_hook(loaded, pre_deploy, custom(first)).\n")
    uw.load(path, trusted=True)
    uw.declare_lifecycle_hook("loaded", "pre_deploy", uw.custom("second"))
    before = uw.lifecycle_hooks("loaded")
    path.write_text(":- declare_lifecycle_hook(loaded, pre_deploy, nonsense).\n")
    with pytest.raises(uw.PrologError):
        uw.load(path, trusted=True)
    assert uw.lifecycle_hooks("loaded") == before
    path.write_text(NOTHING)
    uw.load(path, trusted=True)


def test_sources_are_relative_to_the_declaring_file(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "server.py").write_text("pass")
    load(
        tmp_path,
        ":- declare_service(loaded, []).\n:- declare_service_sources(loaded, ['app/*']).\n",
    )
    first = uw.compute_source_hash("loaded")
    (tmp_path / "app" / "server.py").write_text("fail")
    assert uw.compute_source_hash("loaded") != first


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (":- shell('touch {mark}').", "shell/1"),
        (":- initialization(shell('touch {mark}')).", "initialization"),
        ("evil :- shell('touch {mark}').", "shell/1"),
        ("evil(G) :- call(G).", "call/1"),
        ("evil :- open('{mark}', write, S), close(S).", "open/3"),
        ("system:evil(1).", ""),
        (":- declare_service(loaded, X), shell('touch {mark}').", ""),
        (":- declare_service(loaded, [prot(1)]).", "port"),
        (":- declare_service(loaded, [port(99999)]).", "99999"),
        (":- declare_lifecycle_hook(loaded, pre_deply, health_check).", "pre_deploy"),
        (":- declare_deploy_method(loaded, shs, []).", "ssh"),
        (":- declare_service(loaded, [port(8080)).", ""),
        ("service_config(a, b).", "service_config/2"),
        (":- if(shell('touch {mark}')).", ""),
        (":- op(700, xfx, ===>).", "op/3"),
        (":- include(other).", "include/1"),
        ("term_expansion(a, b).", "term_expansion/2"),
        ("critical().", "critical without"),
        (":- halt().", "halt without"),
        ("evil() :- true.", "evil without"),
        ("evil :- findall(_, shell(), _).", "shell without"),
        (":- declare_service(loaded, [port()]).", "not port()"),
        (":- declare_lifecycle_hook(loaded, pre_deploy, health_chek()).", "mean health_check"),
        ("x --> {{shell('touch {mark}')}}.", ""),
    ],
)
def test_bad_line_is_refused_whole_with_its_place(
    tmp_path: Path, line: str, complaint: str
) -> None:
    mark = tmp_path / "mark"
    uw.declare_service("loaded", port=7)
    text = f":- declare_service(loaded, [port(1)]).\n\n{line.format(mark=mark)}\n"
    with pytest.raises(uw.PrologError) as refused:
        load(tmp_path, text)
    assert f"{tmp_path / 'services.pl'}:3:" in str(refused.value)
    assert complaint in str(refused.value)
    assert uw.service_config("loaded") == {"port": 7}
    assert not mark.exists()
    assert uw.once("current_predicate(deployment_user:evil/_)") is None


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(uw.PrologError) as refused:
        load(tmp_path, ":- shell(a).\n\n:- declare_service(loaded, [prot(1)]).\nfoo :- bar(.\n")
    places = [
        line.rsplit(":", 2)[0].rsplit("services.pl:")[-1]
        for line in str(refused.value).splitlines()
    ]
    assert [place.split(":")[0] for place in places] == ["1", "3", "4"]


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"a(\x00).", b"x" * 100])
def test_file_that_is_no_text_or_no_term(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "services.pl"
    path.write_bytes(data)
    with pytest.raises(uw.PrologError, match=r"services\.pl:1:"):
        uw.load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(uw.ExistenceError, match=r"nowhere\.pl"):
        uw.load(tmp_path / "nowhere.pl")


def test_trusted_file_is_consulted(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "trusted.pl"
    path.write_text(
        f":- open('{mark}', write, S), close(S).\n:- declare_service(loaded, [port(3)]).\n"
    )
    uw.load(path, trusted=True)
    assert mark.exists()
    assert uw.service_config("loaded") == {"port": 3}
