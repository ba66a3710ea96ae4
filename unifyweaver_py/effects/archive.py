"""A release as a tar stream, with the manifest by which the target verifies it.

Of a release that shares files with one on the target, only the others travel, and of its manifest
the difference. The stream is written from a scan: a file edited afterwards no longer fits the manifest, and the
target refuses it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from unifyweaver_py.effects.digests import CHUNK
from unifyweaver_py.effects.files import MODES, Entry, Scan
from unifyweaver_py.effects.manifests import (
    Difference,
    ManifestCache,
    difference,
    entry_line,
    file_line,
    joined,
)
from unifyweaver_py.effects.patterns import RESERVED


@dataclass(frozen=True)
class Extra:
    """A file of the release that is not among the sources: its text is given."""

    path: str
    mode: int
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Base:
    """A release on the target, and the SHA-256 (hex) of its manifest; `reuse` is `copy`, or `link`
    for hard links. What is `touched` there is no longer what the manifest says.
    """

    release: str
    manifest: str
    reuse: str = "copy"
    touched: frozenset[bytes] = frozenset()


def touched_paths(told: str) -> frozenset[bytes]:
    """The paths that a target tells in hexadecimal: kind, path (and `//` and target), NUL each; or
    `-` for none.
    """
    if told == "-":
        return frozenset()
    keys = bytes.fromhex(told).split(b"\0")[:-1]
    return frozenset(key[1:].split(b"//", 1)[0] for key in keys)


@dataclass(frozen=True)
class Shipment:
    """What travels: all of a release, or what `difference` says that it does not share with `base`."""

    scan: Scan
    extras: tuple[Extra, ...]
    manifest: bytes
    base: Base | None = None
    difference: Difference | None = None

    def sent(self) -> list[Entry]:
        """The scanned files that travel."""
        if self.difference is None:
            return list(self.scan.entries)
        kept = self.difference.kept
        return [entry for index, entry in enumerate(self.scan.entries) if index not in kept]

    def control(self) -> Extra:
        """The manifest, or how the target makes it from that of the base.

        The first line is then `RELEASE SHA256 copy|link SHA256 FILES BYTES`: the base and its
        manifest, and the new manifest, number of files and their size altogether.
        """
        if self.base is None or self.difference is None:
            return Extra(f"{RESERVED}/manifest", 0o644, self.manifest)
        files = [entry for entry in self.scan.entries if entry.kind != "l"]
        digest = hashlib.sha256(self.manifest).hexdigest()
        first = (
            f"{self.base.release} {self.base.manifest} {self.base.reuse} "
            f"{digest} {len(files)} {self.scan.size}\n"
        )
        content = first.encode() + self.difference.script
        return Extra(f"{RESERVED}/difference", 0o644, content)


def shipment(
    scan: Scan,
    extras: Sequence[Extra] = (),
    base: Base | None = None,
    cache: ManifestCache | None = None,
) -> Shipment:
    """What has to travel to a target that has `base`, whose manifest is looked up in `cache`.

    That of the new release is kept there. Everything travels when the base's is not known.
    """
    lines = [entry_line(entry) for entry in scan.entries]
    touched = base.touched if base is not None else frozenset()
    reusable = {at for at, entry in enumerate(scan.entries) if entry.path not in touched}
    lines += [
        file_line(os.fsencode(extra.path), hashlib.sha256(extra.content).digest())
        for extra in extras
    ]
    text = joined(lines)
    whole = Shipment(scan, tuple(extras), text)
    if cache is None:
        return whole
    known = cache.get(base.manifest) if base is not None else None
    cache.put(text)
    if known is None:
        return whole
    found = difference(known.split(b"\n")[:-1], lines, reusable)
    return Shipment(scan, tuple(extras), text, base, found) if found.kept else whole


def tar_stream(shipped: Shipment) -> Iterator[bytes]:
    """The shipment as an uncompressed tar stream (GNU format), in blocks of bounded size.

    The scanned files come first, read again; then the extras and the manifest (or the difference).
    A file that has become shorter, longer or unreadable since the scan keeps the scanned size in
    the stream: its content then differs from the manifest.
    """
    for entry in shipped.sent():
        yield _header(entry)
        if entry.kind != "l":
            yield from _content(os.path.join(shipped.scan.root, entry.path), entry.size)
            yield _padding(entry.size)
    for extra in (*shipped.extras, shipped.control()):
        yield _text_header(extra) + extra.content + _padding(len(extra.content))
    yield bytes(2 * tarfile.BLOCKSIZE)


def shipment_stream(
    scan: Scan, extras: Sequence[Extra], base: Base | None, cache: ManifestCache
) -> Iterator[bytes]:
    """The stream of a `shipment`, which is worked out when the first block is asked for."""
    yield from tar_stream(shipment(scan, extras, base, cache))


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
    info.mode = MODES[entry.kind]
    if entry.kind == "l":
        info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(entry.target)
    else:
        info.size = entry.size
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
