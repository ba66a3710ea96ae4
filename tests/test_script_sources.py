"""A script ships what the library ships: its regular expressions choose the same files as the source patterns."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import unifyweaver_py as uw
from unifyweaver_py.effects.files import scan_sources
from unifyweaver_py.effects.patterns import Pattern, SourcesError

NAMES = [
    "a", "b.py", ".hidden", "lib/a.py", "lib/.b.py", "lib/ab.pyc", "lib/deep/er/a.py", "lib/deep/b.py",
    ".git/config", ".git/a.py", "a b", "a[b]c", "a+b", "a^b", "a$(b)", "a`b`", "a\nb", "a{1}", "a|b", "a\\b",
    "é", "éa", "x-y", "x]y", "]", "^", "-", "😀", "o'quote", 'do"uble', "lib.py/x", "static/map/a.map",
]  # fmt: skip
PATTERNS: list[list[str]] = [
    ["**"], ["*"], ["."], ["lib"], ["lib/"], ["./lib/./a.py"], ["**/*.py"], ["lib/**"], ["lib/**/*.py"],
    ["lib/**/**/a.py"], ["*.py"], ["?"], ["??"], ["[a-c]*"], ["[!a]*"], ["[^a]*"], ["x[-]y"], ["x[]]y"], ["x[!]]y"],
    ["[]]"], ["[!]]"], ["[é]"], ["a[[]b]c"], ["a[b"], ["a?b"], ["*b"], [".*"], [".git"], [".git/*"], [".[gh]*"],
    ["[.]hidden"], ["*hidden"], ["?hidden"], ["a+b", "a^b", "a$(b)", "a`b`", "a{1}", "a|b"], ["a\\b"],
    ["**", "!lib"], ["**", "!*.py"], ["**", "!**/*.py"], ["**", "!lib/**"], ["**", "!."], ["**", "!static/*"],
    ["**", "!.git", ".git/**"], ["**", "!?"], ["a***", "**b"], ["[z-a]", "a"], ["a**b"], ["o'quote", 'do"uble'],
]  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a tree")
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    Path(os.fsdecode(os.fsencode(folder) + b"/not-\xffutf8")).write_text("x")
    return folder


def by_library(tree: Path, patterns: list[str]) -> set[bytes] | str:
    known = [Pattern(p.removeprefix("!"), exclude=p.startswith("!")) for p in patterns]
    try:
        return {entry.path for entry in scan_sources(str(tree), known).entries}
    except SourcesError as error:
        return str(error)


def by_script(tree: Path, patterns: list[str], folder: Path) -> set[bytes] | None:
    uw.declare_service("chosen", start_command="true")
    uw.declare_deploy_method("chosen", "local")
    uw.declare_service_sources(
        "chosen", [uw.exclude(p[1:]) if p.startswith("!") else p for p in patterns]
    )
    functions = uw.generate_deploy_script("chosen").rsplit("\nif (($# != 1))", 1)[0]
    script = folder / "script"
    script.write_text(f'{functions}\nwork={folder}\nselect_files "$1"\n')
    done = subprocess.run(["bash", str(script), str(tree)], capture_output=True, check=False)
    uw.undeclare_service("chosen")
    if done.returncode:
        return None
    return set((folder / "files").read_bytes().split(b"\0")[:-1])


@pytest.mark.parametrize("patterns", PATTERNS, ids=" ".join)
def test_script_chooses_the_files_that_the_library_chooses(
    tree: Path, patterns: list[str], tmp_path: Path
) -> None:
    wanted = by_library(tree, patterns)
    found = by_script(tree, patterns, tmp_path)
    if isinstance(wanted, str):
        assert found is None, wanted
    else:
        assert found == wanted


def test_what_a_script_cannot_choose_is_refused() -> None:
    uw.declare_service("chosen")
    uw.declare_deploy_method("chosen", "local")
    uw.declare_service_sources("chosen", ["[!é]*"])
    try:
        with pytest.raises(uw.DomainError, match=r"\[!é\]"):
            uw.generate_deploy_script("chosen")
    finally:
        uw.undeclare_service("chosen")


def test_tree_holds_what_makes_patterns_differ(tree: Path) -> None:
    assert shutil.which("bash")
    assert {entry.path for entry in scan_sources(str(tree), [Pattern("**")]).entries} != {
        name.encode() for name in NAMES
    }
