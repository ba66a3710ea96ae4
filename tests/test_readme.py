"""The README's first screen runs, and prints what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import unifyweaver_py as uw
from tests.site import Site
from unifyweaver_py.demo.fleet import Fleet

README = (Path(__file__).parents[1] / "README.md").read_text()
NAMES = ("web1.example.com", "web2.example.com")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order; those of none for ''."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(2) as hosts:
        yield hosts


def test_first_screen(
    fleet: Fleet,
    own_ledger: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The hosts' names and ports are the fleet's; all else is as printed."""
    site = Site(tmp_path)
    names = dict(zip(NAMES, [host.name for host in fleet.hosts], strict=True))

    def ours(text: str) -> str:
        for name, own in names.items():
            text = text.replace(name, own)
        return text

    def load(path: str, load: Callable[[str], None] = uw.load) -> None:
        load(path)
        uw.declare_service_hosts("web", {h.name: fleet.host_options(h) for h in fleet.hosts})

    def printed(text: str) -> str:
        text = re.sub(r"'?[0-9a-f]{64}'?", "HASH", ours(text))
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
        return re.sub(r"\d\.\d\d s", "TIME", text)

    (tmp_path / "services.pl").write_text(ours(blocks("prolog")[0]))
    monkeypatch.chdir(tmp_path)
    first, second = blocks("python")[:2]
    monkeypatch.setattr(uw, "load", load)
    scope: dict[str, object] = {}
    exec(ours(first), scope)
    assert printed(capsys.readouterr().out) == printed(blocks("")[0])
    site.release("2", "broken")
    exec(ours(second), scope)
    assert printed(capsys.readouterr().out) == printed(blocks("")[1])
    assert (fleet.hosts[0].folder / "deployed").read_text().startswith("web ")
    uw.undeclare_service("web")
