"""Which files the patterns name, their hash, and the tar stream."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unifyweaver_py._terms import Term
from unifyweaver_py.effects import archive, digests, files
from unifyweaver_py.effects.archive import Extra
from unifyweaver_py.effects.files import Scanner, scan_sources
from unifyweaver_py.effects.patterns import Pattern, SourcesError

ODD_NAMES = [
    b"new\nline",
    b"carriage\rreturn",
    b"ends in return\r",
    b"back\\slash",
    b"'single' \"double\" $(touch owned) `id`",
    b"-rf",
    b"-",
    b"--checkpoint-action=exec=sh",
    b"tab\there",
    b" lead and trail ",
    b"caf\xc3\xa9",
    b"not utf-8 \xff\xfe",
    b"star*?[x]",
    b"x" * 255,
    b"d" * 150 + b"/" + b"e" * 149,
]


def tree(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def named(root: Path, *patterns: str) -> list[str]:
    """The paths that the patterns name; one that begins with `!` excludes."""
    parsed = [Pattern(p.lstrip("!"), exclude=p.startswith("!")) for p in patterns]
    return [os.fsdecode(entry.path) for entry in scan_sources(str(root), parsed).entries]


def reason(root: Path | str, *patterns: str, needs: Iterable[str] = ()) -> object:
    with pytest.raises(SourcesError) as caught:
        Scanner().scan(str(root), [Pattern(p) for p in patterns], list(needs))
    return caught.value.reason


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return tree(
        tmp_path / "src",
        {
            "server.py": "1",
            "README.md": "2",
            ".env": "secret",
            "static/a.css": "3",
            "static/deep/b.css": "4",
            "static/deep/.hidden": "5",
            "static/.git/config": "6",
            "lib/x1.py": "7",
            "lib/x2.py": "8",
            "lib/xy.py": "9",
        },
    )


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["server.py"], ["server.py"]),
        (["./server.py"], ["server.py"]),
        (["*"], ["README.md", "server.py"]),
        (["*.py", "lib/*.py"], ["lib/x1.py", "lib/x2.py", "lib/xy.py", "server.py"]),
        (["lib/x[0-9].py"], ["lib/x1.py", "lib/x2.py"]),
        (["lib/x[!0-9].py"], ["lib/xy.py"]),
        (["lib/x[^0-9].py"], ["lib/xy.py"]),
        (["lib/x?.py", "!lib/x1.py"], ["lib/x2.py", "lib/xy.py"]),
        (["**/*.css"], ["static/a.css", "static/deep/b.css"]),
        (["static/**/b.css"], ["static/deep/b.css"]),
        (["static/**/a.css"], ["static/a.css"]),
        (["static/**"], ["static/a.css", "static/deep/b.css"]),
        (["static"], ["static/a.css", "static/deep/b.css"]),
        (["static/"], ["static/a.css", "static/deep/b.css"]),
        (["static", "!**/deep"], ["static/a.css"]),
        (["static", "!static/deep/**"], ["static/a.css"]),
        ([".env"], [".env"]),
        ([".*"], [".env"]),
        (["static/deep/.hidden"], ["static/deep/.hidden"]),
        (["static/.git"], ["static/.git/config"]),
        (["**/.hidden"], ["static/deep/.hidden"]),
    ],
)
def test_patterns_name_files(sources: Path, patterns: list[str], expected: list[str]) -> None:
    assert named(sources, *patterns) == expected


def test_a_final_double_star_needs_a_file_below(sources: Path) -> None:
    assert reason(sources, "server.py/**") == Term("no_match", ("server.py/**",))


def test_a_wildcard_does_not_name_a_folder(sources: Path) -> None:
    assert reason(sources, "stat*") == Term("no_match", ("stat*",))


NAMES = st.text(alphabet="ab.", min_size=1, max_size=3).filter(lambda n: n not in (".", ".."))
PARTS = st.one_of(NAMES, st.text(alphabet="ab.*?", min_size=1, max_size=3), st.just("**")).filter(
    lambda p: p not in (".", "..")
)


def matches(pattern: list[str], path: list[str]) -> bool:
    """The oracle: `**` is any number of visible folders, and at the end at least one visible name."""
    if not pattern or not path:
        return not pattern and not path
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        visible = not path[0].startswith(".")
        if not rest:
            return visible and (len(path) == 1 or matches(pattern, path[1:]))
        return matches(rest, path) or (visible and len(path) > 1 and matches(pattern, path[1:]))
    return name_matches(first, path[0], start=True) and matches(rest, path[1:])


def name_matches(pattern: str, name: str, *, start: bool) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        if start and name.startswith("."):
            return False
        rest = pattern.lstrip("*")
        return any(name_matches(rest, name[i:], start=False) for i in range(len(name) + 1))
    if not name:
        return False
    if pattern[0] == "?":
        return not (start and name[0] == ".") and name_matches(pattern[1:], name[1:], start=False)
    return pattern[0] == name[0] and name_matches(pattern[1:], name[1:], start=False)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    paths=st.sets(st.lists(NAMES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=6),
    pattern=st.lists(PARTS, min_size=1, max_size=4),
)
def test_a_wildcard_pattern_names_what_the_oracle_names(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, ...]], pattern: list[str]
) -> None:
    root = tmp_path_factory.mktemp("oracle")
    made = []
    for path in sorted(paths):
        full = root.joinpath(*path)
        if any(parent.is_file() for parent in full.parents) or full.exists():
            continue
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text("x")
        made.append(path)
    pattern = [*pattern, "*"]
    expected = sorted("/".join(path) for path in made if matches(pattern, list(path)))
    text = "/".join(pattern)
    if expected:
        assert named(root, text) == expected
    else:
        assert reason(root, text) == Term("no_match", (text,))


def test_reasons(sources: Path, tmp_path: Path) -> None:
    assert reason(sources, "*.rb") == Term("no_match", ("*.rb",))
    assert reason(sources) == "no_sources"
    assert reason(sources, "../src/server.py") == Term("outside_source_dir", ("../src/server.py",))
    assert reason(sources, "/etc/passwd") == Term("outside_source_dir", ("/etc/passwd",))
    missing = str(tmp_path / "missing")
    assert reason(missing, "*") == Term("source_dir_not_found", (missing,))
    assert reason(sources, "*.md", needs=["server.py"]) == Term("not_among_sources", ("server.py",))
    os.mkfifo(sources / "pipe")
    assert reason(sources, "pipe") == Term("unsupported_file", ("pipe",))
    tree(sources, {".unifyweaver/manifest": "x"})
    assert reason(sources, ".unifyweaver/*") == Term("reserved_path", (".unifyweaver",))


def test_everything_excluded_is_no_sources(sources: Path) -> None:
    with pytest.raises(SourcesError) as caught:
        scan_sources(str(sources), [Pattern("*.py"), Pattern("*.py", exclude=True)])
    assert caught.value.reason == "no_sources"


def test_a_file_that_cannot_be_read_is_named(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: bytes, status: object) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(files._digests, "digest", refuse)
    assert reason(sources, "server.py") == Term("unreadable", ("server.py", "Permission denied"))


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("up", "../secret"),
        ("absolute", "/etc/passwd"),
        ("static/up", "../../secret"),
        ("static/through", "loop/../../secret"),
    ],
)
def test_a_link_that_leads_outside_is_refused(sources: Path, link: str, target: str) -> None:
    (sources / "static" / "loop").symlink_to(".")
    (sources / link).symlink_to(target)
    assert reason(sources, link) == Term("link_leads_outside", (link,))


def test_a_link_through_another_is_followed_before_it_is_trusted(sources: Path) -> None:
    (sources / "here").symlink_to(".")
    (sources / "static" / "here").symlink_to("..")
    (sources / "trick").symlink_to("static/here/../outside")
    (sources.parent / "outside").write_text("secret")
    assert reason(sources, "trick") == Term("link_leads_outside", ("trick",))


def test_a_link_within_is_kept(sources: Path) -> None:
    (sources / "latest").symlink_to("static/deep")
    scan = scan_sources(str(sources), [Pattern("latest")])
    assert [(e.kind, e.target) for e in scan.entries] == [("l", b"static/deep")]


def hash_of(root: Path, contents: dict[str, str]) -> str:
    return scan_sources(str(tree(root, contents)), [Pattern("**")]).hash


def test_two_files_do_not_hash_like_one_that_holds_both(tmp_path: Path) -> None:
    two = hash_of(tmp_path / "two", {"a": "1", "b": "2"})
    assert two != hash_of(tmp_path / "one", {"a": "1b:2"})
    assert two != hash_of(tmp_path / "joined", {"a": "12", "b": ""})
    assert two != hash_of(tmp_path / "swapped", {"a": "2", "b": "1"})
    assert two != hash_of(tmp_path / "folder", {"a/b": "12"})


def test_binary_files_that_differ_hash_differently(tmp_path: Path) -> None:
    hashes = set()
    for number, content in enumerate([b"\x00", b"\x00\x00", b"\xff\xfe", b"\xff\xfd"]):
        root = tmp_path / str(number)
        root.mkdir()
        (root / "blob").write_bytes(content)
        hashes.add(scan_sources(str(root), [Pattern("blob")]).hash)
    assert len(hashes) == 4


def test_the_executable_bit_and_the_kind_count_but_times_and_umask_do_not(sources: Path) -> None:
    patterns = [Pattern("server.py")]
    plain = scan_sources(str(sources), patterns).hash
    os.utime(sources / "server.py", (1, 1))
    for mode in (0o600, 0o640, 0o664):
        (sources / "server.py").chmod(mode)
        assert scan_sources(str(sources), patterns).hash == plain
    (sources / "server.py").chmod(0o755)
    executable = scan_sources(str(sources), patterns).hash
    (sources / "server.py").chmod(0o700)
    assert scan_sources(str(sources), patterns).hash == executable
    (sources / "server.py").unlink()
    (sources / "server.py").symlink_to("README.md")
    assert len({plain, executable, scan_sources(str(sources), patterns).hash}) == 3


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "ab"]), st.text("ab", max_size=3), min_size=1),
        min_size=2,
        max_size=4,
        unique_by=lambda d: tuple(sorted(d.items())),
    )
)
def test_different_trees_hash_differently(
    tmp_path_factory: pytest.TempPathFactory, trees: list[dict[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("trees")
    hashes = {hash_of(root / str(number), one) for number, one in enumerate(trees)}
    assert len(hashes) == len(trees)


def test_a_change_within_the_time_stamp_is_seen(sources: Path) -> None:
    patterns, path = [Pattern("server.py")], sources / "server.py"
    before = scan_sources(str(sources), patterns).hash
    status = path.stat()
    path.write_text("2")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert scan_sources(str(sources), patterns).hash != before


def test_an_old_file_is_hashed_once(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = digests.DigestCache()
    monkeypatch.setattr(digests, "settled", lambda status, now: True)
    path = os.fsencode(sources / "server.py")
    first, _ = cache.digest(path)
    assert cache.digest(path)[0] == first == hashlib.sha256(b"1").digest()
    assert cache.hashed == 1
    (sources / "server.py").write_text("2")
    assert cache.digest(path)[0] == hashlib.sha256(b"2").digest()


def test_hosts_that_scan_at_once_share_scans(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = []
    real = files.scan_tree

    def counted(*arguments: object) -> object:
        scans.append(1)
        threading.Event().wait(0.2)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "scan_tree", counted)
    scanner = Scanner()
    hashes: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: hashes.append(scanner.scan(str(sources), [Pattern("**")]).hash)
        )
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(hashes) == 20
    assert len(set(hashes)) == 1
    assert len(scans) <= 2


def test_what_was_scanned_can_be_recalled_and_a_change_is_refused(sources: Path) -> None:
    scanner = Scanner()
    patterns = [Pattern("*.py")]
    scan = scanner.scan(str(sources), patterns)
    (sources / "server.py").write_text("changed")
    assert scanner.recall(str(sources), patterns, scan.hash) == scan
    with pytest.raises(SourcesError) as caught:
        Scanner().recall(str(sources), patterns, scan.hash)
    assert caught.value.reason == Term("verification_failed", (str(sources),))


def unpacked(stream: Iterable[bytes], folder: Path) -> Path:
    folder.mkdir()
    subprocess.run(
        ["tar", "-xof", "-", "-C", str(folder)], input=b"".join(stream), check=True, timeout=30
    )
    return folder


def verified(folder: Path) -> bool:
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", ".unifyweaver/manifest"],
        cwd=folder,
        check=False,
        capture_output=True,
        timeout=30,
    )
    return done.returncode == 0


def odd_sources(root: Path) -> Path:
    for number, name in enumerate(ODD_NAMES):
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"content %d" % number)
        os.chmod(path, [0o644, 0o755, 0o600, 0o711][number % 4])
    os.symlink(b"caf\xc3\xa9", os.path.join(os.fsencode(root), b"link\nto"))
    return root


def test_odd_names_arrive_whole_and_are_verified(tmp_path: Path) -> None:
    root = odd_sources(tmp_path / "src")
    scan = scan_sources(str(root), [Pattern("**")])
    extra = Extra(".unifyweaver/start", 0o644, b"run\n")
    folder = unpacked(archive.tar_stream(archive.shipment(scan, [extra])), tmp_path / "out")
    again = scan_sources(str(folder), [Pattern("**")])
    assert again.hash == scan.hash
    assert len(again.entries) == len(ODD_NAMES) + 1
    assert (folder / ".unifyweaver/start").read_text() == "run\n"
    assert verified(folder)
    lines = (folder / ".unifyweaver/manifest").read_bytes().split(b"\n")
    assert b"#link link\\nto\tcaf\xc3\xa9" in lines
    modes = {(folder / os.fsdecode(name)).stat().st_mode & 0o777 for name in ODD_NAMES}
    assert modes == {0o644, 0o755, 0o600, 0o700}


def test_times_are_kept(sources: Path, tmp_path: Path) -> None:
    os.utime(sources / "server.py", (1_000_000_000, 1_000_000_000))
    scan = scan_sources(str(sources), [Pattern("server.py")])
    folder = unpacked(archive.tar_stream(archive.shipment(scan)), tmp_path / "out")
    assert (folder / "server.py").stat().st_mtime == 1_000_000_000


@pytest.mark.parametrize("now", ["", "9", "much longer than before", None])
def test_a_file_changed_after_the_scan_fails_verification(
    sources: Path, tmp_path: Path, now: str | None
) -> None:
    scan = scan_sources(str(sources), [Pattern("*")])
    if now is None:
        (sources / "server.py").unlink()
    else:
        (sources / "server.py").write_text(now)
    folder = unpacked(archive.tar_stream(archive.shipment(scan)), tmp_path / "out")
    assert (folder / "README.md").read_text() == "2"
    assert not verified(folder)


def test_an_unchanged_release_is_verified_and_a_damaged_one_is_not(
    sources: Path, tmp_path: Path
) -> None:
    folder = unpacked(
        archive.tar_stream(archive.shipment(scan_sources(str(sources), [Pattern("**")]))),
        tmp_path / "out",
    )
    assert verified(folder)
    (folder / "lib/x1.py").write_text("!")
    assert not verified(folder)


@given(st.lists(st.binary(max_size=50)), st.integers(1, 20))
def test_blocks_hold_the_same_bytes(chunks: list[bytes], size: int) -> None:
    blocks = list(archive.in_blocks(chunks, size))
    assert b"".join(blocks) == b"".join(chunks)
    assert all(len(block) == size for block in blocks[:-1])


def test_the_stream_is_a_tar_archive_for_python_too(sources: Path) -> None:
    scan = scan_sources(str(sources), [Pattern("lib")])
    with tarfile.open(
        fileobj=io.BytesIO(b"".join(archive.tar_stream(archive.shipment(scan))))
    ) as opened:
        assert opened.getnames() == [
            "lib/x1.py",
            "lib/x2.py",
            "lib/xy.py",
            ".unifyweaver/manifest",
        ]
