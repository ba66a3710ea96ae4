"""`unifyweaver demo` does what the README says, and notices when it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest
from rich.console import Console

from unifyweaver_py import cli
from unifyweaver_py.demo import tour


def test_demo_ends_on_version_2_everywhere() -> None:
    command = [str(Path(sys.executable).with_name("unifyweaver")), "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.count("rolled_back_after_failure(rolled_back(") == 4
    assert done.stdout.count("│ version 2 (") == 3


def test_demo_fails_when_the_third_version_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    write = tour._write_release
    monkeypatch.setattr(
        tour, "_write_release", lambda folder, version, _: write(folder, version, False)
    )
    with pytest.raises(tour.SurpriseError, match="the result is deployed"):
        tour.tour(Console(quiet=True))


def test_demo_believes_only_its_own_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "_answer", lambda _port, _path: (200, "0"))
    with pytest.raises(tour.SurpriseError, match="should run version 1"):
        tour.tour(Console(quiet=True))


def test_demo_that_sees_something_else_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    write = tour._write_release
    monkeypatch.setattr(
        tour, "_write_release", lambda folder, version, _: write(folder, version, False)
    )
    done = click.testing.CliRunner().invoke(cli.main, ["demo"])
    assert done.exit_code == 1
    assert "The demo failed: the result is deployed" in done.stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_demo_that_is_ended_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    command = [str(Path(sys.executable).with_name("unifyweaver")), "demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Version 2"):
            break
    assert served_from(tmp_path)
    process.send_signal(number)
    process.stdout.read()
    assert process.wait(timeout=60) == status
    process.stdout.close()
    assert served_from(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def served_from(folder: Path) -> list[str]:
    """The processes that work below a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            where = os.readlink(entry)
        except OSError:  # another user's, or ended
            continue
        if where.startswith(str(folder)):
            found.append(where)
    return found
