"""Runs the PlUnit tests of the rules, and the load check."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "tests" / "prolog").glob("*.plt"))


def swipl(*arguments: str) -> str:
    """What Prolog printed; a failed test, an error or a warning fails."""
    command = ["swipl", "-q", "-f", "none", "--no-packs", "-p", "library=prolog", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    return printed


@pytest.mark.parametrize("file", FILES, ids=str)
def test_rules(file: Path) -> None:
    strict = ("--on-error=status", "--on-warning=status")
    swipl(*strict, "-g", "run_tests", "-t", "halt", str(file))


def test_facade_loads_without_a_warning_and_nothing_is_undefined() -> None:
    check = ("--on-error=status", "--on-warning=status", "-g", "list_undefined", "-t", "halt")
    assert swipl(*check, "prolog/deployment_glue.pl") == ""
