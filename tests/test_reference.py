"""The reference tells every option of the table, and the README has it as it is now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import unifyweaver_py as uw
from unifyweaver_py import reference

README = Path(__file__).parents[1] / "README.md"


def test_readme_is_current() -> None:
    page = README.read_text(encoding="utf-8")
    assert page == reference.with_reference(page), (
        "run python -m unifyweaver_py.reference README.md"
    )


def test_every_option_is_in_it() -> None:
    lines = reference.reference().splitlines()
    groups = {
        str(row["Group"]) for row in uw.query("deployment_options:option_group(Group, _, _, _, _)")
    }
    assert groups == set(reference.TITLES)
    for row in uw.query("deployment_options:option_group(_, Name, _, _, Doc)"):
        named = [
            line for line in lines if line.startswith((f"| `{row['Name']}`", f"| `{row['Name']}("))
        ]
        assert any(str(row["Doc"]).replace("|", "\\|") in line for line in named), row


def test_it_is_put_between_the_marks_and_nothing_else_is_touched(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{reference.BEGIN}\nold\n{reference.END}\nafter\n", encoding="utf-8")
    command = [sys.executable, "-m", "unifyweaver_py.reference"]
    subprocess.run([*command, str(page)], check=True, timeout=60)
    printed = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout
    assert page.read_text(encoding="utf-8") == (
        f"before\n{reference.BEGIN}\n\n{printed}\n{reference.END}\nafter\n"
    )
    assert (
        "| `port(8080)` | a port number from 1 to 65535 | TCP port the service listens on |"
        in printed
    )


def test_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no lines"):
        reference.with_reference("a page")
