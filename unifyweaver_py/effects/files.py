"""The files of a release: what is in them, and their hash.

What is hashed is exactly what is shipped: a `Scan` lists the files once, with the SHA-256 of each,
and the stream is written from that list.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unifyweaver_py.effects.patterns import Pattern, SourcesError, Walk, components, printable, why

CHUNK = 1 << 18
RACY_NS = 2_000_000_000
REMEMBERED_SCANS = 64
CACHED_DIGESTS = 200_000

Stat = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Entry:
    """One shipped file: `kind` is `f` (file), `x` (executable file) or `l` (symbolic link)."""

    path: bytes
    kind: str
    size: int
    mtime: float
    digest: bytes
    target: bytes = b""
    mode: int = 0o777

    @property
    def shipped_mode(self) -> int:
        """As umask 022 would have it; what others may not do at the source, they may not there."""
        return (0o755 if self.kind == "x" else 0o644) & (self.mode | 0o700)


@dataclass(frozen=True)
class Scan:
    """The files that the patterns name, sorted by path, and the hash of their paths, kinds and
    contents.
    """

    root: bytes
    entries: tuple[Entry, ...]
    hash: str
    size: int


class DigestCache:
    """SHA-256 of file contents, kept in memory as long as size, times and inode stay the same.

    A file changed within two seconds before it was hashed could change again without a new time
    stamp: it is hashed again the next time.
    """

    def __init__(self) -> None:
        self._digests: OrderedDict[bytes, tuple[Stat, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self.hashed = 0

    def digest(self, path: bytes) -> tuple[bytes, os.stat_result]:
        """The content's SHA-256 and the `fstat` of the file it was read from."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:
            before = os.fstat(descriptor)
            key = _identity(before)
            with self._lock:
                known = self._digests.get(path)
            if known is not None and known[0] == key:
                return known[1], before
            return self._hash(path, file.fileno())

    def _hash(self, path: bytes, descriptor: int) -> tuple[bytes, os.stat_result]:
        now = time.time_ns()
        digest = hashlib.sha256()
        while block := os.read(descriptor, CHUNK):
            digest.update(block)
        status = os.fstat(descriptor)
        with self._lock:
            self.hashed += 1
            if max(status.st_mtime_ns, status.st_ctime_ns) + RACY_NS < now:
                self._digests[path] = (_identity(status), digest.digest())
                while len(self._digests) > CACHED_DIGESTS:
                    self._digests.popitem(last=False)
        return digest.digest(), status


def _identity(status: os.stat_result) -> Stat:
    return (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_dev,
    )


_digests = DigestCache()


def _entry(root: bytes, real_root: bytes, path: bytes, status: os.stat_result) -> Entry:
    full = os.path.join(root, path)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(full)
        _check_link(root, real_root, path, target)
        return Entry(path, "l", 0, status.st_mtime, b"", target)
    if not stat.S_ISREG(status.st_mode):
        raise SourcesError("unsupported_file", printable(path))
    try:
        digest, read = _digests.digest(full)
    except OSError as error:
        raise SourcesError("unreadable", printable(path), why(error)) from error
    kind = "x" if read.st_mode & 0o111 else "f"
    return Entry(path, kind, read.st_size, read.st_mtime, digest, mode=stat.S_IMODE(read.st_mode))


def _check_link(root: bytes, real_root: bytes, path: bytes, target: bytes) -> None:
    """Refuses a link that leads out of the sources, as written or with all links followed."""
    written = os.path.normpath(os.path.join(os.path.dirname(path), target))
    outside = target.startswith(b"/") or written == b".." or written.startswith(b"../")
    real = os.path.realpath(os.path.join(root, path))
    if outside or not (real == real_root or real.startswith(real_root.rstrip(b"/") + b"/")):
        raise SourcesError("link_leads_outside", printable(path))


def _sized(value: bytes) -> bytes:
    return len(value).to_bytes(8, "big") + value


def release_hash(entries: Iterable[Entry]) -> str:
    """SHA-256, hex, over kind, path and content (or link target) of each entry, each with its
    length.
    """
    total = hashlib.sha256()
    for entry in entries:
        total.update(entry.kind.encode() + _sized(entry.path))
        if entry.kind == "l":
            total.update(_sized(entry.target))
        else:
            total.update(entry.size.to_bytes(8, "big") + entry.digest)
    return total.hexdigest()


class _Turn:
    """Lets many callers share one scan: whoever comes while one runs waits for the next, which all
    share.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begun = 0
        self.ended: tuple[int, Scan | SourcesError] | None = None


class Scanner:
    """Scans source folders, and remembers the last scans so that what was hashed can be shipped."""

    def __init__(self) -> None:
        self._turns: dict[tuple[str, tuple[Pattern, ...]], _Turn] = {}
        self._known: OrderedDict[tuple[str, tuple[Pattern, ...], str], Scan] = OrderedDict()
        self._lock = threading.Lock()

    def scan(self, folder: str, patterns: Sequence[Pattern], needs: Sequence[str] = ()) -> Scan:
        """The files that `patterns` name in `folder`. Every path of `needs` must be among them.

        Raises `SourcesError` with the reasons no_match(Pattern), no_sources,
        outside_source_dir(Path), link_leads_outside(Path), not_among_sources(Path),
        reserved_path(Path), source_dir_not_found(Dir), unreadable(Path, Why),
        unsupported_file(Path).
        """
        scan = self._shared(folder, tuple(patterns))
        paths = {entry.path for entry in scan.entries}
        for need in needs:
            if os.fsencode("/".join(components(Pattern(need)))) not in paths:
                raise SourcesError("not_among_sources", need)
        return scan

    def recall(self, folder: str, patterns: Sequence[Pattern], expected: str) -> Scan:
        """The scan that gave the hash `expected`, made again if it was forgotten.

        Raises `SourcesError` verification_failed(Dir) when the sources have another hash by now.
        """
        with self._lock:
            known = self._known.get((folder, tuple(patterns), expected))
        if known is not None:
            return known
        scan = self.scan(folder, patterns)
        if scan.hash != expected:
            raise SourcesError("verification_failed", folder)
        return scan

    def _shared(self, folder: str, patterns: tuple[Pattern, ...]) -> Scan:
        with self._lock:
            turn = self._turns.setdefault((folder, patterns), _Turn())
            wanted = turn.begun + 1
        with turn.lock:
            if turn.ended is None or turn.ended[0] < wanted:
                turn.ended = self._take_turn(turn, folder, patterns)
            result = turn.ended[1]
        if isinstance(result, SourcesError):
            raise result
        return result

    def _take_turn(
        self, turn: _Turn, folder: str, patterns: tuple[Pattern, ...]
    ) -> tuple[int, Scan | SourcesError]:
        with self._lock:
            turn.begun += 1
            number = turn.begun
        try:
            scan = scan_sources(folder, patterns)
        except SourcesError as error:
            return number, error
        with self._lock:
            self._known[(folder, patterns, scan.hash)] = scan
            self._known.move_to_end((folder, patterns, scan.hash))
            while len(self._known) > REMEMBERED_SCANS:
                self._known.popitem(last=False)
        return number, scan


def scan_sources(folder: str, patterns: Sequence[Pattern]) -> Scan:
    """One scan of the folder, now; `Scanner.scan` says what it raises."""
    root = os.fsencode(folder)
    if not os.path.isdir(root):
        raise SourcesError("source_dir_not_found", folder)
    real_root = os.path.realpath(root)
    found = Walk(root, patterns).files()
    if not found:
        raise SourcesError("no_sources")
    entries = tuple(_entry(root, real_root, path, found[path]) for path in sorted(found))
    size = sum(entry.size for entry in entries)
    return Scan(root, entries, release_hash(entries), size)
