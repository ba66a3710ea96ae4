"""Fixtures for all tests: no test sees the user's own ledger, SSH configuration or declarations."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIFYWEAVER_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("UNIFYWEAVER_KEY", str(tmp_path_factory.mktemp("key") / "key"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _mutant() -> None:
    """What `tests/mutation.py` wants to be noticed."""
    if mutant := os.environ.get("UNIFYWEAVER_MUTANT"):
        import unifyweaver_py

        unifyweaver_py.load(mutant, trusted=True)


@pytest.fixture
def free_port() -> int:
    """A TCP port of this machine on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def own_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A ledger of the test's own."""
    from unifyweaver_py import effects

    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
    effects.set_ledger(path)
    yield path
    effects.set_ledger(None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that is marked as `alone` runs while no other process of this checkout runs a test."""
    cache = getattr(item.config, "cache", None)
    if cache is None:
        return (yield)
    alone = item.get_closest_marker("alone") and not item.get_closest_marker("soak")
    folder = cache.mkdir("alone")
    with (folder / "door").open("w") as door, (folder / "room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as the property `told`, whichever process ran them."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "told" and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
