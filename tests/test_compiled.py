"""The compiled Prolog half: made once, believed only when it is whole and our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unifyweaver_py import _paths

ROOT = Path(__file__).parent.parent

LOADED = """
import unifyweaver_py as uw
print(uw.once("deployment_places:own_folder(F)")["F"])
uw.declare_service("web", port=80)
print(uw.service_config("web"))
try:
    uw.once("deployment_glue:declare_service(web, [prt(80)])")
except uw.PrologError as error:
    print(error)
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of the library, whose Prolog files may be changed."""
    for name in ("unifyweaver_py", "prolog"):
        shutil.copytree(
            ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path / "copy"


@pytest.fixture
def python(cache: Path) -> Callable[..., str]:
    """What a new Python says that loads the library."""

    def say(library: Path = ROOT, code: str = LOADED) -> str:
        environment = {
            **os.environ,
            "PYTHONPATH": str(library),
            "UNIFYWEAVER_CACHE": str(cache),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=library,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return say


def compiled(cache: Path) -> dict[str, tuple[int, int]]:
    return {
        path.name: (path.stat().st_ino, path.stat().st_size)
        for path in (cache / "prolog").glob("*.qlf")
    }


def test_it_is_compiled_once_and_does_the_same(cache: Path, python: Callable[..., str]) -> None:
    first = python()
    made = compiled(cache)
    assert sorted(name.split("-")[0] for name in made) == ["deployment_glue", "engine"]
    second = python()
    assert compiled(cache) == made
    assert first.splitlines()[0] == second.splitlines()[0] == f"{_paths.prolog_dir()}/"
    assert first.splitlines()[1:] == second.splitlines()[1:]
    assert "port" in second
    assert (cache / "prolog").stat().st_mode & 0o777 == 0o700


def test_what_is_loaded_then_is_the_compiled_one(cache: Path, python: Callable[..., str]) -> None:
    context = (
        "source_file_property(F, load_context(_, A:_, _)), atom_concat(_, '/deployment_glue.pl', F)"
    )
    code = f"import unifyweaver_py as uw; print(uw.once({context!r})['A'])"
    python(code=code)
    assert python(code=code).startswith(f"{cache}/prolog/deployment_glue-")


def test_a_changed_source_is_compiled_anew(
    cache: Path, library: Path, python: Callable[..., str]
) -> None:
    code = "import unifyweaver_py as uw; print(uw.once('deployment_options:changed_here(X)'))"
    source = library / "prolog" / "deployment" / "options.pl"
    source.write_text(source.read_text() + "\nchanged_here(1).\n")
    assert python(library, code) == "{'X': 1}\n"
    source.write_text(source.read_text().replace("changed_here(1)", "changed_here(2)"))
    assert python(library, code) == "{'X': 2}\n"
    assert python(library, code) == "{'X': 2}\n"
    assert len(compiled(cache)) == 4


def test_a_changed_script_is_compiled_anew(library: Path, python: Callable[..., str]) -> None:
    goal = "deployment_scripts:target_functions(X)"
    code = f"import unifyweaver_py as uw; print('changed_here' in uw.once({goal!r})['X'])"
    assert python(library, code) == "False\n"
    with (library / "prolog" / "deployment" / "target.sh").open("a") as script:
        script.write("changed_here() { :; }\n")
    assert python(library, code) == "True\n"


@pytest.mark.parametrize("damage", ["short", "empty", "another byte", "folder"])
def test_what_is_damaged_is_not_loaded(
    cache: Path, python: Callable[..., str], damage: str
) -> None:
    """SWI-Prolog would end the process over it."""
    whole = python()
    for file in (cache / "prolog").iterdir():
        content = file.read_bytes()
        match damage:
            case "short":
                file.write_bytes(content[: len(content) // 2])
            case "empty":
                file.write_bytes(b"")
            case "another byte":
                middle = len(content) // 2
                file.write_bytes(content[:middle] + b"\0\0\0\0" + content[middle + 4 :])
            case _:
                file.unlink()
                file.mkdir()
    assert python().splitlines()[1:] == whole.splitlines()[1:]


@pytest.mark.parametrize("what", ["prolog", "prolog/*.qlf"])
def test_what_others_may_write_is_not_loaded(
    cache: Path, python: Callable[..., str], what: str
) -> None:
    python()
    for file in (cache / "prolog").iterdir():
        file.write_bytes(b"planted")
    for path in cache.glob(what):
        path.chmod(0o777)
    assert "port" in python()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_what_is_not_ours_is_not_loaded(cache: Path, python: Callable[..., str]) -> None:
    python()
    before = compiled(cache)
    for file in (cache / "prolog").iterdir():
        os.chown(file, 12345, 12345)
    python()
    after = compiled(cache)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_without_a_place_for_it_the_sources_are_loaded(
    cache: Path, python: Callable[..., str]
) -> None:
    cache.write_text("no folder")
    assert "port" in python()


def test_an_error_in_the_sources_is_told_with_its_place(
    library: Path, cache: Path, python: Callable[..., str]
) -> None:
    source = library / "prolog" / "deployment" / "options.pl"
    source.write_text(source.read_text() + "\nbroken( .\n")
    code = """
import unifyweaver_py as uw
from unifyweaver_py import _errors
try:
    uw.service_config("web")
except _errors.LoadError as error:
    print(error)
"""
    for _ in range(2):
        said = python(library, code)
        assert f"{source}:" in said
        assert "Syntax error" in said or "yntax" in said
    assert not any(name.startswith("deployment_glue") for name in compiled(cache))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
@pytest.mark.parametrize("kilobytes", [4, 32])
def test_on_a_full_disk_the_sources_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: Callable[..., str], kilobytes: int
) -> None:
    """Neither of the two compiled files finds its place, or only the first."""
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", full], check=True)
    monkeypatch.setenv("TMPDIR", str(full))
    try:
        assert "port" in python()
    finally:
        subprocess.run(["umount", full], check=True)
