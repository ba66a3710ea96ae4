"""The Prolog half, compiled once for each SWI-Prolog: loading that takes a tenth of the time.

As with Python's byte code, nothing depends on it. It is found by the contents of all sources, their
folder, and what SWI-Prolog says its compiled files are compatible with; and it is believed only
where it is whole and nobody else could have written it, for SWI-Prolog ends the process over a
damaged one.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from unifyweaver_py._cache import CacheFolder

_MOST: Final = 8
_BYTES: Final = 16 << 20
_DIGEST: Final = 32  # bytes of the SHA-256 that ends a file

Compile = Callable[[Path], bool]
"""Compiles a Prolog file, with all that it loads, into the `.qlf` beside it; false if there was
anything to complain of."""


class Compiled:
    """The Prolog files of a folder and their compiled forms, in the user's cache."""

    def __init__(self, folder: Path, versions: Iterable[int], base: Path | None = None) -> None:
        self._folder = folder
        self._cache = CacheFolder("prolog", _MOST, _BYTES, base)
        self._key = _key(folder, versions)

    def file(self, name: str, compile_file: Compile) -> Path | None:
        """What to load in place of the source of that name: it is there, or is made.

        None when it was made just now, for compiling a file loads it too, or cannot be made.
        """
        compiled = f"{Path(name).stem}-{self._key}.qlf"
        path = self._cache.path / compiled
        if self._whole(compiled) and _ours(path.parent) and _ours(path):
            return path
        with suppress(OSError):
            self._make(compiled, self._folder / name, compile_file)
        return None

    def _whole(self, compiled: str) -> bool:
        content = self._cache.read(compiled) or b""
        return content[-_DIGEST:] == hashlib.sha256(content[:-_DIGEST]).digest()

    def _make(self, compiled: str, source: Path, compile_file: Compile) -> None:
        """Compile what loads the source and nothing else: it keeps its own name that way."""
        with tempfile.TemporaryDirectory(prefix="unifyweaver-") as folder:
            loads = (Path(folder) / compiled).with_suffix(".pl")
            loads.write_text(
                f":- module({_atom(compiled)}, []).\n:- use_module({_atom(source)}, []).\n"
            )
            if compile_file(loads):
                content = loads.with_suffix(".qlf").read_bytes()
                self._cache.write(compiled, content + hashlib.sha256(content).digest())


def _key(folder: Path, versions: Iterable[int]) -> str:
    digest = hashlib.sha256(repr((str(folder), *versions)).encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            digest.update(repr((path.name, len(content))).encode() + content)
    return digest.hexdigest()


def _ours(path: Path) -> bool:
    """Whether nobody else may have written it."""
    status = os.lstat(path)
    own = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return own and not stat.S_ISLNK(status.st_mode)


def _atom(text: str | Path) -> str:
    quoted = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"
