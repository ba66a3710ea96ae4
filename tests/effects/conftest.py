"""What the tests of the effects share: real runs, and a real SSH server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unifyweaver_py._terms import Term
from unifyweaver_py.effects import LiveEffects, Run, new_run

sys.path.insert(0, str(Path(__file__).parent))

from sshd import SSHD, Sshd, start_sshd


@pytest.fixture
def live(tmp_path: Path) -> LiveEffects:
    return LiveEffects(tmp_path / "ledger.sqlite3")


@pytest.fixture
def run() -> Iterator[Run]:
    run = new_run()
    yield run
    run.close()


@pytest.fixture
def forward(run: Run) -> Term:
    return Term("run", (run.id, "forward"))


@pytest.fixture(autouse=True)
def _no_user_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if not Path(SSHD).exists():
        pytest.skip("no OpenSSH server on this machine")
    server = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Start servers that end with the test."""
    started: list[Sshd] = []

    def start(*options: str) -> Sshd:
        server = start_sshd(tmp_path / f"sshd{len(started)}", *options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()
