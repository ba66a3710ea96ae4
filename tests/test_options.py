"""Every option does what the reference says of it: each row of the option table has a test that shows its effect."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.site import Site
from unifyweaver_py import Term
from unifyweaver_py.demo.fleet import Fleet
from unifyweaver_py.testing import RecordingEffects, answer, using

TESTS = Path(__file__).parent
HERE = "test_options.py"
LAB = "lab/test_deploy.py"
ROLLOUT = "prolog/rollout.plt"
LAB_RECOVERY = "lab/test_recovery.py"
BALANCING = "test_balancing.py"

# Option, by its group of the table -> where its effect is shown.
SHOWN = {
    "service.host": f"{HERE}::test_host_of_the_service_or_of_its_method_is_deployed_to",
    "service.port": f"{LAB}::test_change_of_the_port_is_a_change_and_is_rolled_back_with_the_files",
    "service.target": f"{HERE}::test_target_decides_how_the_entry_point_is_started",
    "service.entry_point": f"{HERE}::test_target_decides_how_the_entry_point_is_started",
    "service.source_dir": f"{HERE}::test_sources_are_those_of_source_dir",
    "service.lifecycle": f"{HERE}::test_what_is_only_stored_is_stored_and_changes_nothing",
    "service.transport": f"{HERE}::test_transport_decides_how_the_service_is_asked",
    "service.idle_timeout": f"{HERE}::test_what_is_only_stored_is_stored_and_changes_nothing",
    "service.max_lifetime": f"{HERE}::test_what_is_only_stored_is_stored_and_changes_nothing",
    "service.env": f"{LAB}::test_environment_and_start_command_reach_the_process_whole",
    "service.start_command": f"{LAB}::test_environment_and_start_command_reach_the_process_whole",
    "service.prepare_command": (
        f"{LAB}::test_preparation_runs_in_the_staged_release_and_its_failure_leaves_the_active_one"
    ),
    "service.save_state_command": f"{LAB}::test_hook_actions",
    "service.shared_paths": f"{LAB}::test_shared_paths_survive_releases",
    "service.health_endpoint": f"{HERE}::test_health_endpoint_is_what_a_deployment_asks",
    "service.drain_endpoint": f"{HERE}::test_drain_endpoint_is_posted_to",
    "service.drain_signal": f"{HERE}::test_drain_signal_reaches_the_process",
    "service.warmup_endpoint": f"{LAB}::test_hook_actions",
    "service.keep_releases": f"{LAB}::test_old_releases_are_pruned_but_not_the_active_or_the_rollback_point",
    "service.healthy_deadline": f"{HERE}::test_healthy_deadline_is_how_long_a_release_may_take",
    "service.address": f"{HERE}::test_address_is_where_the_service_is_asked",
    "service.balancer_server": f"{BALANCING}::test_server_is_that_of_the_name_else_of_the_address_of_the_host",
    "method.host": f"{HERE}::test_host_of_the_service_or_of_its_method_is_deployed_to",
    "method.user": f"{HERE}::test_user_is_who_logs_in",
    "method.agent": "effects/test_ssh.py::test_the_agent_is_used_unless_it_is_refused",
    "method.key_file": f"{HERE}::test_key_file_is_the_key_that_is_tried",
    "method.remote_dir": f"{HERE}::test_remote_dir_holds_the_services_folder",
    "method.ssh_port": f"{HERE}::test_ssh_port_is_where_the_host_is_reached",
    "method.known_hosts": f"{HERE}::test_host_key_that_known_hosts_does_not_tell",
    "method.host_key": f"{HERE}::test_host_key_that_known_hosts_does_not_tell",
    "method.sudo": "test_supervisor.py::test_sudo_never_asks",
    "method.supervisor": "lab/test_systemd.py::test_from_one_supervisor_to_the_other_and_back",
    "method.connect_timeout": f"{HERE}::test_connect_timeout_limits_the_wait_for_a_host_that_says_nothing",
    "method.command_timeout": f"{LAB}::test_command_over_its_time_is_ended_and_told",
    "method.link_unchanged": "lab/test_shipping.py::test_linked_files_share_their_inodes_and_copied_ones_do_not",
    "place.zone": f"{ROLLOUT}::zones_are_kept_apart",
    "place.rack": f"{ROLLOUT}::racks_are_kept_apart",
    "rollout.batches": f"{ROLLOUT}::a_canary_then_quarters",
    "rollout.max_unavailable": f"{ROLLOUT}::within_a_batch_no_further_host_is_begun",
    "rollout.min_healthy_time": f"{ROLLOUT}::healthy_for_a_time_in_a_row",
    "rollout.healthy_deadline": f"{ROLLOUT}::never_healthy_for_long_enough",
    "rollout.max_failures": f"{ROLLOUT}::a_failure_that_is_allowed",
    "rollout.pause_between": f"{ROLLOUT}::the_pause_is_between_batches",
    "rollout.order": f"{ROLLOUT}::order_of_a_rule",
    "rollout.spread": f"{ROLLOUT}::zones_are_kept_apart",
    "rollout.on_failure": f"{ROLLOUT}::continue_does_the_rest",
    "call.backend": f"{LAB}::test_dry_run_and_plan_change_nothing",
    "call.host": f"{LAB}::test_all_hosts_agreeing_give_one_term",
    "call.max_parallel": f"{HERE}::test_max_parallel_hosts_are_worked_on_at_a_time",
    "call.lock_wait": "lab/test_locks.py::test_lease_of_another_machine_is_waited_for",
    "call.lease": "lab/test_locks.py::test_lease_of_another_machine_is_waited_for",
    "confirm.confirm_within": f"{LAB_RECOVERY}::test_host_goes_back_when_the_controller_is_killed",
    "force.force": f"{HERE}::test_force_deploys_what_is_unchanged",
    "to.to": f"{LAB}::test_rollback_by_hand_and_none_left",
    "graceful_stop.drain_timeout": f"{LAB}::test_graceful_stop_ends_a_connection_that_never_ends",
    "graceful_stop.force_after": f"{HERE}::test_force_after_is_when_kill_follows",
    "lock.reason": "test_public.py::test_lock_by_hand",
    "drain.timeout": f"{LAB}::test_drain_tells_the_service_and_ends_with_the_last_connection",
    "probe.endpoint": f"{HERE}::test_endpoint_is_asked_instead_of_the_declared_one",
    "probe.expect_status": f"{HERE}::test_expected_status",
    "probe.expect_body": f"{HERE}::test_expected_body",
    "probe.header": f"{HERE}::test_headers_are_sent",
    "probe.ca_file": f"{HERE}::test_ca_file_is_trusted_and_nothing_else",
    "probe.successes": f"{HERE}::test_successes_have_to_come_in_a_row",
    "attempts.retries": f"{HERE}::test_retries_are_probes_and_delay_is_between_them",
    "attempts.delay": f"{HERE}::test_retries_are_probes_and_delay_is_between_them",
    "attempts.timeout": f"{HERE}::test_timeout_limits_one_probe",
    "deadline.timeout": f"{HERE}::test_wait_ends_at_its_timeout_and_asks_at_its_interval",
    "deadline.interval": f"{HERE}::test_wait_ends_at_its_timeout_and_asks_at_its_interval",
    "load_balancer.socket": f"{BALANCING}::test_what_is_wrong_with_the_socket_is_told_before_anything_is_touched",
    "load_balancer.backend": f"{BALANCING}::test_what_is_wrong_with_the_socket_is_told_before_anything_is_touched",
    "history.limit": "test_history.py::test_history_is_asked_by_its_options",
    "history.since": "test_history.py::test_history_is_asked_by_its_options",
    "history.host": "test_history.py::test_history_is_asked_by_its_options",
    "history.operation": "test_history.py::test_history_is_asked_by_its_options",
    "history.unfinished": "test_history.py::test_history_is_asked_by_its_options",
    "health_script.timeout": f"{HERE}::test_health_script_has_its_retries_and_timeout",
    "health_script.retries": f"{HERE}::test_health_script_has_its_retries_and_timeout",
}


def table() -> set[str]:
    rows = uw.query("deployment_options:option_group(Group, Name, _, _, _)")
    return {f"{row['Group']}.{row['Name']}" for row in rows}


def test_every_option_has_a_test_and_every_test_an_option() -> None:
    assert table() == set(SHOWN)


@pytest.mark.parametrize("option", SHOWN)
def test_its_test_is_there_and_speaks_of_it(option: str) -> None:
    file, _, name = SHOWN[option].partition("::")
    text = (TESTS / file).read_text()
    shape = rf"^test\({name}\b" if file.endswith(".plt") else rf"^def {name}\("
    assert re.search(shape, text, re.MULTILINE), f"{SHOWN[option]} is not there"
    outside_the_list = text.partition("def table")[2] if file == HERE else text
    assert re.search(rf"\b{option.partition('.')[2]}\b", outside_the_list)


# ---- a service of this machine ------------------------------------------------------------------------


class Local:
    """The service `web`, deployed to a folder of this machine."""

    def __init__(self, folder: Path, port: int) -> None:
        self.site = Site(folder / "site")
        self.remote = folder / "remote"
        self.port = port

    def declare(self, **options: object) -> None:
        usual = {"remote_dir": str(self.remote), "port": self.port, "healthy_deadline": 5}
        self.site.declare({"localhost": {}}, "local", **{**usual, **options})

    def deploy(self, **options: object) -> str:
        return str(self.site.deploy(**options))


@pytest.fixture
def local(tmp_path: Path, free_port: int, own_ledger: Path) -> Iterator[Local]:
    yield Local(tmp_path, free_port)
    if uw.deploy_method_config("web"):
        uw.force_stop_service("web", 0)
    uw.undeclare_service("web")


def test_target_decides_how_the_entry_point_is_started(local: Local) -> None:
    shutil.move(local.site.folder / "server.py", local.site.folder / "run.py")
    local.declare(entry_point="run.py", target="python")
    assert local.deploy() == "deployed"
    start = local.remote / "web" / "current" / ".unifyweaver" / "start"
    assert f"'python3' 'run.py' '--port' '{local.port}'" in start.read_text()
    program = local.site.folder / "run.py"
    program.write_text(f"#!{sys.executable}\n{program.read_text()}")
    program.chmod(0o755)
    local.declare(entry_point="run.py", target="executable")
    assert local.deploy() == "deployed"
    assert f"'./run.py' '--port' '{local.port}'" in start.read_text()


def test_sources_are_those_of_source_dir(local: Local, tmp_path: Path) -> None:
    local.declare()
    first = uw.compute_source_hash("web")
    shutil.copytree(local.site.folder, tmp_path / "other")
    (tmp_path / "other" / "MORE").touch()
    local.declare(source_dir=str(tmp_path / "other"))
    assert uw.compute_source_hash("web") != first


def test_what_is_only_stored_is_stored_and_changes_nothing(local: Local) -> None:
    local.declare()
    before = uw.release_hash("web"), uw.deployment_plan("web")
    stored = {"lifecycle": "on_demand", "idle_timeout": 60, "max_lifetime": 3600.5}
    local.declare(**stored)
    declared = uw.service_config("web")
    assert declared is not None
    assert {name: declared[name] for name in stored} == stored
    assert (uw.release_hash("web"), uw.deployment_plan("web")) == before


def test_health_endpoint_is_what_a_deployment_asks(local: Local) -> None:
    local.site.release("1", "broken")
    local.declare()
    assert local.deploy().startswith("rolled_back_after_failure")
    local.declare(health_endpoint="/other")
    assert local.deploy(force=True) == "deployed"


def test_drain_endpoint_is_posted_to(local: Local) -> None:
    local.declare(drain_endpoint="/drain")
    local.deploy()
    result = uw.drain_connections("web")
    assert str(result) == "drained"
    [tell] = [event for event in result.events if event.step == "tell"]
    assert tell.notes == (Term("probe", (f"http://localhost:{local.port}/drain", 200)),)
    local.declare(drain_endpoint="/no-such-path")
    assert str(uw.drain_connections("web")) == "error(status(404))"


def test_drain_signal_reaches_the_process(local: Local, tmp_path: Path) -> None:
    told = tmp_path / "told"
    (local.site.folder / "trap.py").write_text(
        "import pathlib, signal, sys\n"
        f"signal.signal(signal.SIGUSR2, lambda *_: pathlib.Path({str(told)!r}).touch())\n"
        "sys.path.insert(0, '.')\n"
        "import server\n"
        "server.main()\n"
    )
    local.declare(drain_signal="USR2", entry_point="trap.py")
    assert local.deploy() == "deployed"
    assert not told.exists()
    assert str(uw.drain_connections("web")) == "drained"
    end = time.monotonic() + 5
    while not told.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert told.exists()


def test_healthy_deadline_is_how_long_a_release_may_take(local: Local) -> None:
    local.site.release("1", "slow")
    local.declare(healthy_deadline=0.2)
    assert local.deploy().startswith("rolled_back_after_failure")
    local.declare(healthy_deadline=20)
    assert local.deploy() == "deployed"


def test_address_is_where_the_service_is_asked(local: Local) -> None:
    command = 'exec python3 server.py --port "$PORT" --address 127.0.0.2'
    local.declare(start_command=command, healthy_deadline=1)
    assert local.deploy().startswith("rolled_back_after_failure")
    local.declare(start_command=command, address="127.0.0.2")
    assert local.deploy(force=True) == "deployed"


def test_remote_dir_holds_the_services_folder(local: Local, tmp_path: Path) -> None:
    local.declare(remote_dir=str(tmp_path / "elsewhere"))
    assert local.deploy() == "deployed"
    assert (tmp_path / "elsewhere" / "web" / "current" / "server.py").exists()
    assert not local.remote.exists()


def test_force_deploys_what_is_unchanged(local: Local) -> None:
    local.declare()
    local.deploy()
    assert local.deploy() == "unchanged"
    assert local.deploy(force=True) == "deployed"
    assert local.deploy(force=False) == "unchanged"


def test_force_after_is_when_kill_follows(local: Local) -> None:
    local.site.release("1", "stubborn")
    local.declare()
    local.deploy()
    began = time.monotonic()
    assert str(uw.graceful_stop("web", force_after=2)) == "force_stopped"
    assert 2 <= time.monotonic() - began < 20


# ---- a host with an SSH server ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(1) as running:
        yield running


@pytest.fixture
def remote(fleet: Fleet, tmp_path: Path, own_ledger: Path) -> Iterator[Callable[..., str]]:
    """Ask for the status of the service on the fleet's host, with changed options of the method."""
    host = fleet.hosts[0]

    def status(**changed: object) -> str:
        options = {**fleet.host_options(host), "remote_dir": "~/services", **changed}
        port = options.pop("port")
        uw.declare_service("web", host=host.name, transport="ssh", port=port)
        uw.declare_deploy_method(
            "web", "ssh", **{name: value for name, value in options.items() if value is not None}
        )
        return str(uw.service_status("web"))

    yield status
    uw.undeclare_service("web")


def test_key_file_is_the_key_that_is_tried(
    remote: Callable[..., str], fleet: Fleet, tmp_path: Path
) -> None:
    assert remote(key_file=str(fleet.key_file)) == "stopped"
    other = tmp_path / "other"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)]
    subprocess.run(command, check=True, timeout=60)
    assert remote(key_file=str(other)) == "unreachable(authentication_failed)"


def test_ssh_port_is_where_the_host_is_reached(remote: Callable[..., str], free_port: int) -> None:
    assert remote() == "stopped"
    assert remote(ssh_port=free_port) == "unreachable(connection_refused)"


def test_host_key_that_known_hosts_does_not_tell(
    remote: Callable[..., str], fleet: Fleet, tmp_path: Path
) -> None:
    empty = tmp_path / "known_hosts"
    empty.touch()
    assert remote(known_hosts=str(empty)) == "unreachable(host_key_mismatch)"
    assert remote(known_hosts=str(empty), host_key="strict") == "unreachable(host_key_mismatch)"
    assert remote(known_hosts=str(empty), host_key="accept_new") == "stopped"
    assert empty.read_text().split()[-1] == fleet.hosts[0].known_hosts_line.split()[-1]
    assert remote(known_hosts=str(empty), host_key="strict") == "stopped"


def test_connect_timeout_limits_the_wait_for_a_host_that_says_nothing(
    remote: Callable[..., str], fleet: Fleet
) -> None:
    with socket.create_server((fleet.hosts[0].name, 0)) as silent:
        began = time.monotonic()
        result = remote(ssh_port=silent.getsockname()[1], connect_timeout=1)
    assert result in (
        "unreachable(timeout)",
        "unreachable(unreachable('no answer as an SSH server'))",
    )
    assert 0.9 < time.monotonic() - began < 8


# ---- what is asked for, recorded -----------------------------------------------------------------------


@pytest.fixture
def targets(own_ledger: Path) -> Iterator[Callable[[], list[Term]]]:
    """Where the status of `web` is asked, as target(Method, Host, Options) terms."""

    def asked() -> list[Term]:
        with using(RecordingEffects(shell=lambda *_: Term("failed", ("timeout",)))) as fake:
            uw.service_status("web")
        return [call.arguments[0] for call in fake.calls_of("shell")]

    yield asked
    uw.undeclare_service("web")


def test_host_of_the_service_or_of_its_method_is_deployed_to(
    targets: Callable[[], list[Term]],
) -> None:
    uw.declare_service("web", host="of.the.service", transport="ssh")
    uw.declare_deploy_method("web", "ssh")
    assert [target.args[1] for target in targets()] == ["of.the.service"]
    uw.declare_deploy_method("web", "ssh", host="of.the.method")
    assert [target.args[1] for target in targets()] == ["of.the.method"]


def test_user_is_who_logs_in(targets: Callable[[], list[Term]]) -> None:
    uw.declare_service("web", host="a.example", transport="ssh")
    uw.declare_deploy_method("web", "ssh", user="somebody")
    [target] = targets()
    assert Term("user", ("somebody",)) in target.args[2]


@pytest.mark.parametrize(
    ("transport", "url", "via"),
    [
        ("http", "http://a.example:8080/health", "direct"),
        ("https", "https://a.example:8080/health", "direct"),
        ("ssh", "http://127.0.0.1:8080/health", "ssh"),
    ],
)
def test_transport_decides_how_the_service_is_asked(
    own_ledger: Path, transport: str, url: str, via: str
) -> None:
    uw.declare_service("web", host="a.example", transport=transport)
    uw.declare_deploy_method("web", "ssh")
    try:
        with using(RecordingEffects(probe=[answer(200)])) as fake:
            assert uw.run_health_check("web").ok
    finally:
        uw.undeclare_service("web")
    [call] = fake.calls_of("probe")
    request = call.arguments[1]
    assert request.args[1] == url
    assert Term("via", (via,)) in request.args[2]


def test_max_parallel_hosts_are_worked_on_at_a_time(own_ledger: Path) -> None:
    now, most, lock = [0], [0], threading.Lock()

    def shell(*_: object) -> Term:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.1)
        with lock:
            now[0] -= 1
        return Term("failed", ("timeout",))

    uw.declare_service("web", transport="ssh")
    uw.declare_deploy_method("web", "ssh")
    uw.declare_service_hosts("web", [f"h{number}.example" for number in range(9)])
    try:
        with using(RecordingEffects(shell=shell)):
            uw.graceful_stop("web", max_parallel=3)
            assert most == [3]
            uw.graceful_stop("web")
            assert most == [9]
    finally:
        uw.undeclare_service("web")


# ---- health checks, against a server of our own ---------------------------------------------------------


class Checked(ThreadingHTTPServer):
    """Answers with `statuses` in turn, the last one for good; remembers when it was asked what."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.statuses = [200]
        self.pause = 0.0
        self.asked: list[tuple[float, str, Message]] = []

    def handle_error(self, *_: object) -> None:
        """A probe may go away before it is answered."""


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Checked)
        status = server.statuses[min(len(server.asked), len(server.statuses) - 1)]
        server.asked.append((time.monotonic(), self.path, self.headers))
        time.sleep(server.pause)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"all is well")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(server: Checked, **options: object) -> Iterator[Checked]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    uw.declare_service("web", **{"host": "127.0.0.1", "port": server.server_port, **options})
    try:
        yield server
    finally:
        uw.undeclare_service("web")
        server.shutdown()
        server.server_close()


@pytest.fixture
def checked(own_ledger: Path) -> Iterator[Checked]:
    with serving(Checked()) as server:
        yield server


def check(**options: object) -> str:
    return str(uw.run_health_check("web", **{"retries": 1, **options}))


def test_endpoint_is_asked_instead_of_the_declared_one(checked: Checked) -> None:
    assert check(endpoint="/ready?full=1") == "healthy"
    assert [path for _, path, _ in checked.asked] == ["/ready?full=1"]


def test_expected_status(checked: Checked) -> None:
    checked.statuses = [204]
    assert check() == "unhealthy"
    assert check(expect_status=204) == "healthy"


def test_expected_body(checked: Checked) -> None:
    assert check(expect_body="is well") == "healthy"
    assert check(expect_body="is lost") == "unhealthy"


def test_headers_are_sent(checked: Checked) -> None:
    headers = {"Authorization": "Bearer x", "X-Odd": "é'\" $(id)".encode().decode("latin-1")}
    assert check(header=headers) == "healthy"
    [(_, _, received)] = checked.asked
    assert received["Authorization"] == "Bearer x"
    assert received["X-Odd"].encode("latin-1").decode() == "é'\" $(id)"


def test_successes_have_to_come_in_a_row(checked: Checked) -> None:
    checked.statuses = [200, 500, 200, 200]
    assert check(successes=2, retries=3, delay=0) == "unhealthy"
    checked.asked.clear()
    assert check(successes=2, retries=4, delay=0) == "healthy"


def test_retries_are_probes_and_delay_is_between_them(checked: Checked) -> None:
    checked.statuses = [500]
    assert check(retries=3, delay=0.4) == "unhealthy"
    times = [when for when, _, _ in checked.asked]
    assert len(times) == 3
    assert all(later - sooner >= 0.4 for sooner, later in pairwise(times))


def test_timeout_limits_one_probe(checked: Checked) -> None:
    checked.pause = 3
    began = time.monotonic()
    assert check(timeout=0.3) == "unhealthy"
    assert time.monotonic() - began < 2.5
    assert check(timeout=20) == "healthy"


def test_wait_ends_at_its_timeout_and_asks_at_its_interval(checked: Checked) -> None:
    checked.statuses = [500]
    began = time.monotonic()
    assert str(uw.wait_for_healthy("web", timeout=1.5, interval=0.4)) == "unhealthy"
    assert time.monotonic() - began < 5
    times = [when for when, _, _ in checked.asked]
    assert 2 <= len(times) <= 4
    assert all(later - sooner >= 0.4 for sooner, later in pairwise(times))
    checked.statuses = [500] * (len(times) + 1) + [200]
    assert str(uw.wait_for_healthy("web", timeout=20, interval=0.1)) == "healthy"


def test_ca_file_is_trusted_and_nothing_else(own_ledger: Path, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    words += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Checked()
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    with serving(server, host="localhost", transport="https"):
        assert check() == "unhealthy"
        assert check(ca_file=str(certificate)) == "healthy"
        assert [path for _, path, _ in server.asked] == ["/health"]


def test_health_script_has_its_retries_and_timeout(checked: Checked, tmp_path: Path) -> None:
    uw.declare_deploy_method("web", "local")
    script = tmp_path / "health"
    script.write_text(uw.generate_health_check_script("web", retries=2, timeout=1))
    checked.statuses = [500]
    done = subprocess.run(["bash", str(script)], capture_output=True, timeout=60, check=False)
    assert (done.returncode, len(checked.asked)) == (2, 2), done.stderr
    checked.statuses, checked.pause = [200], 4
    done = subprocess.run(["bash", str(script)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    checked.pause = 0
    done = subprocess.run(["bash", str(script)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
