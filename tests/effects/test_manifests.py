"""What differs between two manifests, and the manifests that are remembered."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unifyweaver_py.effects import archive
from unifyweaver_py.effects.archive import Base, Extra
from unifyweaver_py.effects.files import scan_sources
from unifyweaver_py.effects.manifests import (
    ManifestCache,
    difference,
    file_line,
    joined,
    link_line,
)
from unifyweaver_py.effects.patterns import Pattern

DIGESTS = st.sampled_from([bytes([number]) * 32 for number in range(3)])
TREES = st.dictionaries(st.text("abc/\n\\", min_size=1, max_size=4), DIGESTS, max_size=12)


def lines_of(tree: dict[str, bytes]) -> list[bytes]:
    paths = sorted((path.encode(), digest) for path, digest in tree.items())
    return [file_line(path, digest) for path, digest in paths]


def applied(script: bytes, old: list[bytes]) -> list[bytes]:
    """What the target makes of it."""
    made: list[bytes] = []
    rest = list(old)
    for step in script.splitlines():
        if step.startswith(b"+"):
            made.append(step[1:])
            continue
        count = int(step[1:])
        assert count <= len(rest)
        made += rest[:count] if step.startswith(b"=") else []
        del rest[:count]
    return made


@given(TREES, TREES, st.data())
def test_a_difference_makes_the_new_manifest_of_the_old(
    old: dict[str, bytes], new: dict[str, bytes], data: st.DataObject
) -> None:
    before, after = lines_of(old), lines_of(new)
    reusable = data.draw(st.sets(st.integers(0, len(after))))
    found = difference(before, after, reusable)
    assert applied(found.script, before) == after
    shared = {at for at, line in enumerate(after) if line in before and at in reusable}
    assert found.kept == shared


def test_a_manifest_in_another_order_is_still_made_right() -> None:
    before = lines_of({"a": b"1" * 32, "b": b"2" * 32, "c": b"3" * 32})
    found = difference(before[::-1], before, {0, 1, 2})
    assert applied(found.script, before[::-1]) == before


def test_a_small_difference_is_short() -> None:
    before = lines_of({f"file{number}": bytes(32) for number in range(10_000)})
    after = list(before)
    after[5000] = file_line(b"file5499", b"x" * 32)
    assert len(difference(before, after, range(len(after))).script) < 200


def test_a_line_tells_the_executable_and_the_link(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("x")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "text").write_text("x")
    (tmp_path / "to\ttool").symlink_to("tool")
    digest = hashlib.sha256(b"x").hexdigest()
    shipped = archive.shipment(scan_sources(str(tmp_path), [Pattern("**")]))
    assert shipped.manifest.decode().splitlines() == [
        f"{digest}  text",
        "#link to\\ttool\ttool",
        f"{digest} *tool",
    ]
    (tmp_path / "manifest").write_bytes(shipped.manifest)
    subprocess.run(["sha256sum", "-c", "--strict", "manifest"], cwd=tmp_path, check=True)


def test_the_mark_of_a_link_is_not_a_file_of_that_name() -> None:
    assert not file_line(b"#link a\tb", bytes(32)).startswith(b"#")
    assert link_line(b"a\n", b"b\t") == b"#link a\\n\tb\\t"


@pytest.fixture
def cache(tmp_path: Path) -> ManifestCache:
    return ManifestCache(tmp_path)


def test_a_manifest_is_found_by_its_digest(cache: ManifestCache, tmp_path: Path) -> None:
    cache.put(b"text\n")
    digest = hashlib.sha256(b"text\n").hexdigest()
    assert ManifestCache(tmp_path).get(digest) == b"text\n"
    (tmp_path / "manifests" / digest).write_bytes(b"other\n")
    assert cache.get(digest) is None
    cache.put(b"text\n")
    assert cache.get(digest) == b"text\n"


@pytest.mark.parametrize("name", ["", "..", "../secret", "0" * 63, "0" * 64 + "\n", "A" * 64])
def test_what_is_no_digest_names_no_file(cache: ManifestCache, tmp_path: Path, name: str) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "secret").write_text("x")
    assert cache.get(name) is None


def test_only_so_many_are_kept_and_none_is_left_half_written(
    cache: ManifestCache, tmp_path: Path
) -> None:
    for number in range(80):
        cache.put(b"%d\n" % number)
        os.utime(next(iter((tmp_path / "manifests").iterdir())))
    names = [path.name for path in (tmp_path / "manifests").iterdir()]
    assert len(names) == 64
    assert all(len(name) == 64 for name in names)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name)
    return folder


def shipped(folder: Path, cache: ManifestCache, base: Base | None) -> archive.Shipment:
    scan = scan_sources(str(folder), [Pattern("**")])
    extra = Extra(".unifyweaver/port", 0o644, b"80\n")
    return archive.shipment(scan, [extra], base, cache)


def test_a_known_base_lets_only_the_rest_travel(sources: Path, cache: ManifestCache) -> None:
    first = shipped(sources, cache, None)
    base = Base("old", hashlib.sha256(first.manifest).hexdigest())
    (sources / "b").write_text("changed")
    second = shipped(sources, cache, base)
    assert [entry.path for entry in second.sent()] == [b"b"]
    control = second.control()
    assert control.path == ".unifyweaver/difference"
    first_line, script = control.content.split(b"\n", 1)
    assert first_line.split()[4:] == [b"3", b"9"]
    assert joined(applied(script, first.manifest.splitlines())) == second.manifest


def test_what_is_added_to_a_release_always_travels(sources: Path, cache: ManifestCache) -> None:
    first = shipped(sources, cache, None)
    base = Base("old", hashlib.sha256(first.manifest).hexdigest())
    second = shipped(sources, cache, base)
    assert second.sent() == []
    assert [extra.path for extra in second.extras] == [".unifyweaver/port"]
    assert b"\n+" in second.control().content


@pytest.mark.parametrize("digest", ["0" * 64, "", "nonsense"])
def test_everything_travels_when_the_base_is_not_known(
    sources: Path, cache: ManifestCache, digest: str
) -> None:
    shipped(sources, cache, None)
    whole = shipped(sources, cache, Base("old", digest))
    assert len(whole.sent()) == 3
    assert whole.control().path == ".unifyweaver/manifest"


def test_nothing_shared_is_no_difference(sources: Path, cache: ManifestCache) -> None:
    first = shipped(sources, cache, None)
    for name in "abc":
        (sources / name).write_text("other")
    base = Base("old", hashlib.sha256(first.manifest).hexdigest())
    assert shipped(sources, cache, base).difference is None
