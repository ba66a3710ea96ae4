"""A changed file is never missed, and an unchanged one is not read again."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unifyweaver_py.effects import digests, files
from unifyweaver_py.effects.digests import DigestCache
from unifyweaver_py.effects.files import Scanner, scan_tree
from unifyweaver_py.effects.patterns import Pattern, SourcesError

ALL = [Pattern("**")]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DigestCache:
    """A cache of the test's own, also on disk."""
    monkeypatch.setenv("UNIFYWEAVER_CACHE", str(tmp_path / "cache"))
    own = DigestCache()
    monkeypatch.setattr(files, "_digests", own)
    return own


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Time stamps count as settled after 50 ms here; wait for that."""
    monkeypatch.setattr(digests, "RACY_NS", 50_000_000)
    return lambda: time.sleep(0.06)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name in ("a", "b", "one/c", "one/two/d"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "link").symlink_to("one/c")
    return folder


def true_hash(root: Path) -> str:
    """The hash, from contents read now by nothing that remembers."""
    entries = []
    for folder, names, found in os.walk(os.fsencode(root)):
        for name in (*found, *(n for n in names if os.path.islink(os.path.join(folder, n)))):
            full = os.path.join(folder, name)
            path = os.path.relpath(full, os.fsencode(root))
            if os.path.islink(full):
                entries.append(files.Entry(path, "l", 0, 0, b"", os.readlink(full)))
                continue
            status = os.stat(full)
            content = Path(os.fsdecode(full)).read_bytes()
            kind = files.file_kind(status.st_mode)
            digest = hashlib.sha256(content).digest()
            entries.append(files.Entry(path, kind, len(content), 0, digest))
    return files.release_hash(sorted(entries, key=lambda entry: entry.path))


def test_an_unchanged_tree_is_not_read_again(
    root: Path, cache: DigestCache, short_wait: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_wait()
    scanner = Scanner()
    first = scanner.scan(str(root), ALL)
    hashed = cache.hashed
    monkeypatch.setattr(files, "scan_tree", lambda *_: pytest.fail("scanned again"))
    assert scanner.scan(str(root), ALL) is first
    assert cache.hashed == hashed == 4


def test_only_the_changed_file_is_read_again(
    root: Path, cache: DigestCache, short_wait: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_wait()
    scanner = Scanner()
    scanner.scan(str(root), ALL)
    (root / "b").write_text("changed")
    monkeypatch.setattr(files, "scan_tree", lambda *_: pytest.fail("walked again"))
    assert scanner.scan(str(root), ALL).hash == true_hash(root)
    assert cache.hashed == 5
    scanner.scan(str(root), ALL)
    assert cache.hashed == 6  # it has just been changed
    short_wait()
    scanner.scan(str(root), ALL)
    scanner.scan(str(root), ALL)
    assert cache.hashed == 7


def same_size_same_time(path: Path, content: bytes) -> None:
    """Change what is in the file, but neither its size nor its time of modification."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_change_of_equal_size_and_time_is_seen_each_of_500_times(
    root: Path, cache: DigestCache
) -> None:
    scanner = Scanner()
    seen = {scanner.scan(str(root), ALL).hash}
    for number in range(500):
        same_size_same_time(root / "one/two/d", b"%09d" % number)
        found = scanner.scan(str(root), ALL).hash
        assert found not in seen
        seen.add(found)


def test_a_change_right_after_the_scan_is_seen_also_when_no_time_stamp_moves(
    root: Path, cache: DigestCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system whose time stamps are whole seconds."""
    state_of = digests.state_of

    def coarse(status: os.stat_result) -> tuple[int, ...]:
        changed, modified, *rest = state_of(status)
        return changed // 10**9, modified // 10**9, *rest

    monkeypatch.setattr(digests, "state_of", coarse)
    monkeypatch.setattr(files, "state_of", coarse)
    scanner = Scanner()
    end = time.monotonic() + 4
    number = 0
    last = ""
    while time.monotonic() < end:
        number += 1
        same_size_same_time(root / "a", b"%d" % (number % 10))
        found = scanner.scan(str(root), ALL).hash
        assert found != last
        last = found
        time.sleep(random.uniform(0, 0.05))
    assert number > 50


def test_a_file_renamed_over_another_of_equal_size_and_time_is_seen(
    root: Path, cache: DigestCache, short_wait: Callable[[], None]
) -> None:
    other = root.parent / "other"
    other.write_text("b")
    status = (root / "a").stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    short_wait()
    scanner = Scanner()
    before = scanner.scan(str(root), ALL).hash
    other.rename(root / "a")
    assert scanner.scan(str(root), ALL).hash == true_hash(root) != before


def swap_folder(root: Path) -> None:
    shutil.copytree(root / "one", root / "copy", symlinks=True)
    (root / "copy/c").write_text("C")
    shutil.rmtree(root / "one")
    (root / "copy").rename(root / "one")


def file_to_folder(root: Path) -> None:
    (root / "a").unlink()
    (root / "a").mkdir()
    (root / "a/inside").write_text("a")


def switch_root(root: Path) -> None:
    shutil.copytree(root, root.parent / "next", symlinks=True)
    (root.parent / "next/a").write_text("A")
    root.rename(root.parent / "last")
    root.symlink_to("next")


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda root: (root / "one/two/new").write_text("new"),
    "removed": lambda root: (root / "one/two/d").unlink(),
    "renamed": lambda root: (root / "a").rename(root / "z"),
    "executable": lambda root: (root / "a").chmod(0o755),
    "folder added": lambda root: shutil.copytree(root / "one", root / "three"),
    "folder swapped": swap_folder,
    "file to folder": file_to_folder,
    "link retargeted": lambda root: ((root / "link").unlink(), (root / "link").symlink_to("a")),
    "link to file": lambda root: ((root / "link").unlink(), (root / "link").write_text("c")),
    "root switched": switch_root,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_each_kind_of_change_is_seen_in_a_settled_tree(
    root: Path,
    cache: DigestCache,
    short_wait: Callable[[], None],
    change: Callable[[Path], object],
) -> None:
    short_wait()
    scanner = Scanner()
    before = scanner.scan(str(root), ALL).hash
    change(root)
    assert scanner.scan(str(root), ALL).hash == true_hash(root) != before


def test_a_name_that_was_a_file_nobody_wanted_may_become_a_folder(
    root: Path, cache: DigestCache, short_wait: Callable[[], None]
) -> None:
    (root / "plain").write_text("not matched")
    short_wait()
    scanner = Scanner()
    patterns = [Pattern("*/c")]
    before = scanner.scan(str(root), patterns)
    (root / "plain").unlink()
    (root / "plain").mkdir()
    (root / "plain/c").write_text("c")
    assert len(scanner.scan(str(root), patterns).entries) == len(before.entries) + 1


def test_a_link_that_comes_to_lead_outside_is_refused_in_an_unchanged_tree(
    root: Path, cache: DigestCache, short_wait: Callable[[], None]
) -> None:
    (root / ".hidden").mkdir()
    (root / ".hidden/jump").symlink_to("../one")
    (root / "through").symlink_to(".hidden/jump/../a")
    short_wait()
    scanner = Scanner()
    scanner.scan(str(root), [Pattern("through")])
    folder = root.parent / "outside"
    folder.mkdir()
    (root.parent / "a").write_text("secret")
    (root / ".hidden/jump").unlink()
    (root / ".hidden/jump").symlink_to("../../outside")
    with pytest.raises(SourcesError) as caught:
        scanner.scan(str(root), [Pattern("through")])
    assert str(caught.value) == "link_leads_outside: through"


def test_a_scan_that_failed_is_forgotten(
    root: Path, cache: DigestCache, short_wait: Callable[[], None]
) -> None:
    short_wait()
    scanner = Scanner()
    before = scanner.scan(str(root), ALL).hash
    os.mkfifo(root / "pipe")
    with pytest.raises(SourcesError):
        scanner.scan(str(root), ALL)
    (root / "pipe").unlink()
    assert scanner.scan(str(root), ALL).hash == before


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "append", "same", "remove", "rename", "mode", "link", "folder"]),
        st.integers(0, 5),
        st.integers(0, 5),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(operations=OPERATIONS)
def test_whatever_is_done_between_two_scans_is_seen(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int, int, bool]]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    names = ["a", "b", "x/a", "x/b", "x/y/a", "y/a"]
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0")
    (root / "stays").write_text("0")
    scanner = Scanner()
    scanner.scan(str(root), ALL)
    for word, first, second, scan in operations:
        act(word, root / names[first], root / names[second])
        if scan:
            assert scanner.scan(str(root), ALL).hash == true_hash(root)
    assert scanner.scan(str(root), ALL).hash == true_hash(root)


def act(word: str, path: Path, other: Path) -> None:
    """Something that a user might do, where it can be done."""
    usable = path.is_file() and not path.is_symlink()
    match word:
        case "write" if usable or (path.parent.is_dir() and not os.path.lexists(path)):
            path.write_text(path.name * 2)
        case "append" if usable:
            path.write_text(path.read_text() + "1")
        case "same" if usable and path.stat().st_size:
            same_size_same_time(path, b"%d" % random.randrange(10))
        case "remove" if os.path.lexists(path) and (usable or path.is_symlink()):
            path.unlink()
        case "rename" if usable and other.parent.is_dir() and not other.is_dir():
            path.rename(other)
        case "mode" if usable:
            path.chmod(path.stat().st_mode ^ 0o111)
        case "link" if usable:
            path.unlink()
            path.symlink_to("stays" if path.parent.name not in "xy" else "a")
        case "folder" if usable:
            path.unlink()
            path.mkdir()
            (path / "inside").write_text("1")


def test_a_file_under_constant_change_is_never_missed_at_rest(
    root: Path, cache: DigestCache
) -> None:
    """A writer changes a file as fast as it can while it is scanned; once it rests, it is right."""
    scanner = Scanner()
    stop = threading.Event()
    path = root / "a"
    path.write_bytes(bytes(200_000))

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            same_size_same_time(path, b"%08d" % number * 25_000)

    for _ in range(10):
        stop.clear()
        writer = threading.Thread(target=write)
        writer.start()
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            scanner.scan(str(root), ALL)
        stop.set()
        writer.join()
        assert scanner.scan(str(root), ALL).hash == true_hash(root)


# what is kept for later processes


@pytest.fixture
def worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "WORTH_KEEPING_FILES", 1)


def later(monkeypatch: pytest.MonkeyPatch) -> DigestCache:
    """The cache of another process."""
    own = DigestCache()
    monkeypatch.setattr(files, "_digests", own)
    return own


@pytest.mark.usefixtures("cache", "worthwhile")
def test_a_later_process_reads_only_what_changed(
    root: Path, short_wait: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_wait()
    scan_tree(str(root), ALL)
    same_size_same_time(root / "a", b"A")
    cache = later(monkeypatch)
    assert scan_tree(str(root), ALL).scan.hash == true_hash(root)
    assert cache.hashed == 1


@pytest.mark.usefixtures("cache", "worthwhile")
def test_what_has_just_changed_is_not_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan_tree(str(root), ALL)
    cache = later(monkeypatch)
    scan_tree(str(root), ALL)
    assert cache.hashed == 4


@pytest.mark.usefixtures("cache", "worthwhile")
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "grown"])
def test_of_a_damaged_file_nothing_is_believed(
    root: Path,
    tmp_path: Path,
    short_wait: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    short_wait()
    scan_tree(str(root), ALL)
    (kept,) = (tmp_path / "cache/digests").iterdir()
    content = kept.read_bytes()
    flipped = content[:70] + bytes([content[70] ^ 1]) + content[71:]
    damaged = {"cut": content[:-40], "flipped": flipped, "empty": b"", "grown": content + b"x"}
    kept.write_bytes(damaged[damage])
    cache = later(monkeypatch)
    assert scan_tree(str(root), ALL).scan.hash == true_hash(root)
    assert cache.hashed == 4


@pytest.mark.usefixtures("cache", "worthwhile")
def test_only_so_many_folders_are_kept(
    tmp_path: Path, short_wait: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files._digests._folder, "_most", 3)
    for number in range(6):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/file").write_text("x")
    short_wait()
    for number in range(6):
        scan_tree(str(tmp_path / f"{number}"), ALL)
    assert len(list((tmp_path / "cache/digests").iterdir())) == 3


def test_hashing_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    with (tmp_path / "sources/huge").open("wb") as file:
        file.truncate(400_000_000)
    code = (
        "import sys; from unifyweaver_py.effects import archive, files;"
        "from unifyweaver_py.effects.patterns import Pattern;"
        "scan = files.scan_sources(sys.argv[1], [Pattern('**')]);"
        "print(sum(map(len, archive.tar_stream(archive.shipment(scan)))));"
        "print(next(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "sources")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    length, peak = map(int, done.stdout.split())
    assert length > 400_000_000
    assert peak < 60_000
