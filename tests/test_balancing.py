"""A service of this machine behind a real HAProxy: what it is told, and what is believed of it."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.haproxy import Balancer
from tests.site import Site
from unifyweaver_py import Term
from unifyweaver_py.effects import LiveEffects, Run, using

RUN = Term("run", ("none", "forward"))


@pytest.fixture
def site(tmp_path: Path, free_port: int, own_ledger: Path) -> Iterator[Site]:
    """The service `web`, declared and not deployed; its port is `site.port`."""
    site = Site(tmp_path / "site")
    site.port = free_port
    site.declare(
        {"localhost": {"address": "127.0.0.1"}}, "local", remote_dir=str(tmp_path / "remote"),
        port=free_port, healthy_deadline=10,
    )  # fmt: skip
    yield site
    if uw.deploy_method_config("web"):
        uw.force_stop_service("web", 0)
    uw.undeclare_service("web")


@pytest.fixture
def balancer(site: Site, tmp_path: Path) -> Iterator[Balancer]:
    with Balancer(tmp_path, {"s1": f"127.0.0.1:{site.port}"}) as running:
        declare(running.socket)
        yield running


@pytest.fixture
def deployed(site: Site, balancer: Balancer) -> Balancer:
    """HAProxy with the service behind it, which runs."""
    assert str(site.deploy()) == "deployed"
    assert balancer.status("s1") == "UP"
    return balancer


class Watched(LiveEffects):
    """The real effects; `told` holds what was asked of HAProxy."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def balance(self, run: Term, address: str, request: Term) -> Term | str:
        self.told.append(request.name)
        return super().balance(run, address, request)


def declare(place: object, backend: str = "web") -> None:
    uw.declare_load_balancer("web", socket=str(place), backend=backend)


def reason(result: uw.Result) -> Term:
    """The reason of `error(deployment_failed(balancer(Reason)))`."""
    failure = result.term
    for name in ("error", "deployment_failed", "balancer"):
        assert isinstance(failure, Term)
        assert failure.name == name, str(result)
        failure = failure.args[0]
    assert isinstance(failure, Term)
    return failure


def seconds_of(result: uw.Result, step: str) -> float:
    [seconds] = [event.seconds for event in result.events if event.step == step]
    return seconds


def notes_of(result: uw.Result, step: str) -> list[object]:
    [notes] = [event.notes for event in result.events if event.step == step]
    return list(notes)


@contextmanager
def a_session(balancer: Balancer, seconds: float) -> Iterator[list[int]]:
    """A session of so many seconds; the list holds how many bytes of it had come at its end."""

    def ask() -> None:
        url = f"http://127.0.0.1:{balancer.port}/hold?{seconds}"
        with urllib.request.urlopen(url, timeout=seconds + 10) as answer:
            came.append(len(answer.read()))

    came: list[int] = []
    thread = threading.Thread(target=ask)
    thread.start()
    balancer.wait_for_sessions()
    yield came
    thread.join(seconds + 10)


# ---- before anything is touched ------------------------------------------------------------------------


def test_what_is_wrong_with_the_socket_is_told_before_anything_is_touched(
    site: Site, tmp_path: Path
) -> None:
    with Balancer(tmp_path, {"s1": f"127.0.0.1:{site.port}"}) as balancer:
        for place, backend, why in (
            (tmp_path / "none.sock", "web", "unavailable('No such file or directory')"),
            (f"127.0.0.1:{site.port}", "web", "unavailable('Connection refused')"),
            (
                f"127.0.0.1:{balancer.port}",
                "web",
                "unavailable('what answers there is not HAProxy')",
            ),
            (balancer.user_socket, "web", "refused('the socket has the level user')"),
            (balancer.socket, "wep", "no_backend(wep)"),
        ):
            declare(place, backend)
            result = site.deploy()
            assert str(reason(result)) == why
            assert [event.step for event in result.events] == ["observe", "balancer", "result"]
            assert not (tmp_path / "remote").exists()
        for place in (
            balancer.socket,
            f"unix@{balancer.socket}",
            f"127.0.0.1:{balancer.runtime_port}",
        ):
            declare(place)
            assert str(site.deploy(force=True)) == "deployed"


def test_server_is_that_of_the_name_else_of_the_address_of_the_host(
    site: Site, tmp_path: Path
) -> None:
    there, elsewhere = f"127.0.0.1:{site.port}", "127.0.0.1:1"

    def found(servers: dict[str, str], **options: str) -> list[object]:
        uw.declare_service_hosts("web", {"localhost": {"address": "127.0.0.1", **options}})
        with Balancer(tmp_path, servers) as balancer:
            declare(balancer.socket)
            result = site.deploy(backend="dry")
            return notes_of(result, "balancer") or [reason(result)]

    assert found({"a": elsewhere, "b": there}) == [Term("balanced", ("b", "ready"))]
    assert found({"localhost": elsewhere, "b": there}) == [Term("balanced", ("localhost", "ready"))]
    assert found({"a": elsewhere, "b": there}, balancer_server="a") == [
        Term("balanced", ("a", "ready"))
    ]
    assert found({"a": there, "b": there}) == [Term("several_servers", ("localhost", ["a", "b"]))]
    assert found({"a": elsewhere}) == [Term("no_server", ("localhost",))]


def test_only_looking_changes_nothing(site: Site, deployed: Balancer) -> None:
    site.release("2")
    with using(Watched()) as watched:
        plan = [step.args[0] for step in uw.deployment_plan("web")]
        assert str(site.deploy(backend="dry")) == "deployed"
    assert {"balancer_drain", "balancer_await", "balancer_ready"} <= set(plan)
    assert watched.told == ["look", "look"]
    assert deployed.admin("s1") == "ready"


# ---- while a host is worked on -------------------------------------------------------------------------


def test_session_is_waited_for_to_its_end(site: Site, deployed: Balancer) -> None:
    site.release("2")
    with a_session(deployed, 1) as came:
        result = site.deploy()
        assert deployed.servers()["s1"]["scur"] == "0"
    assert str(result) == "deployed"
    assert 0.5 < seconds_of(result, "balancer_await") < 3
    assert came[0] >= 15  # a byte each 0.05 s, none of which was cut off


def test_connections_that_are_only_kept_open_are_no_sessions(
    site: Site, deployed: Balancer
) -> None:
    with socket.create_connection(("127.0.0.1", deployed.port), 5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        assert deployed.servers()["s1"]["idle_conn_cur"] != "0"
        site.release("2")
        result = site.deploy()
        assert seconds_of(result, "balancer_await") < 1
        assert seconds_of(result, "drain") < 1
        client.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        assert client.recv(1000).endswith(b"2")


def test_session_over_its_time_is_cut_and_told(deployed: Balancer) -> None:
    with a_session(deployed, 6):
        result = uw.graceful_stop("web", drain_timeout=1)
    assert str(result) == "force_stopped"
    assert notes_of(result, "balancer_await") == [Term("sessions_left", (1,))]
    assert deployed.status("s1") == "MAINT"


@pytest.mark.soak
def test_failed_release_leaves_the_former_one_its_requests(site: Site, deployed: Balancer) -> None:
    site.release("2", "broken")
    assert str(site.deploy()).startswith("rolled_back_after_failure(rolled_back(")
    assert deployed.status("s1") == "UP"
    with urllib.request.urlopen(f"http://127.0.0.1:{deployed.port}/", timeout=5) as said:
        assert said.read() == b"1"


# ---- who took it out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["drain", "maint"])
def test_server_that_somebody_took_out_stays_out(
    site: Site, deployed: Balancer, state: str
) -> None:
    deployed.say(f"set server web/s1 state {state}")
    site.release("2")
    assert str(site.deploy()) == "deployed"
    assert str(uw.stop_service("web")) == "stopped"
    assert str(uw.start_service("web")) == "started"
    assert deployed.admin("s1") == state


def test_stopped_service_is_out_until_it_is_started_or_deployed(
    site: Site, deployed: Balancer
) -> None:
    for again in (lambda: uw.start_service("web"), lambda: site.deploy(force=True)):
        assert str(uw.stop_service("web")) == "stopped"
        assert deployed.status("s1") == "MAINT"
        assert again().ok
        assert deployed.status("s1") == "UP"
    assert str(uw.stop_service("web")) == "stopped"
    site.release("2", "broken")
    assert not site.deploy().ok
    assert deployed.status("s1") == "MAINT"


def test_what_a_killed_operation_took_out_is_brought_back(site: Site, deployed: Balancer) -> None:
    effects = LiveEffects()
    folder = uw.once("deployment_declarations:resolve(web, localhost, [], remote_dir, Dir)")
    assert folder is not None
    uw.once(
        "deployment_effects:effect(ledger(put(web, localhost, Dir, taken_out, 'web/s1')), done)",
        Dir=folder["Dir"],
    )
    assert effects.balance(RUN, str(deployed.socket), Term("set", ("web", "s1", "drain"))) == "done"
    assert str(site.deploy()) == "deployed"
    assert deployed.status("s1") == "UP"


# ---- the runtime socket --------------------------------------------------------------------------------


def test_socket_that_says_nothing_is_left_after_its_time_or_when_the_run_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unifyweaver_py.effects import haproxy

    monkeypatch.setattr(haproxy, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        answer = haproxy.balance(place, Term("look", ("web",)), threading.Event())
        why = Term("unavailable", ("no answer within 0.3 s",))
        assert answer == Term("failed", (Term("balancer", (why,)),))
        assert time.monotonic() - began < 2
        stop = Run("none").cancel
        stop.set()
        assert haproxy.balance(place, Term("look", ("web",)), stop) == Term(
            "failed", ("cancelled",)
        )


# ---- declared ------------------------------------------------------------------------------------------


def test_declared_in_python_and_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "services.pl"
    file.write_text(
        ":- declare_load_balancer(filed, haproxy([socket('/run/h.sock'), backend(web)])).\n"
    )
    uw.load(file)
    uw.declare_load_balancer("called", socket=Path("/run/h.sock"), backend="web")
    expected = ("haproxy", {"socket": "/run/h.sock", "backend": "web"})
    assert dict(uw.load_balancer_config()) == {"filed": expected, "called": expected}
    assert uw.load_balancer_config("called") == expected
    for name in ("filed", "called"):
        uw.undeclare_service(name)
    assert uw.load_balancer_config("called") is None
    with pytest.raises(uw.ExistenceError, match="needs the option backend"):
        uw.declare_load_balancer("called", socket="/run/h.sock")
