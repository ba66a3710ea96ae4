"""SHA-256 of files, computed once as long as nothing happens to them.

As in git's index, the state that `stat` tells of a file stands for its content. A state that could
stay the same over another change is not believed.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path

from unifyweaver_py._cache import CacheFolder

CHUNK = 1 << 18
RACY_NS = 2_000_000_000
CACHED_DIGESTS = 200_000
MOST_READERS = 8
BATCH = 64

KEPT_FOLDERS = 32
KEPT_BYTES = 128 << 20
WORTH_KEEPING_FILES = 500
WORTH_KEEPING_BYTES = 8 << 20

State = tuple[int, ...]
Found = tuple[bytes, os.stat_result]
Digest = tuple[bytes, os.stat_result]

# Whatever happens to a file changes one of these; nobody can set the time of the last change back.
state_of: Callable[[os.stat_result], State] = attrgetter(
    "st_ctime_ns", "st_mtime_ns", "st_size", "st_mode", "st_ino", "st_dev"
)


def settled(status: os.stat_result, now: int) -> bool:
    """Whether a change made after `now` (ns since the epoch) gives the file another time stamp.

    Time stamps may be as coarse as two seconds.
    """
    changed, modified = status.st_ctime_ns, status.st_mtime_ns
    return changed + RACY_NS < now and not now - RACY_NS <= modified <= now + RACY_NS


class DigestCache:
    """The digests known to this process, and in the user's cache those that took long to compute.

    A file changed within two seconds before it was hashed is hashed again the next time. A file
    that a process changes through a mapping which stays writable is one that `stat` may tell
    nothing of, as git would miss it too.
    """

    def __init__(self, base: Path | None = None) -> None:
        self._digests: OrderedDict[bytes, tuple[State, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._folder = CacheFolder("digests", KEPT_FOLDERS, KEPT_BYTES, base)
        self._recalled: set[bytes] = set()
        self._fresh_files = 0
        self._fresh_bytes = 0
        self.hashed = 0

    def digest(self, path: bytes, status: os.stat_result | None = None) -> Digest:
        """The content's SHA-256 and the status of the file it was read from; `status` is its
        `lstat`, if that was just asked for.
        """
        seen = os.lstat(path) if status is None else status
        with self._lock:
            known = self._digests.get(path)
        if known is not None and known[0] == state_of(seen):
            return known[1], seen
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0):
            return self._hash(path, descriptor)

    def digests(self, files: Iterable[Found]) -> dict[bytes, Digest | OSError]:
        """`digest` of each path and `lstat`, or why it cannot be read; several at once."""
        done: dict[bytes, Digest | OSError] = {}
        unknown = []
        with self._lock:
            for path, status in files:
                known = self._digests.get(path)
                if known is not None and known[0] == state_of(status):
                    done[path] = known[1], status
                else:
                    unknown.append((path, status))
        batches = [unknown[at : at + BATCH] for at in range(0, len(unknown), BATCH)]
        workers = min(MOST_READERS, os.cpu_count() or 1, len(batches))
        if workers < 2:
            done.update(map(self._attempt, unknown))
            return done
        with ThreadPoolExecutor(workers, "unifyweaver-hash") as pool:
            for batch in pool.map(lambda batch: list(map(self._attempt, batch)), batches):
                done.update(batch)
        return done

    def _attempt(self, file: Found) -> tuple[bytes, Digest | OSError]:
        try:
            return file[0], self.digest(*file)
        except OSError as error:
            return file[0], error

    def _hash(self, path: bytes, descriptor: int) -> Digest:
        now = time.time_ns()
        digest = hashlib.sha256()
        while block := os.read(descriptor, CHUNK):
            digest.update(block)
        status = os.fstat(descriptor)
        with self._lock:
            self.hashed += 1
            if settled(status, now):
                self._fresh_files += 1
                self._fresh_bytes += status.st_size
                self._remember(path, state_of(status), digest.digest())
        return digest.digest(), status

    def _remember(self, path: bytes, state: State, digest: bytes) -> None:
        self._digests[path] = state, digest
        while len(self._digests) > CACHED_DIGESTS:
            self._digests.popitem(last=False)

    def recall(self, root: bytes) -> None:
        """Take up what an earlier process kept of the files below a folder."""
        with self._lock:
            if root in self._recalled:
                return
            self._recalled.add(root)
        content = self._folder.read(_name(root))
        with self._lock:
            for path, state, digest in _unpacked(content or b""):
                if root + b"/" + path not in self._digests:
                    self._remember(root + b"/" + path, state, digest)

    def keep(self, root: bytes) -> None:
        """Keep what is known of the files below a folder for later processes, where it took long."""
        start = root + b"/"
        with self._lock:
            if self._fresh_files < WORTH_KEEPING_FILES and self._fresh_bytes < WORTH_KEEPING_BYTES:
                return
            self._fresh_files = self._fresh_bytes = 0
            kept = [
                (path[len(start) :], state, digest)
                for path, (state, digest) in self._digests.items()
                if path.startswith(start)
            ]
        self._folder.write(_name(root), _packed(kept))


_RECORD = struct.Struct(">qqQQQQ32sI")


def _name(root: bytes) -> str:
    return hashlib.sha256(os.path.abspath(root)).hexdigest()


def _packed(records: Iterable[tuple[bytes, State, bytes]]) -> bytes:
    """A record for each file, and their SHA-256."""
    content = b"".join(
        _RECORD.pack(*state, digest, len(path)) + path for path, state, digest in records
    )
    return content + hashlib.sha256(content).digest()


def _unpacked(content: bytes) -> Iterator[tuple[bytes, State, bytes]]:
    """The records; none of what is damaged."""
    records, check = content[:-32], content[-32:]
    if hashlib.sha256(records).digest() != check:
        return
    at = 0
    while at < len(records):
        *state, digest, length = _RECORD.unpack_from(records, at)
        at += _RECORD.size + length
        yield records[at - length : at], tuple(state), digest
