"""What the terminal shows of an operation under way, and leaves when it is over."""

from __future__ import annotations

import pytest
from rich.console import Console

from unifyweaver_py._progress import progress
from unifyweaver_py._results import Begin, Event


def test_progress_leaves_each_hosts_result(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(Console(width=80)) as show:
        show(Begin("h", ("stage",)))
        show(Event(0.0, "*", "batch_1", "ok", 0.0, ()))
        show(Event(0.0, "h", "result", "deployed", 0.0, ()))
        show(Begin("h", ("unlock_fleet",)))
    shown = capsys.readouterr().out
    assert "h  deployed" in shown
    assert "unlock_fleet" not in shown
    assert "*" not in shown


def test_progress_of_nothing_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(Console()):
        pass
    assert capsys.readouterr().out == ""
