"""The files of a release: which ones the patterns name, their hash, and the tar stream that ships
them.

What is hashed is exactly what is shipped: a `Scan` lists the files once, with the SHA-256 of each,
and the stream is written from that list. A file edited afterwards no longer fits the manifest in
the stream, and the target refuses it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import tarfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from unifyweaver_py._terms import Term

RESERVED = ".unifyweaver"
CHUNK = 1 << 18
RACY_NS = 2_000_000_000
REMEMBERED_SCANS = 64
CACHED_DIGESTS = 200_000

Stat = tuple[int, int, int, int, int]


class SourcesError(Exception):
    """The sources cannot be shipped; `reason` is the term that says why."""

    def __init__(self, name: str, *culprits: str) -> None:
        super().__init__(f"{name}: {', '.join(culprits)}" if culprits else name)
        self.reason: str | Term = Term(name, culprits) if culprits else name


@dataclass(frozen=True)
class Pattern:
    """One source pattern: `*`, `?`, `[...]`, `**`; `exclude` takes away what it matches.

    Wildcards do not match a leading dot. A pattern without wildcards may also name a folder:
    everything in it that does not begin with a dot. An excluding pattern that matches a folder
    excludes all in it.
    """

    text: str
    exclude: bool = False


@dataclass(frozen=True)
class Entry:
    """One shipped file: `kind` is `f` (file), `x` (executable file) or `l` (symbolic link)."""

    path: bytes
    kind: str
    size: int
    mtime: float
    digest: bytes
    target: bytes = b""


@dataclass(frozen=True)
class Scan:
    """The files that the patterns name, sorted by path, and the hash of their paths, kinds and
    contents.
    """

    root: bytes
    entries: tuple[Entry, ...]
    hash: str
    size: int


@dataclass(frozen=True)
class Extra:
    """A file of the release that is not among the sources: its text is given."""

    path: str
    mode: int
    content: bytes


def printable(path: bytes) -> str:
    r"""The path as text that can be shown: bytes that are not UTF-8 appear as `\xNN`."""
    return path.decode("utf-8", "backslashreplace")


# ---- patterns -> paths


@lru_cache(maxsize=4096)
def _component_regex(component: str) -> re.Pattern[str]:
    shell = component.replace("[^", "[!")
    hidden = "" if component.startswith(".") else r"(?!\.)"
    return re.compile(hidden + translate(re.sub(r"\*+", "*", shell)))


def _has_wildcard(text: str) -> bool:
    return any(character in text for character in "*?[")


def components(pattern: Pattern) -> tuple[str, ...]:
    """The pattern's parts between slashes, without `.` and empty ones.

    Raises `SourcesError` `outside_source_dir` for an absolute pattern and for one with `..`.
    """
    parts = tuple(part for part in pattern.text.split("/") if part not in ("", "."))
    if pattern.text.startswith("/") or ".." in parts:
        raise SourcesError("outside_source_dir", pattern.text)
    return parts


class _Glob:
    """A pattern that is followed component by component; a state is the set of positions reached so
    far.
    """

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.parts = components(pattern)
        self.whole_folder = pattern.exclude or not _has_wildcard(pattern.text)
        self.start = self._closure({0})
        self.end = len(self.parts)

    def _closure(self, positions: set[int]) -> frozenset[int]:
        reached = set(positions)
        for position, part in enumerate(self.parts[:-1]):
            if position in reached and part == "**":
                reached.add(position + 1)
        return frozenset(reached)

    def enter(self, state: frozenset[int], name: str) -> frozenset[int]:
        """The state after the folder or file called `name`."""
        reached = set()
        for position in state:
            if position >= self.end:
                continue
            part = self.parts[position]
            if part == "**":
                if not name.startswith("."):
                    reached.add(position)
                    reached.update({self.end} if position + 1 == self.end else ())
            elif _component_regex(part).match(name):
                reached.add(position + 1)
        return self._closure(reached)

    def matches_file(self, state: frozenset[int]) -> bool:
        return self.end in state

    def matches_folder(self, state: frozenset[int]) -> bool:
        return self.whole_folder and self.end in state and bool(self.parts)


@dataclass
class _Following:
    """Where the walk stands in one pattern: its state, or `whole` once a folder was named."""

    index: int
    state: frozenset[int]
    whole: bool = False


class _Walk:
    """Finds the files that the patterns name; only enters folders that a pattern can lead into."""

    def __init__(self, root: bytes, patterns: Sequence[Pattern]) -> None:
        self.root = root
        self.included = [_Glob(pattern) for pattern in patterns if not pattern.exclude]
        self.excluded = [_Glob(pattern) for pattern in patterns if pattern.exclude]
        self.found: dict[bytes, os.stat_result] = {}
        self.used = [False] * len(self.included)

    def files(self) -> dict[bytes, os.stat_result]:
        """Relative path and `lstat` of each file. Raises `SourcesError`."""
        following = [
            _Following(index, glob.start, whole=not glob.parts)
            for index, glob in enumerate(self.included)
        ]
        self._enter(b"", following, [glob.start for glob in self.excluded])
        for used, glob in zip(self.used, self.included, strict=True):
            if not used:
                raise SourcesError("no_match", glob.pattern.text)
        return self.found

    def _enter(
        self, folder: bytes, following: list[_Following], excluded: list[frozenset[int]]
    ) -> None:
        for item in _listing(self.root, folder):
            name = os.fsdecode(item.name)
            ahead = self._advance(following, name)
            if not ahead:
                continue
            path = folder + b"/" + item.name if folder else item.name
            taken = [
                glob.enter(state, name) for glob, state in zip(self.excluded, excluded, strict=True)
            ]
            self._visit(path, item, ahead, taken)

    def _advance(self, following: list[_Following], name: str) -> list[_Following]:
        ahead = []
        for one in following:
            if one.whole:
                if not name.startswith("."):
                    ahead.append(one)
                continue
            glob = self.included[one.index]
            state = glob.enter(one.state, name)
            if state:
                ahead.append(_Following(one.index, state, glob.matches_folder(state)))
        return ahead

    def _visit(
        self,
        path: bytes,
        item: os.DirEntry[bytes],
        ahead: list[_Following],
        taken: list[frozenset[int]],
    ) -> None:
        gone = any(
            glob.end in state and glob.parts
            for glob, state in zip(self.excluded, taken, strict=True)
        )
        folder = item.is_dir(follow_symlinks=False)
        matching = [] if folder else self._matching(ahead)
        for one in matching:
            self.used[one.index] = True
        if gone or not (folder or matching):
            return
        if path == os.fsencode(RESERVED):
            raise SourcesError("reserved_path", printable(path))
        if folder:
            self._enter(path, ahead, taken)
        else:
            self.found[path] = _lstat(self.root, path)

    def _matching(self, ahead: list[_Following]) -> list[_Following]:
        return [
            one for one in ahead if one.whole or self.included[one.index].matches_file(one.state)
        ]


def _listing(root: bytes, folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(os.path.join(root, folder)) as items:
            return list(items)
    except OSError as error:
        raise SourcesError("unreadable", printable(folder or root), _why(error)) from error


def _lstat(root: bytes, path: bytes) -> os.stat_result:
    try:
        return os.lstat(os.path.join(root, path))
    except OSError as error:
        raise SourcesError("unreadable", printable(path), _why(error)) from error


def _why(error: OSError) -> str:
    return error.strerror or errno.errorcode.get(error.errno or 0, type(error).__name__)


# ---- contents


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
        raise SourcesError("unreadable", printable(path), _why(error)) from error
    kind = "x" if read.st_mode & 0o111 else "f"
    return Entry(path, kind, read.st_size, read.st_mtime, digest)


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


# ---- scanning


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
    found = _Walk(root, patterns).files()
    if not found:
        raise SourcesError("no_sources")
    entries = tuple(_entry(root, real_root, path, found[path]) for path in sorted(found))
    size = sum(entry.size for entry in entries)
    return Scan(root, entries, release_hash(entries), size)


# ---- shipping


def _escaped(path: bytes, *also: tuple[bytes, bytes]) -> bytes:
    for plain, written in ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"), *also):
        path = path.replace(plain, written)
    return path


def manifest_line(path: bytes, digest: bytes) -> bytes:
    """One line that `sha256sum -c` reads: a name with a backslash or a line end is escaped and
    marked.
    """
    name = b"./-" if path == b"-" else path
    written = _escaped(name)
    mark = b"\\" if written != name else b""
    return mark + digest.hex().encode() + b"  " + written + b"\n"


def links_line(entry: Entry) -> bytes:
    """One line `link TAB target`; a backslash, line end or tab in them is escaped."""
    tab = (b"\t", b"\\t")
    return _escaped(entry.path, tab) + b"\t" + _escaped(entry.target, tab) + b"\n"


def manifest(scan: Scan, extras: Sequence[Extra]) -> bytes:
    """The manifest of a release: every regular file and every extra, in `sha256sum -c` format."""
    files = [manifest_line(e.path, e.digest) for e in scan.entries if e.kind != "l"]
    added = [
        manifest_line(os.fsencode(extra.path), hashlib.sha256(extra.content).digest())
        for extra in extras
    ]
    return b"".join(files + added)


def tar_stream(scan: Scan, extras: Sequence[Extra] = ()) -> Iterator[bytes]:
    """The release as an uncompressed tar stream (GNU format), in blocks of bounded size.

    The scanned files come first, read again; then the extras, `.unifyweaver/manifest` and
    `.unifyweaver/links`. A file that has become shorter, longer or unreadable since the scan keeps
    the scanned size in the stream: its content then differs from the manifest.
    """
    links = b"".join(links_line(entry) for entry in scan.entries if entry.kind == "l")
    for entry in scan.entries:
        yield _header(entry)
        if entry.kind != "l":
            yield from _content(os.path.join(scan.root, entry.path), entry.size)
            yield _padding(entry.size)
    listed = Extra(f"{RESERVED}/manifest", 0o644, manifest(scan, extras))
    linked = Extra(f"{RESERVED}/links", 0o644, links)
    for extra in (*extras, listed, linked):
        yield _text_header(extra) + extra.content + _padding(len(extra.content))
    yield bytes(2 * tarfile.BLOCKSIZE)


def in_blocks(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in blocks of exactly `size`, but for the last."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        sent = 0
        while len(buffer) - sent >= size:
            yield bytes(memoryview(buffer)[sent : sent + size])
            sent += size
        del buffer[:sent]
    if buffer:
        yield bytes(buffer)


def _header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(os.fsdecode(entry.path))
    info.mtime = int(entry.mtime)
    if entry.kind == "l":
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.fsdecode(entry.target), 0o777
    else:
        info.size, info.mode = entry.size, 0o755 if entry.kind == "x" else 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _text_header(extra: Extra) -> bytes:
    info = tarfile.TarInfo(extra.path)
    info.size, info.mode, info.mtime = len(extra.content), extra.mode, int(time.time())
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _content(path: bytes, size: int) -> Iterator[bytes]:
    left = size
    # A file gone since the scan is for the target's check to name; the stream has to stay a valid
    # one until then.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:
            while left and (block := file.read(min(left, CHUNK))):
                left -= len(block)
                yield block
    while left:
        block = bytes(min(left, CHUNK))
        left -= len(block)
        yield block


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
