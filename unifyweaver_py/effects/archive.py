"""A release as a tar stream, with the manifest by which the target verifies it.

The stream is written from a scan: a file edited afterwards no longer fits the manifest, and the
target refuses it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from unifyweaver_py.effects.files import CHUNK, Entry, Scan
from unifyweaver_py.effects.patterns import RESERVED


@dataclass(frozen=True)
class Extra:
    """A file of the release that is not among the sources: its text is given."""

    path: str
    mode: int
    content: bytes


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
        info.size, info.mode = entry.size, entry.shipped_mode
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
