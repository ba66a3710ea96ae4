"""How a release is put together on a target, whatever tools it has: target.sh, run here."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effects.test_files import odd_sources
from unifyweaver_py import _paths
from unifyweaver_py.effects import archive
from unifyweaver_py.effects.archive import Base, Extra, Shipment, touched_paths
from unifyweaver_py.effects.files import MODES, scan_sources
from unifyweaver_py.effects.manifests import ManifestCache
from unifyweaver_py.effects.patterns import Pattern

FUNCTIONS = "".join(
    (_paths.prolog_dir() / "deployment" / name).read_text()
    for name in ("target.sh", "systemd.sh", "intent.sh")
)
EXTRA = Extra(".unifyweaver/port", 0o644, b"80\n")
COREUTILS = [
    "cat", "chmod", "comm", "cp", "cut", "grep", "head", "id", "ls", "mkdir", "mv",
    "od",
    "readlink", "rm", "sed", "sha256sum", "sh", "sort", "stat", "tail", "tar", "touch", "tr",
    "wc", "awk", "ln",
]  # fmt: skip


class Target:
    """A service's directory here, and what a script that stages or observes says there."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder
        self.path = os.environ["PATH"]

    def run(self, line: str, payload: bytes = b"") -> list[str]:
        script = f"{FUNCTIONS}\nservice=web dir=$1 token=t\n{line}\n"
        done = subprocess.run(
            ["/bin/sh", "-c", script, "target", str(self.dir)],
            input=payload,
            capture_output=True,
            timeout=60,
            check=False,
            env={"PATH": self.path},
        )
        said = done.stdout.decode("utf-8", "backslashreplace").splitlines()
        return [text.split(" ", 1)[1] for text in said]

    def stage(self, release: str, shipment: Shipment) -> str:
        said = self.run(f"step s stage {release}", b"".join(archive.tar_stream(shipment)))
        return said[-1].removeprefix("end s ")

    def observed(self, release: str) -> Base | None:
        """The base that is observed when this release is active."""
        (self.dir / "current").unlink(missing_ok=True)
        (self.dir / "current").symlink_to(f"releases/{release}")
        for line in self.run("step o survey"):
            words = line.split()
            if words[:3] == ["got", "o", "manifest"]:
                return Base(words[3], words[4], touched=touched_paths(words[5]))
        return None

    def hash(self, release: str) -> str:
        return scan_sources(str(self.dir / "releases" / release), [Pattern("**")]).hash


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path / "target's own")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    odd_sources(folder)
    (folder / "changes").write_text("1")
    (folder / "goes").write_text("1")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> ManifestCache:
    return ManifestCache(tmp_path / "cache")


def shipped(folder: Path, cache: ManifestCache, base: Base | None = None) -> Shipment:
    scan = scan_sources(str(folder), [Pattern("**")])
    return archive.shipment(scan, [EXTRA], base, cache)


def only(tmp_path: Path, *more: str, **instead: str) -> str:
    """A PATH that leads to these tools alone."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in (*COREUTILS, *more):
        found = instead.get(name) or shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return str(folder)


def changed(folder: Path) -> None:
    (folder / "changes").write_text("2")
    (folder / "goes").unlink()


@pytest.mark.parametrize("awk", ["mawk", "gawk", "original-awk", "busybox"])
def test_with_any_awk_the_difference_becomes_the_release(
    target: Target, sources: Path, cache: ManifestCache, tmp_path: Path, awk: str
) -> None:
    program = shutil.which(awk)
    if program is None:
        pytest.skip(f"no {awk} here")
    target.path = only(tmp_path, "find", "xargs", awk=program)
    assert target.stage("r1", shipped(sources, cache)) == "ok"
    changed(sources)
    shipment = shipped(sources, cache, target.observed("r1"))
    assert [entry.path for entry in shipment.sent()] == [b"changes"]
    assert target.stage("r2", shipment) == "ok"
    assert target.hash("r2") == shipment.scan.hash
    manifest = (target.dir / "releases/r2/.unifyweaver/manifest").read_bytes()
    assert manifest == shipment.manifest


@pytest.mark.parametrize("more", [(), ("find",), ("xargs",)])
def test_without_findutils_everything_is_sent(
    target: Target, sources: Path, cache: ManifestCache, tmp_path: Path, more: tuple[str, ...]
) -> None:
    target.path = only(tmp_path, *more)
    shipment = shipped(sources, cache)
    assert target.stage("r1", shipment) == "ok"
    assert target.hash("r1") == shipment.scan.hash
    assert target.observed("r1") is None


def test_with_a_cp_that_cannot_reflink_files_are_copied(
    target: Target, sources: Path, cache: ManifestCache, tmp_path: Path
) -> None:
    real = shutil.which("cp")
    plain = tmp_path / "cp"
    plain.write_text(f'#!/bin/sh\ncase "$*" in *reflink*) exit 1 ;; esac\nexec {real} "$@"\n')
    plain.chmod(0o755)
    target.path = only(tmp_path, "find", "xargs", cp=str(plain))
    assert target.stage("r1", shipped(sources, cache)) == "ok"
    changed(sources)
    shipment = shipped(sources, cache, target.observed("r1"))
    assert target.stage("r2", shipment) == "ok"
    assert target.hash("r2") == shipment.scan.hash


def test_a_cp_that_fails_leaves_the_base_unusable_and_nothing_behind(
    target: Target, sources: Path, cache: ManifestCache, tmp_path: Path
) -> None:
    broken = tmp_path / "cp"
    broken.write_text("#!/bin/sh\necho 'cp: error reading: Input/output error' >&2\nexit 1\n")
    broken.chmod(0o755)
    target.path = only(tmp_path, "find", "xargs", cp=str(broken))
    assert target.stage("r1", shipped(sources, cache)) == "ok"
    changed(sources)
    shipment = shipped(sources, cache, target.observed("r1"))
    assert target.stage("r2", shipment) == "failed base_unusable"
    assert [path.name for path in (target.dir / "releases").iterdir()] == ["r1"]


def test_a_difference_to_another_manifest_is_refused(
    target: Target, sources: Path, cache: ManifestCache
) -> None:
    assert target.stage("r1", shipped(sources, cache)) == "ok"
    base = target.observed("r1")
    assert base is not None
    changed(sources)
    shipment = shipped(sources, cache, base)
    other = Base(base.release, "0" * 64)
    wrong = Shipment(shipment.scan, shipment.extras, shipment.manifest, other, shipment.difference)
    assert target.stage("r2", wrong) == "failed base_unusable"
    lying = Shipment(
        shipment.scan, shipment.extras, shipment.manifest + b"x\n", base, shipment.difference
    )
    assert target.stage("r2", lying) == "failed base_unusable"
    assert not (target.dir / "releases/r2").exists()


def test_a_long_manifest_is_checked_in_parts_and_its_one_wrong_file_is_named(
    target: Target, tmp_path: Path, cache: ManifestCache
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(2500):
        (folder / f"file{number}").write_text(str(number))
    (folder / "link").symlink_to("file1")
    shipment = shipped(folder, cache)
    assert target.stage("r1", shipment) == "ok"
    assert target.run("step v verify r1")[-1] == "end v ok"
    (target.dir / "releases/r1/file1777").write_text("1778")
    assert target.run("step v verify r1")[-1] == "end v failed verification_failed file1777"
    (target.dir / "releases/r1/file1777").unlink()
    said = target.run("step v verify r1")[-1]
    assert said.startswith("end v failed verification_failed file1777")


CONTENT = st.tuples(st.sampled_from(list("fxpql")), st.sampled_from("123"))
NAMES = st.sampled_from([b"a", b"-b", b"\n", b"\\n", b"c\tc", b"d/a", b"d/\xff", b"d/e/-", b"f/'a"])
TREES = st.dictionaries(NAMES, CONTENT, min_size=1)


def make(folder: Path, tree: dict[bytes, tuple[str, str]]) -> Path:
    for name, (kind, content) in tree.items():
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "l":
            path.symlink_to(content)
        else:
            path.write_text(content)
            path.chmod(MODES[kind])
    return folder


@settings(max_examples=60, deadline=None)
@given(trees=st.lists(TREES, min_size=2, max_size=3), touched=NAMES, link=st.booleans())
def test_any_release_can_be_built_on_any_other(
    tmp_path_factory: pytest.TempPathFactory,
    trees: list[dict[bytes, tuple[str, str]]],
    touched: bytes,
    link: bool,
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    target = Target(folder / "target")
    cache = ManifestCache(folder)
    base = None
    for number, tree in enumerate(trees):
        if base is not None and link:
            base = replace(base, reuse="link")
        shipment = shipped(make(folder / f"{number}", tree), cache, base)
        assert target.stage(f"r{number}", shipment) == "ok"
        assert target.hash(f"r{number}") == shipment.scan.hash
        file = target.dir / "releases" / f"r{number}" / os.fsdecode(touched)
        if not link and os.path.lexists(file):
            file.unlink()
            file.write_text("touched")
        base = target.observed(f"r{number}")
        if not link and touched in tree:
            assert base is not None
            assert touched in base.touched


def test_a_file_newer_than_the_release_is_given_its_time(
    target: Target, sources: Path, cache: ManifestCache
) -> None:
    """So that a clock ahead of the target's doesn't make a file look changed there."""
    os.utime(sources / "goes", (4_000_000_000, 4_000_000_000))
    os.utime(sources / "changes", (1_000_000_000, 1_000_000_000))
    assert target.stage("r1", shipped(sources, cache)) == "ok"
    release = target.dir / "releases/r1"
    assert (release / "changes").stat().st_mtime == 1_000_000_000
    manifest = (release / ".unifyweaver/manifest").stat()
    assert (release / "goes").stat().st_mtime_ns == manifest.st_mtime_ns
    (sources / "changes").write_text("2")
    assert target.stage("r2", shipped(sources, cache, target.observed("r1"))) == "ok"


def test_the_digest_observed_is_that_of_the_manifest(
    target: Target, sources: Path, cache: ManifestCache
) -> None:
    shipment = shipped(sources, cache)
    assert target.stage("r1", shipment) == "ok"
    base = target.observed("r1")
    assert base == Base("r1", hashlib.sha256(shipment.manifest).hexdigest())
