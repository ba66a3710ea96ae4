"""Which files the source patterns name."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from unifyweaver_py._terms import Term

RESERVED = ".unifyweaver"


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


def printable(path: bytes) -> str:
    r"""The path as text that can be shown: bytes that are not UTF-8 appear as `\xNN`."""
    return path.decode("utf-8", "backslashreplace")


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


@dataclass(frozen=True)
class Entered:
    """A folder whose names were read: its status before that, and the names in the order given."""

    path: bytes
    status: os.stat_result
    names: list[bytes]


class Walk:
    """Finds the files that the patterns name; only enters folders that a pattern can lead into."""

    def __init__(self, root: bytes, patterns: Sequence[Pattern]) -> None:
        self.root = root
        self.included = [_Glob(pattern) for pattern in patterns if not pattern.exclude]
        self.excluded = [_Glob(pattern) for pattern in patterns if pattern.exclude]
        self.found: dict[bytes, os.stat_result] = {}
        self.entered: list[Entered] = []
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
        for item in self._listing(folder):
            name = os.fsdecode(item.name)
            ahead = self._advance(following, name)
            if not ahead:
                continue
            path = folder + b"/" + item.name if folder else item.name
            taken = [
                glob.enter(state, name) for glob, state in zip(self.excluded, excluded, strict=True)
            ]
            self._visit(path, item, ahead, taken)

    def _listing(self, folder: bytes) -> list[os.DirEntry[bytes]]:
        path = self.root + b"/" + folder if folder else self.root
        try:
            status = os.stat(path)
            with os.scandir(path) as items:
                listed = list(items)
        except OSError as error:
            raise SourcesError("unreadable", printable(folder or self.root), why(error)) from error
        self.entered.append(Entered(path, status, [item.name for item in listed]))
        return listed

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


def _lstat(root: bytes, path: bytes) -> os.stat_result:
    try:
        return os.lstat(os.path.join(root, path))
    except OSError as error:
        raise SourcesError("unreadable", printable(path), why(error)) from error


def why(error: OSError) -> str:
    """The system's words for an error."""
    return error.strerror or errno.errorcode.get(error.errno or 0, type(error).__name__)
