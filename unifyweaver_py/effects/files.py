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
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from unifyweaver_py.effects.digests import DigestCache, Found, State, settled, state_of
from unifyweaver_py.effects.patterns import (
    Entered,
    Pattern,
    SourcesError,
    Walk,
    components,
    printable,
    why,
)

REMEMBERED_SCANS = 64
REMEMBERED_ENTRIES = 500_000


def _known_state(status: os.stat_result, now: int) -> State | None:
    return state_of(status) if settled(status, now) else None


MODES = {"f": 0o644, "x": 0o755, "p": 0o600, "q": 0o700, "l": 0o777}
"""The mode in which a file of each kind is shipped."""

PUBLIC = {"f": b"f", "x": b"x", "p": b"f", "q": b"x", "l": b"l"}
"""The kind that counts in a release's hash."""


def file_kind(mode: int) -> str:
    """The kind of a regular file with that mode."""
    executable, private = bool(mode & 0o111), not mode & 0o004
    return "fxpq"[executable + 2 * private]


@dataclass(frozen=True)
class Entry:
    """One shipped file: `kind` is `f` (file), `x` (executable file), `p` or `q` (likewise, but
    private: others may not read it) or `l` (symbolic link).
    """

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


_digests = DigestCache()


Read = tuple[Entry, os.stat_result]


def _read(root: bytes, found: Sequence[Found]) -> Iterator[Read]:
    """The entries of files given by path and `lstat`, each with the status it was made from.

    Raises `SourcesError` at the first that cannot be shipped.
    """
    real_root = os.path.realpath(root)
    regular = ((root + b"/" + p, status) for p, status in found if stat.S_ISREG(status.st_mode))
    digests = _digests.digests(regular)
    for path, status in found:
        if stat.S_ISLNK(status.st_mode):
            yield _link(root, real_root, path, status), status
            continue
        answer = digests.get(root + b"/" + path)
        if answer is None:
            raise SourcesError("unsupported_file", printable(path))
        if isinstance(answer, OSError):
            raise SourcesError("unreadable", printable(path), why(answer)) from answer
        digest, read = answer
        if not stat.S_ISREG(read.st_mode):
            raise SourcesError("unsupported_file", printable(path))
        yield Entry(path, file_kind(read.st_mode), read.st_size, read.st_mtime, digest), read


def _link(root: bytes, real_root: bytes, path: bytes, status: os.stat_result) -> Entry:
    try:
        target = os.readlink(os.path.join(root, path))
    except OSError as error:
        raise SourcesError("unreadable", printable(path), why(error)) from error
    _check_link(root, real_root, path, target)
    return Entry(path, "l", 0, status.st_mtime, b"", target)


def _check_link(root: bytes, real_root: bytes, path: bytes, target: bytes) -> None:
    """Refuses a link that leads out of the sources, as written or with all links followed."""
    written = os.path.normpath(os.path.join(os.path.dirname(path), target))
    outside = target.startswith(b"/") or written == b".." or written.startswith(b"../")
    real = os.path.realpath(os.path.join(root, path))
    if outside or not (real == real_root or real.startswith(real_root.rstrip(b"/") + b"/")):
        raise SourcesError("link_leads_outside", printable(path))


def _sized(value: bytes) -> bytes:
    return len(value).to_bytes(8, "big") + value


def _hashed(entry: Entry) -> bytes:
    what = (
        _sized(entry.target) if entry.kind == "l" else entry.size.to_bytes(8, "big") + entry.digest
    )
    return PUBLIC[entry.kind] + _sized(entry.path) + what


def release_hash(entries: Iterable[Entry]) -> str:
    """SHA-256, hex, over kind, path and content (or link target) of each entry, each with its
    length. Whether a file is private does not count: that is a matter of the umask.
    """
    return hashlib.sha256(b"".join(map(_hashed, entries))).hexdigest()


class _Tree:
    """A scan, and the state of everything it depends on.

    What had just changed when it was made, at `now` (ns), could change again without a new time
    stamp: its state counts as unknown.
    """

    def __init__(
        self, scan: Scan, entered: Sequence[Entered], states: Sequence[State | None], now: int
    ) -> None:
        self.scan = scan
        self._entered = entered
        self._made = now
        self._folders = [folder.path for folder in entered]
        self._folder_states = [_known_state(folder.status, now) for folder in entered]
        self._listings = [folder.names for folder in entered]
        self._paths = [scan.root + b"/" + entry.path for entry in scan.entries]
        self._states = states
        self._links = [entry for entry in scan.entries if entry.kind == "l"]

    def refreshed(self) -> _Tree | None:
        """The tree as it is now: this one where nothing changed, another where files did.

        None where more than that changed, or something is wrong: only a scan can tell.
        """
        now = time.time_ns()
        try:
            if (
                list(map(state_of, map(os.stat, self._folders))) != self._folder_states
                or list(map(os.listdir, self._folders)) != self._listings
            ):
                return None
            states = list(map(state_of, map(os.lstat, self._paths)))
            self._check_links()
            return self if states == self._states else self._changed(states, now)
        except (OSError, SourcesError):
            return None

    def _check_links(self) -> None:
        root = self.scan.root
        real_root = os.path.realpath(root)
        for link in self._links:
            _check_link(root, real_root, link.path, link.target)

    def _changed(self, found: Sequence[State], now: int) -> _Tree:
        states: list[State | None] = list(found)
        entries = list(self.scan.entries)
        changed = [at for at, state in enumerate(self._states) if state != found[at]]
        files = [(entries[at].path, os.lstat(self._paths[at])) for at in changed]
        for at, (entry, status) in zip(changed, _read(self.scan.root, files), strict=True):
            entries[at] = entry
            states[at] = _known_state(status, now)
        return _Tree(_scan(self.scan.root, entries), self._entered, states, self._made)


class _Turn:
    """Lets many callers share one scan: whoever comes while one runs waits for the next, which all
    share.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begun = 0
        self.ended: tuple[int, Scan | SourcesError] | None = None
        self.tree: _Tree | None = None


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
        for need in needs:
            path = os.fsencode("/".join(components(Pattern(need))))
            at = bisect_left(scan.entries, path, key=attrgetter("path"))
            if at == len(scan.entries) or scan.entries[at].path != path:
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
            scan = self._scan(turn, folder, patterns)
        except SourcesError as error:
            turn.tree = None
            return number, error
        with self._lock:
            self._known[(folder, patterns, scan.hash)] = scan
            self._known.move_to_end((folder, patterns, scan.hash))
            self._forget_old()
        return number, scan

    def _scan(self, turn: _Turn, folder: str, patterns: tuple[Pattern, ...]) -> Scan:
        tree = turn.tree.refreshed() if turn.tree is not None else None
        turn.tree = tree or scan_tree(folder, patterns)
        return turn.tree.scan

    def _forget_old(self) -> None:
        entries = sum(len(scan.entries) for scan in self._known.values())
        while len(self._known) > 1 and (
            len(self._known) > REMEMBERED_SCANS or entries > REMEMBERED_ENTRIES
        ):
            entries -= len(self._known.popitem(last=False)[1].entries)


def scan_sources(folder: str, patterns: Sequence[Pattern]) -> Scan:
    """One scan of the folder, now; `Scanner.scan` says what it raises."""
    return scan_tree(folder, patterns).scan


def scan_tree(folder: str, patterns: Sequence[Pattern]) -> _Tree:
    """One scan of the folder, now, with the state it depends on."""
    now = time.time_ns()
    root = os.fsencode(folder)
    if not os.path.isdir(root):
        raise SourcesError("source_dir_not_found", folder)
    walk = Walk(root, patterns)
    found = sorted(walk.files().items())
    if not found:
        raise SourcesError("no_sources")
    _digests.recall(root)
    entries, statuses = zip(*_read(root, found), strict=True)
    _digests.keep(root)
    states = [_known_state(status, now) for status in statuses]
    return _Tree(_scan(root, entries), walk.entered, states, now)


def _scan(root: bytes, entries: Iterable[Entry]) -> Scan:
    files = tuple(entries)
    return Scan(root, files, release_hash(files), sum(entry.size for entry in files))
