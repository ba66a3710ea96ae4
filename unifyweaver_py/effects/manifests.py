"""Manifests: what is in a release, line by line, and what differs from one to the next.

A manifest is what `sha256sum -c` reads, in the order of the paths. A `*` before a name marks an
executable file, as `ls -F` writes it, and `./` a private one, which others may not read; a symbolic
link is a comment. So its own SHA-256 vouches for the whole release.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from unifyweaver_py._cache import CacheFolder
from unifyweaver_py.effects.files import Entry

LINK = b"#link "
DIGEST = re.compile(r"[0-9a-f]{64}")
CACHED_MANIFESTS = 64
CACHED_BYTES = 256 << 20


def _escaped(path: bytes, *also: tuple[bytes, bytes]) -> bytes:
    for plain, written in ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"), *also):
        path = path.replace(plain, written)
    return path


def file_line(path: bytes, digest: bytes, kind: str = "f") -> bytes:
    """One line that `sha256sum -c` reads, without its end: a name with a backslash or a line end is
    escaped and marked. `-`, its standard input, is written `././-`.
    """
    name = b"./" + path if kind in "pq" else b"././-" if path == b"-" else path
    written = _escaped(name)
    mark = b"\\" if written != name else b""
    return mark + digest.hex().encode() + (b" *" if kind in "xq" else b"  ") + written


def link_line(path: bytes, target: bytes) -> bytes:
    """The comment `#link PATH TAB TARGET`, without its end; a backslash, line end or tab in them is
    escaped.
    """
    tab = (b"\t", b"\\t")
    return LINK + _escaped(path, tab) + b"\t" + _escaped(target, tab)


def entry_line(entry: Entry) -> bytes:
    """The line of a shipped file."""
    if entry.kind == "l":
        return link_line(entry.path, entry.target)
    return file_line(entry.path, entry.digest, entry.kind)


def joined(lines: Sequence[bytes]) -> bytes:
    """The text of a manifest."""
    return b"".join(line + b"\n" for line in lines)


@dataclass(frozen=True)
class Difference:
    """What is to be done with an older manifest's lines to get a newer one, and which of the newer
    one's lines are kept from the older.

    `script` has a line each: `=N` keeps the next N, `-N` leaves the next N out, `+LINE` adds one.
    """

    script: bytes
    kept: frozenset[int]


def difference(old: Sequence[bytes], new: Sequence[bytes], reusable: Collection[int]) -> Difference:
    """From `old` to `new`, of whose lines only the `reusable` (by index) may be kept."""
    steps = list(_steps(old, new, reusable))
    kept = frozenset(index for word, index in steps if word == b"=")
    written = []
    for word, group in groupby(steps, key=lambda step: step[0]):
        if word == b"+":
            written += [b"+" + new[index] for _, index in group]
        else:
            written.append(b"%s%d" % (word, sum(1 for _ in group)))
    return Difference(joined(written), kept)


def _steps(
    old: Sequence[bytes], new: Sequence[bytes], reusable: Collection[int]
) -> Iterator[tuple[bytes, int]]:
    """Both are in the order of their paths, so what they share stands in the same order in both."""
    places = {line: place for place, line in enumerate(old)}
    at = 0
    for index, line in enumerate(new):
        place = places.get(line, -1) if index in reusable else -1
        if place < at:
            yield b"+", index
            continue
        for _ in range(at, place):
            yield b"-", -1
        yield b"=", index
        at = place + 1


class ManifestCache:
    """The manifests of what was shipped from here, by their own SHA-256, in the user's cache.

    What is damaged, missing or cannot be written costs a larger shipment, never a wrong one.
    """

    def __init__(self, base: Path | None = None) -> None:
        self._folder = CacheFolder("manifests", CACHED_MANIFESTS, CACHED_BYTES, base)

    def get(self, digest: str) -> bytes | None:
        """The manifest with this SHA-256 (hex), if it is there and whole."""
        if not DIGEST.fullmatch(digest):
            return None
        text = self._folder.read(digest)
        if text is not None and hashlib.sha256(text).hexdigest() == digest:
            return text
        return None

    def put(self, text: bytes) -> None:
        """Keep a manifest."""
        digest = hashlib.sha256(text).hexdigest()
        if self.get(digest) is None:
            self._folder.write(digest, text)
