"""Files in the user's cache folder, all of which may be lost at any time."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

VARIABLE = "UNIFYWEAVER_CACHE"


class CacheFolder:
    """A folder called `name` in `UNIFYWEAVER_CACHE`, else in the user's cache folder.

    Of its files, the `most` used last are kept, and no more than `size` bytes. Nothing is raised
    for what cannot be read or written: it is not there.
    """

    def __init__(self, name: str, most: int, size: int, base: Path | None = None) -> None:
        self._name = name
        self._most = most
        self._size = size
        self._base = base

    @property
    def path(self) -> Path:
        """Where the folder is, or would be."""
        if self._base is not None:
            return self._base / self._name
        if named := os.environ.get(VARIABLE):
            return Path(named) / self._name
        from platformdirs import user_cache_path

        return user_cache_path("unifyweaver") / self._name

    def read(self, name: str) -> bytes | None:
        """The content of a file, which counts as used now."""
        path = self.path / name
        with suppress(OSError):
            if path.stat().st_size <= self._size:
                content = path.read_bytes()
                os.utime(path)
                return content
        return None

    def write(self, name: str, content: bytes) -> None:
        """Replace a file, whole."""
        with suppress(OSError):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._replace(self.path / name, content)
            self._forget_old()

    def _replace(self, path: Path, content: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise

    def _forget_old(self) -> None:
        files = [(item.stat(), item.path) for item in os.scandir(self.path)]
        files.sort(key=lambda file: file[0].st_mtime_ns, reverse=True)
        total = 0
        for number, (status, path) in enumerate(files):
            total += status.st_size
            if number >= self._most or total > self._size:
                os.unlink(path)
