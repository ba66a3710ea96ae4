"""Python's functions and Prolog's predicates say the same."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw
from unifyweaver_py import Term
from unifyweaver_py.testing import RecordingEffects, answer, using

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def service(own_ledger: Path) -> Iterator[None]:
    uw.declare_service("api", host="a.example", port=9000, transport="https", env={"A": "b"})
    yield
    for name in ("api", "web"):
        uw.undeclare_service(name)


def exported() -> set[str]:
    text = (ROOT / "prolog" / "deployment_glue.pl").read_text()
    return set(re.findall(r"^\s*\[?\s*([a-z_]+)/\d", text, flags=re.MULTILINE))


def test_every_public_predicate_has_a_function_of_its_name() -> None:
    assert exported() - set(uw.__all__) == set()


def test_every_public_name_is_there_and_documented() -> None:
    for name in uw.__all__:
        assert inspect.getdoc(getattr(uw, name)), name


def test_service_is_declared_and_read_back() -> None:
    assert uw.service_config("api") == {
        "host": "a.example",
        "port": 9000,
        "transport": "https",
        "env": {"A": "b"},
    }
    assert dict(uw.service_config())["api"]["port"] == 9000
    assert uw.service_config("nobody") is None


def test_hosts_are_asked_in_both_directions() -> None:
    hosts = {"api1.example.com": {"user": "deploy"}, "api2.example.com": {}}
    uw.declare_service_hosts("api", hosts)
    assert uw.service_hosts("api") == hosts
    assert dict(uw.service_hosts()) == {"api": hosts}
    assert [service for service, _, _ in uw.service_host(host="api2.example.com")] == ["api"]
    assert uw.service_host("api", "api1.example.com")["user"] == "deploy"


def test_hooks_sources_and_method_are_read_back() -> None:
    uw.declare_lifecycle_hook("api", "pre_deploy", uw.custom("make"))
    uw.declare_lifecycle_hook("api", "post_deploy", uw.run_once("health_check"))
    uw.declare_service_sources("api", ["**", uw.exclude("*.pyc")])
    uw.declare_deploy_method("api", "ssh", user="deploy", key_file=Path("/k"))
    assert uw.lifecycle_hooks("api") == [
        Term("hook", ("pre_deploy", Term("custom", ("make",)))),
        Term("hook", ("post_deploy", Term("run_once", ("health_check",)))),
    ]
    assert uw.service_sources("api") == ["**", Term("\\+", ("*.pyc",))]
    assert uw.deploy_method_config("api") == ("ssh", {"user": "deploy", "key_file": "/k"})


def test_sources_from_python_are_relative_to_the_working_folder_at_that_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server.py").write_text("pass")
    monkeypatch.chdir(tmp_path)
    uw.declare_service_sources("api", ["server.py"])
    first = uw.compute_source_hash("api")
    monkeypatch.chdir("/")
    assert uw.compute_source_hash("api") == first
    (tmp_path / "server.py").write_text("fail")
    assert uw.compute_source_hash("api") != first


def test_values_never_become_prolog_text() -> None:
    evil = "x'), halt, foo('"
    uw.declare_service("api", start_command=evil)
    assert uw.service_config("api") == {"start_command": evil}
    assert list(uw.query("X = Y", Y=evil)) == [{"X": evil}]


def test_wrong_use_names_the_culprit_and_the_nearest_name() -> None:
    with pytest.raises(uw.DomainError, match="health_endpoint"):
        uw.declare_service("api", health_endpont="/h")
    with pytest.raises(uw.ExistenceError, match="nobody"):
        uw.deploy_with_rollback("nobody")
    with pytest.raises(uw.ExistenceError, match="deploy_method"):
        uw.deploy_with_rollback("api")
    uw.declare_deploy_method("api", "ssh")
    with pytest.raises(uw.ExistenceError, match="service_sources"):
        uw.deploy_with_rollback("api")
    assert uw.service_config("api")["port"] == 9000


def test_insecure_service_is_refused_before_anything_is_done() -> None:
    uw.declare_service("api", host="a.example", transport="http")
    uw.declare_deploy_method("api", "ssh")
    with using(RecordingEffects()) as fake:
        result = uw.deploy_with_rollback("api")
    assert str(result) == (
        "error(security_validation_failed([remote_requires_encryption('a.example')]))"
    )
    assert not result.ok
    assert fake.calls_of("shell") == []


def test_health_check_says_what_each_probe_found() -> None:
    with using(RecordingEffects(probe=[answer(500), answer(200)])):
        result = uw.run_health_check("api", delay=0)
    assert str(result) == "healthy"
    [event] = [event for event in result.events if event.step == "health"]
    assert event.notes == (
        Term("probe", ("https://a.example:9000/health", 500)),
        Term("probe", ("https://a.example:9000/health", 200)),
    )


def test_health_check_sends_what_was_asked() -> None:
    options = {"header": {"Authorization": "x"}, "expect_body": "up", "retries": 1}
    with using(RecordingEffects(probe=[answer(200, "all up")])) as fake:
        assert uw.run_health_check("api", endpoint="/ping", **options).ok
    _, request = fake.calls_of("probe")[0].arguments
    assert request.args[1] == "https://a.example:9000/ping"
    assert Term("header", ("Authorization", "x")) in request.args[2]


def test_stored_hashes_answer_for_services_declared_later() -> None:
    uw.store_deployed_hash("web", "f00")
    uw.store_rollback_hash("web", "baa")
    uw.declare_service("web")
    assert (uw.deployed_hash("web"), uw.rollback_hash("web")) == ("f00", "baa")
    assert ("web", "f00") in list(uw.deployed_hash())


def test_model_backend_plays_a_deployment_without_a_host() -> None:
    uw.declare_deploy_method("api", "ssh")
    uw.declare_service_sources("api", ["*"])
    script = [Term("answers", ("a.example", [500])), Term("sources", ("s1",))]
    result = uw.deploy_with_rollback("api", backend=Term("model", (script,)))
    assert str(result) == "rolled_back_after_failure(error(no_rollback_available))"
    assert [event.step for event in result.events][:4] == ["observe", "scan", "lock", "stage"]


def test_exception_of_an_effect_keeps_its_traceback() -> None:
    def broken(*_: object) -> Term:
        raise ZeroDivisionError("in the effect")

    with (
        using(RecordingEffects(probe=broken)),
        pytest.raises(ZeroDivisionError, match="in the effect") as caught,
    ):
        uw.run_health_check("api")
    assert "broken" in [entry.name for entry in caught.traceback]


def test_nested_queries_and_iterators_do_not_disturb_each_other() -> None:
    outer = uw.query("member(X, [1, 2])")
    found = [(row["X"], list(uw.query("member(Y, [a, b])"))) for row in outer]
    assert found == [(1, [{"Y": "a"}, {"Y": "b"}]), (2, [{"Y": "a"}, {"Y": "b"}])]
    assert os.getcwd()


def test_text_is_no_list_of_letters() -> None:
    with pytest.raises(TypeError, match="write \\['abc'\\]"):
        uw.declare_service_hosts("api", "abc")
    with pytest.raises(TypeError, match="a list is needed"):
        uw.declare_service_sources("api", "ab")


def test_result_is_true_when_it_is_ok_and_every_operation_tells_its_steps(free_port: int) -> None:
    with using(RecordingEffects(probe=[answer(200)])):
        assert uw.run_health_check("api", retries=1)
    seen: list[uw.Event | uw.Begin] = []
    uw.declare_service("web", port=free_port)
    result = uw.run_health_check("web", retries=1, on_event=seen.append)
    assert not result
    assert [event.outcome for event in seen if isinstance(event, uw.Event)] == [
        Term("failed", (Term("unhealthy", ("connection_refused",)),)),
        "unhealthy",
    ]
