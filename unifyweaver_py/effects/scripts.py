"""A script on its way to a shell, and what it writes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from unifyweaver_py._terms import PrologString, Term
from unifyweaver_py.effects.archive import in_blocks
from unifyweaver_py.effects.base import Reason
from unifyweaver_py.effects.vault import own_vault

LAST_ERROR_LINES = 20

shipped = threading.Event()
"""Something was sent to a host, which is busy with it for a while."""


def lines_of(text: bytes) -> list[PrologString]:
    r"""The lines of a text, decoded; bytes that are not UTF-8 appear as `\xNN`."""
    lines = text.decode("utf-8", "backslashreplace").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [PrologString(line) for line in lines]


class Output:
    """What a script has written so far, in bounded memory: the beginning of stdout, the end of
    stderr.
    """

    OUT_LIMIT = 16 << 20
    ERROR_LIMIT = 64 << 10

    def __init__(self) -> None:
        self._out = bytearray()
        self._error = bytearray()
        self.received = 0

    def out(self, data: bytes) -> None:
        """Add to standard output; beyond 16 MB it is dropped."""
        self.received += len(data)
        self._out += data[: max(0, self.OUT_LIMIT - len(self._out))]

    def error(self, data: bytes) -> None:
        """Add to standard error, of which only the last 64 kB are kept."""
        self.received += len(data)
        self._error += data
        if len(self._error) > 2 * self.ERROR_LIMIT:
            del self._error[: -self.ERROR_LIMIT]

    @property
    def lines(self) -> list[PrologString]:
        """The lines of standard output."""
        return lines_of(own_vault.masked_report(bytes(self._out)))

    def done(self, status: int) -> Term:
        """`done(Status, Lines, LastErrorLines)`."""
        errors = lines_of(own_vault.masked(bytes(self._error[-self.ERROR_LIMIT :])))
        return Term("done", (status, self.lines, errors[-LAST_ERROR_LINES:]))

    def cut(self, reason: Reason) -> Term:
        """`cut(Reason, Lines)`."""
        return Term("cut", (reason, self.lines))


def command_line(script: bytes, *, sudo: bool) -> str:
    """The command that evaluates the first bytes of its standard input; nothing in it but their
    number varies.
    """
    prefix = "sudo -n " if sudo else ""
    return f"""{prefix}sh -c 'script=$(head -c {len(script)}); eval "$script"'"""


# The process group of the script, on its standard error: what is to be ended when it has to be.
REPORT_GROUP = (
    b"{ { read -r _ _ _ _ group _ </proc/$$/stat; } 2>/dev/null"
    b' && echo "unifyweaver-group $group" >&2; };'
)


def framed(script: str, *, report_group: bool = False) -> bytes:
    """The script as one compound command: of a script that arrives only in part, the shell runs
    nothing.
    """
    start = REPORT_GROUP if report_group else b":;"
    return b"{ " + start + script.encode("utf-8", "surrogateescape") + b"\n}\n"


def followed(text: bytes, payload: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The standard input of the command: the script, then the payload in blocks of that size. The
    script begins while the payload is still worked out.
    """
    yield text
    for block in in_blocks(payload, size):
        yield block
        shipped.set()
