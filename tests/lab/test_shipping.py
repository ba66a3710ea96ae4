"""What travels to a host that already has a release, and what becomes of it there."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.effects.test_files import odd_sources
from tests.lab.lab import Host, Lab
from tests.site import Site
from unifyweaver_py import effects
from unifyweaver_py.effects.files import scan_sources
from unifyweaver_py.effects.patterns import Pattern

FILES = 60
SIZE = 50_000
SCRIPTS = 150_000  # the text of all scripts of a deployment, and what they report, at most
GATE = 75_000  # those of the first of several hosts beside
EVERYTHING = [Pattern("**")]


class Shipping:
    """A site of 60 files, 3 MB, and the traffic of its last deployment."""

    def __init__(self, folder: Path, lab: Lab, runs: list[effects.Run]) -> None:
        self.site = Site(folder)
        self.folder = folder
        self.lab = lab
        self.host = lab.hosts[0]
        self._runs = runs
        random_bytes = random.Random(1).randbytes
        for number in range(FILES):
            path = folder / f"package{number % 7}" / f"file{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(random_bytes(SIZE))
        self.declare()

    def declare(self, **options: object) -> None:
        settings: dict[str, object] = {
            "user": "root",
            "key_file": str(self.lab.key_file),
            "agent": False,
            "known_hosts": str(self.lab.known_hosts),
            "remote_dir": "/srv/services",
            "port": 8080,
            "healthy_deadline": 10,
        }
        self.site.declare({self.host.address: {}}, **{**settings, **options})

    def deploy(self, **options: object) -> uw.Result:
        return self.site.deploy(**options)

    def succeed(self) -> int:
        """Deploy; the host then holds what the folder holds. The answer is the bytes sent."""
        result = self.deploy()
        assert str(result) == "deployed", (str(result), result.events)
        here = scan_sources(str(self.folder), EVERYTHING)
        there = scan_sources(str(self.current), EVERYTHING)
        assert there.hash == here.hash
        self.verify(self.current)
        return self.sent

    @property
    def sent(self) -> int:
        return self._runs[-1].traffic_of(self.host.address).bytes_sent

    @property
    def releases(self) -> Path:
        return self.host.srv / "services/web/releases"

    @property
    def current(self) -> Path:
        return self.releases / Path(os.readlink(self.host.srv / "services/web/current")).name

    def verify(self, release: Path) -> None:
        """The release is what its manifest says, and nothing is left of its making."""
        subprocess.run(
            ["sha256sum", "-c", "--strict", "--quiet", ".unifyweaver/manifest"],
            cwd=release,
            check=True,
            capture_output=True,
        )
        left = {path.name for path in (release / ".unifyweaver").iterdir()}
        assert left == {"manifest", "start", "port"}
        assert not list(self.releases.glob(".partial-*"))


WHOLE = FILES * SIZE


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[effects.Run]:
    """The runs of the operations so far."""
    begun: list[effects.Run] = []
    new_run = effects.new_run

    def begin(*arguments: Callable[[object], object]) -> effects.Run:
        begun.append(new_run(*arguments))
        return begun[-1]

    monkeypatch.setattr(effects, "new_run", begin)
    return begun


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIFYWEAVER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "manifests"


@pytest.fixture
def shipping(lab: Lab, tmp_path: Path, runs: list[effects.Run], cache: Path) -> Iterator[Shipping]:
    effects.set_ledger(tmp_path / "ledger.sqlite3")
    yield Shipping(tmp_path / "site", lab, runs)
    uw.undeclare_service("web")
    effects.set_ledger(None)


def test_only_what_differs_is_sent(shipping: Shipping) -> None:
    assert shipping.succeed() > WHOLE
    shipping.site.release("2")
    assert shipping.succeed() < SCRIPTS
    (shipping.folder / "package1/file1").write_bytes(os.urandom(SIZE))
    sent = shipping.succeed()
    assert SIZE < sent < SIZE + SCRIPTS


def test_a_difference_takes_no_more_connections_or_execs(shipping: Shipping) -> None:
    shipping.succeed()
    shipping.site.release("2")
    host = shipping.host
    before = host.connections, host.execs
    shipping.succeed()
    assert (host.connections - before[0], host.execs - before[1]) <= (1, 4)
    before = host.connections, host.execs
    assert str(shipping.deploy()) == "unchanged"
    assert (host.connections - before[0], host.execs - before[1]) == (1, 1)


@pytest.mark.parametrize("link", [False, True])
def test_every_kind_of_change_arrives(shipping: Shipping, link: bool) -> None:
    folder = shipping.folder
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "link").symlink_to("tool")
    (folder / "kept link").symlink_to("package2")
    (folder / "was file").write_text("file")
    (folder / "was folder").mkdir()
    (folder / "was folder/inside").write_text("inside")
    (folder / "was link").symlink_to("tool")
    shipping.declare(link_unchanged=link)
    shipping.succeed()
    first = shipping.current
    contents = {path.name: path.read_bytes() for path in first.iterdir() if path.is_file()}
    shipping.site.release("2")
    (folder / "package1/file1").write_bytes(b"changed")
    (folder / "package2/file2").unlink()
    (folder / "package2/added").write_text("added")
    (folder / "tool").chmod(0o755)
    (folder / "package3/file3").chmod(0o755)
    (folder / "link").unlink()
    (folder / "link").symlink_to("package1/file1")
    (folder / "was file").unlink()
    (folder / "was file").mkdir()
    (folder / "was file/inside").write_text("file")
    (folder / "was folder/inside").unlink()
    (folder / "was folder").rmdir()
    (folder / "was folder").write_text("inside")
    (folder / "was link").unlink()
    (folder / "was link").write_text("#!/bin/sh\n")
    assert shipping.succeed() < WHOLE / 4
    second = shipping.current
    assert os.readlink(second / "link") == "package1/file1"
    assert os.readlink(second / "kept link") == "package2"
    assert not (second / "package2/file2").exists()
    assert (second / "tool").stat().st_mode & 0o777 == 0o755
    assert (first / "tool").stat().st_mode & 0o777 == 0o644
    assert {path.name: path.read_bytes() for path in first.iterdir() if path.is_file()} == contents
    shipping.verify(first)
    (folder / "tool").chmod(0o644)
    (folder / "was link").unlink()
    (folder / "was link").symlink_to("tool")
    assert shipping.succeed() < WHOLE / 4
    assert str(uw.rollback_service("web")).startswith("rolled_back(")
    shipping.verify(second)


@pytest.mark.parametrize("link", [False, True])
def test_odd_names_are_reused_whole(shipping: Shipping, link: bool) -> None:
    folder = shipping.folder / "odd"
    odd_sources(folder)
    (folder / "#link trap").write_text("x")
    (folder / "tab\tlink\\n").symlink_to("tab\there")
    shipping.declare(link_unchanged=link)
    shipping.succeed()
    shipping.site.release("2")
    assert shipping.succeed() < SCRIPTS
    (folder / "new\nline").write_text("other")
    (folder / "-rf").unlink()
    assert shipping.succeed() < SCRIPTS
    assert not (shipping.host.srv / "owned").exists()


def test_linked_files_share_their_inodes_and_copied_ones_do_not(shipping: Shipping) -> None:
    def inode(release: Path) -> int:
        return (release / "package1/file1").stat().st_ino

    shipping.succeed()
    first = shipping.current
    shipping.site.release("2")
    shipping.succeed()
    second = shipping.current
    assert inode(first) != inode(second)
    shipping.declare(link_unchanged=True)
    shipping.site.release("3")
    shipping.succeed()
    third = shipping.current
    assert inode(second) == inode(third)
    assert (second / "VERSION").stat().st_ino != (third / "VERSION").stat().st_ino
    before = (second / "package1/file1").stat()
    shipping.declare(link_unchanged=True, prepare_command="echo changed > package1/file1")
    shipping.site.release("4")
    assert str(shipping.deploy()) == "deployed"
    assert (shipping.current / "package1/file1").read_text() == "changed\n"
    assert (second / "package1/file1").stat().st_mtime_ns == before.st_mtime_ns
    shipping.verify(second)


def test_what_a_preparation_changed_is_sent_again_and_nothing_else(shipping: Shipping) -> None:
    prepare = "echo prepared >> package1/file1; touch package1/made"
    shipping.declare(prepare_command=prepare)
    for version in ("1", "2", "3"):
        shipping.site.release(version)
        before = shipping.host.execs
        assert str(shipping.deploy()) == "deployed"
        assert shipping.host.execs - before <= 4
        prepared = (shipping.current / "package1/file1").read_bytes()
        assert prepared == (shipping.folder / "package1/file1").read_bytes() + b"prepared\n"
        if version != "1":
            assert SIZE < shipping.sent < SIZE + SCRIPTS
    shipping.declare()
    shipping.site.release("4")
    assert SIZE < shipping.succeed() < SIZE + SCRIPTS
    assert not (shipping.current / "package1/made").exists()
    shipping.site.release("5")
    assert shipping.succeed() < SCRIPTS


def test_what_was_shared_is_not_reused(shipping: Shipping) -> None:
    shipping.declare(shared_paths=["package1"])
    assert str(shipping.deploy()) == "deployed"
    shared = shipping.host.srv / "services/web/shared/package1"
    old = 1_000_000_000
    for number in range(FILES):
        if number % 7 == 1:
            path = shared / f"file{number}"
            path.write_bytes(bytes(SIZE))
            os.utime(path, (old, old))
    shipping.declare()
    shipping.site.release("2")
    assert 9 * SIZE < shipping.succeed() < 9 * SIZE + 200_000


def test_shared_paths_cost_only_what_is_in_them(shipping: Shipping) -> None:
    shipping.declare(shared_paths=["package1"])
    assert str(shipping.deploy()) == "deployed"
    shipping.site.release("2")
    before = shipping.host.execs
    assert str(shipping.deploy()) == "deployed"
    assert shipping.host.execs - before <= 4
    assert 9 * SIZE < shipping.sent < 9 * SIZE + 200_000


def remove(path: Path) -> None:
    path.unlink()


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(SIZE))


def shorten(path: Path) -> None:
    """As after a crash: the time stamp is there, the content is not."""
    status = path.stat()
    os.truncate(path, 0)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def make_executable(path: Path) -> None:
    path.chmod(0o755)


def make_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("file8")


def link_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")


@pytest.mark.parametrize("damage", [remove, overwrite, make_link])
def test_of_a_damaged_release_only_what_is_whole_is_reused(
    shipping: Shipping, damage: Callable[[Path], None]
) -> None:
    shipping.succeed()
    damage(shipping.current / "package1/file1")
    shipping.site.release("2")
    before = shipping.host.execs
    assert SIZE < shipping.succeed() < SIZE + SCRIPTS
    assert shipping.host.execs - before <= 4


def test_a_folder_that_became_a_link_is_sent_again(shipping: Shipping) -> None:
    shipping.succeed()
    link_folder(shipping.current / "package1/file1")
    shipping.site.release("2")
    assert 9 * SIZE < shipping.succeed() < 9 * SIZE + 200_000


@pytest.mark.parametrize("damage", [shorten, make_executable])
def test_after_damage_that_no_time_stamp_tells_everything_is_sent(
    shipping: Shipping, damage: Callable[[Path], None]
) -> None:
    shipping.succeed()
    damage(shipping.current / "package1/file1")
    shipping.site.release("2")
    assert shipping.succeed() > WHOLE


@pytest.mark.parametrize("manifest", ["", "nonsense\n", None])
def test_without_its_manifest_nothing_is_built_on_a_release(
    shipping: Shipping, manifest: str | None
) -> None:
    shipping.succeed()
    path = shipping.current / ".unifyweaver/manifest"
    if manifest is None:
        path.unlink()
    else:
        path.write_text(manifest)
    shipping.site.release("2")
    assert shipping.succeed() > WHOLE


def test_a_release_lost_while_the_difference_was_on_its_way(shipping: Shipping) -> None:
    shipping.succeed()
    old = shipping.current
    shipping.site.release("2")

    def lose(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin) and "stage" in event.steps and (old / "package1").exists():
            subprocess.run(["rm", "-r", str(old / "package1")], check=True)

    result = shipping.deploy(on_event=lose)
    assert str(result) == "deployed"
    assert [str(e.outcome) for e in result.events if e.step == "stage"] == [
        "failed(base_unusable)",
        "ok",
    ]
    shipping.verify(shipping.current)


def test_with_the_cache_lost_everything_is_sent(shipping: Shipping, cache: Path) -> None:
    shipping.succeed()
    for file in cache.iterdir():
        file.unlink()
    shipping.site.release("2")
    assert shipping.succeed() > WHOLE
    shipping.site.release("3")
    assert shipping.succeed() < SCRIPTS


@pytest.mark.parametrize("poison", [b"", b"poison", "other"])
def test_a_poisoned_cache_is_not_believed(
    shipping: Shipping, cache: Path, poison: bytes | str
) -> None:
    shipping.succeed()
    (shipping.folder / "package1/file1").write_bytes(bytes(SIZE))
    shipping.succeed()
    first, second = sorted(cache.iterdir(), key=lambda file: file.stat().st_mtime_ns)[-2:]
    content = first.read_bytes() if isinstance(poison, str) else poison
    for file in (first, second):
        file.write_bytes(content)
    shipping.site.release("3")
    assert shipping.succeed() > WHOLE


def test_a_cache_that_cannot_be_written_costs_only_bytes(shipping: Shipping, cache: Path) -> None:
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file where the folder should be")
    shipping.succeed()
    shipping.site.release("2")
    assert shipping.succeed() > WHOLE


def test_a_host_without_a_base_gets_everything_beside_one_that_has_it(
    shipping: Shipping, runs: list[effects.Run]
) -> None:
    shipping.succeed()
    other = shipping.lab.hosts[1]
    uw.declare_service_hosts("web", {shipping.host.address: {}, other.address: {}})
    shipping.site.release("2")
    assert shipping.succeed() < SCRIPTS + GATE
    assert runs[-1].traffic_of(other.address).bytes_sent > WHOLE


def test_a_full_disk_while_copying_leaves_the_active_release(shipping: Shipping) -> None:
    host: Host = shipping.host
    host.limit_disk(5)
    shipping.succeed()
    before = shipping.current
    shipping.site.release("2")
    assert str(shipping.deploy()) == "error(deployment_failed(no_space))"
    assert shipping.current == before
    shipping.verify(before)
    assert list(shipping.releases.iterdir()) == [before]
    shipping.declare(link_unchanged=True)
    assert shipping.succeed() < SCRIPTS


def test_a_file_edited_while_the_difference_is_sent_is_refused(shipping: Shipping) -> None:
    shipping.succeed()
    before = shipping.current
    shipping.site.release("2")

    def edit(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin) and "stage" in event.steps:
            (shipping.folder / "VERSION").write_text("3")

    result = shipping.deploy(on_event=edit)
    assert "verification_failed('VERSION')" in str(result)
    assert shipping.current == before
    assert list(shipping.releases.iterdir()) == [before]


def test_an_edited_reused_file_is_shipped_next_time(shipping: Shipping) -> None:
    shipping.succeed()
    shipping.site.release("2")

    def edit(event: uw.Event | uw.Begin) -> None:
        if isinstance(event, uw.Begin) and "stage" in event.steps:
            (shipping.folder / "package1/file1").write_bytes(bytes(SIZE))

    assert str(shipping.deploy(on_event=edit)) == "deployed"
    shipping.verify(shipping.current)
    assert SIZE < shipping.succeed() < SIZE + SCRIPTS


def test_after_a_rollback_the_difference_is_to_what_is_active(shipping: Shipping) -> None:
    shipping.succeed()
    (shipping.folder / "package1/file1").write_bytes(bytes(SIZE))
    shipping.succeed()
    assert str(uw.rollback_service("web")).startswith("rolled_back(")
    shipping.site.release("3")
    assert SIZE < shipping.succeed() < SIZE + SCRIPTS
