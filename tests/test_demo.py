"""`unifyweaver demo` does what the README says, and notices when it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

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
