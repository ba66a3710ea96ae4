"""What keeps a service's process: its log, units of a user, and sudo; on this machine, with stand-ins."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.site import Site

STAND_IN = Path(__file__).parent / "sites" / "systemctl"
UNIT = "unifyweaver-web.service"
LIMIT = 10 << 20


@pytest.fixture
def site(tmp_path: Path, own_ledger: Path) -> Iterator[Site]:
    yield Site(tmp_path / "site")
    uw.force_stop_service("web", 2)
    uw.undeclare_service("web")


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that come before all others; systemctl is there, and keeps its state in ``state``."""
    folder, state = tmp_path / "bin", tmp_path / "state"
    state.mkdir()
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SYSTEMD_STAND_IN", str(state))
    stand_in(folder, "systemctl", STAND_IN.read_text())
    return folder


def stand_in(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def declare(site: Site, port: int, **method: object) -> Path:
    """Declare the service on this machine; the answer is its directory."""
    site.declare({"localhost": {}}, "local", port=port, healthy_deadline=5)
    remote = site.folder.parent / "remote"
    uw.declare_deploy_method("web", "local", remote_dir=str(remote), **method)
    return remote / "web"


def test_large_log_is_rotated_while_the_service_writes_to_it(site: Site, free_port: int) -> None:
    log = declare(site, free_port) / "log"
    assert str(site.deploy()) == "deployed"
    for number in range(5):
        with (log / "service.log").open("a") as file:
            file.write("x" * LIMIT + f"\n{number}\n")
        site.release(str(number + 2))
        assert str(site.deploy()) == "deployed"
        assert (log / "service.log.1").read_text().splitlines()[-1] == str(number)
        assert (log / "service.log").read_text().splitlines()[0] == f"version {number + 2} starts"
    names = sorted(path.name for path in log.iterdir())
    assert names == ["service.log", "service.log.1", "service.log.2", "service.log.3"]
    assert (log / "service.log.3").read_text().splitlines()[-1] == "2"


def test_log_is_rotated_above_the_limit_only(site: Site, free_port: int) -> None:
    log = declare(site, free_port) / "log"
    assert str(site.deploy()) == "deployed"
    uw.declare_lifecycle_hook("web", "pre_shutdown", uw.custom("true"))
    os.truncate(log / "service.log", LIMIT)
    assert str(uw.execute_hooks("web", "pre_shutdown")) == "ok"
    assert [path.name for path in log.iterdir()] == ["service.log"]
    os.truncate(log / "service.log", LIMIT + 1)
    assert str(uw.service_status("web")) == "running"  # looking changes nothing
    assert [path.name for path in log.iterdir()] == ["service.log"]
    assert str(uw.execute_hooks("web", "pre_shutdown")) == "ok"
    assert (log / "service.log").stat().st_size == 0
    assert (log / "service.log.1").stat().st_size == LIMIT + 1


def test_who_is_not_root_has_a_unit_of_the_user(
    site: Site, free_port: int, tmp_path: Path, stand_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(stand_ins, "loginctl", '#!/bin/sh\necho "loginctl $*" >>"$SYSTEMD_STAND_IN/calls"\n')
    stand_in(stand_ins, "id", "#!/bin/sh\necho 1000\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    declare(site, free_port, supervisor="systemd")
    assert str(site.deploy()) == "deployed"
    assert (tmp_path / "config/systemd/user" / UNIT).exists()
    calls = (tmp_path / "state/calls").read_text().splitlines()
    assert [call for call in calls if " show " not in call] == [
        "--user is-system-running",
        "--user is-system-running",
        "--user daemon-reload",
        f"--user enable {UNIT}",
        "loginctl enable-linger",
        f"--user reset-failed {UNIT}",
        f"--user start {UNIT}",
    ]
    assert str(uw.stop_service("web")) == "stopped"
    assert str(uw.service_status("web")) == "stopped"


def test_shared_folder_is_given_to_the_user_of_the_unit(
    site: Site, free_port: int, tmp_path: Path, stand_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving folders away needs root")
    stand_in(stand_ins, "loginctl", "#!/bin/sh\n")
    stand_in(stand_ins, "id", "#!/bin/sh\necho 1000\n")  # or the unit would be this machine's
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    directory = declare(site, free_port, supervisor="systemd", user="nobody")
    assert str(site.deploy()) == "deployed"
    assert "User=nobody\n" in (tmp_path / "config/systemd/user" / UNIT).read_text()
    assert pwd.getpwuid((directory / "shared").stat().st_uid).pw_name == "nobody"
    assert pwd.getpwuid((directory / "releases").stat().st_uid).pw_name == "root"
    assert str(uw.stop_service("web")) == "stopped"  # here, for the stand-ins go before the service


def test_sudo_never_asks(site: Site, free_port: int, tmp_path: Path, stand_ins: Path) -> None:
    said = '#!/bin/sh\necho "$1 $2" >>"$SYSTEMD_STAND_IN/sudo"\nshift\nexec "$@"\n'
    stand_in(stand_ins, "sudo", said)
    declare(site, free_port, sudo=True)
    assert str(site.deploy()) == "deployed"
    assert set((tmp_path / "state/sudo").read_text().splitlines()) == {"-n sh"}
    site.release("2")
    script = tmp_path / "script"
    script.write_text(uw.generate_deploy_script("web"))
    done = subprocess.run(["bash", str(script), str(site.folder)], check=False, timeout=60)
    assert done.returncode == 0
    assert set((tmp_path / "state/sudo").read_text().splitlines()) == {"-n sh", "-n rsync"}
    assert str(site.deploy()) == "unchanged"


@pytest.mark.parametrize(
    "command",
    [
        'python3 server.py --port "$PORT"; exit',
        '(python3 server.py --port "$PORT" &); exec sleep 1000',
        'python3 server.py --port "$PORT" & exec sleep 1000',
    ],
    ids=["child", "orphan", "child of another program"],
)
def test_whichever_process_listens_is_found(
    site: Site, tmp_path: Path, free_port: int, command: str
) -> None:
    remote = str(tmp_path / "remote")
    options = {"remote_dir": remote, "port": free_port, "start_command": command}
    site.declare({"localhost": {}}, method="local", healthy_deadline=10, **options)
    assert str(site.deploy()) == "deployed"


LINGERING = """
import ctypes, http.server, os, platform, signal, sys, threading, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

def leave(*_):
    threading.Thread(target=lambda: (time.sleep(0.7), os._exit(0))).start()
    ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0)  # ends this thread alone

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
threading.Thread(target=server.serve_forever).start()
signal.signal(signal.SIGTERM, leave)
while True:
    signal.pause()
"""


def test_port_is_waited_for_that_the_last_thread_has_not_left(
    site: Site, tmp_path: Path, free_port: int
) -> None:
    """A leader whose threads go on is a zombie, and the socket is theirs."""
    (site.folder / "lingering.py").write_text(LINGERING)
    options = {"port": free_port, "start_command": 'exec python3 lingering.py "$PORT"'}
    site.declare({"localhost": {}}, "local", remote_dir=str(tmp_path / "remote"), **options)
    assert str(site.deploy()) == "deployed"
    site.release("2")
    result = site.deploy()
    assert str(result) == "deployed"
